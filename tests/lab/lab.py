#!/usr/bin/python3
"""A rig of emulated hosts with stock Debian kernels, real KVM inside, and cables between them.

    from lab import Lab
    with Lab() as lab:                      # boots host1 and host2
        one, two = lab.hosts
        print(one.run("uname -r").out)
        lab.cut(one, two); lab.restore(one, two)
        one.kill()

By hand: lab.py shell | selftest. More in README.md.
"""

import contextlib
import fcntl
import itertools
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import threading

import images
from cable import Cable
from host import Host, LabError

__all__ = ["Lab", "LabError"]

_PREFIX = "romulus-lab-"
_BOOT_ATTEMPTS = 3
_TIME_ATTEMPTS = 5  # to have hosts whose TSCs run at the same speed
_TSC_TOLERANCE = 200e-6


class Lab:
    """Hosts host1..hostN, each with a cable to each other, at 10.99.0.1..N. Use it with `with`.

    scratch is a folder that all hosts and this machine see at the same path; it goes away at the
    end, except after an exception (then the consoles are in it) or with keep=True. All ends with
    the `with`; on SIGTERM too (from the main thread), and the hosts also when this process is killed.

    disk_mib gives each host a disk of its own, empty, that outlives it: /dev/vda. systemd=True: the
    hosts boot systemd, and what they write to their root is on that disk.
    """

    def __init__(self, hosts=2, memory_mib=1024, cpus=2, keep=False, disk_mib=0,
                 systemd=False):
        self._count = hosts
        self._memory_mib = memory_mib
        self._cpus = cpus
        self._disk_mib = disk_mib
        self._systemd = systemd
        self.keep = keep
        self._cables = {}
        self._unplugged = set()  # (host, peer)
        self.slowness = float(os.environ.get("ROMULUS_LAB_SLOWNESS", "1"))
        self.hosts = []
        self.scratch = None

    def __enter__(self):
        with contextlib.ExitStack() as undo:
            self._catch_sigterm(undo)
            self._make_scratch()
            undo.push(self._remove_scratch)
            initramfs = images.build_host_initramfs(self.scratch / "host.cpio")
            self.hosts = [
                Host(f"host{n}", f"10.99.0.{n}", self._memory_mib, self._cpus, self.scratch,
                     initramfs, self.slowness, self._make_disk(f"host{n}"), self._systemd)
                for n in range(1, self._count + 1)]
            for (i, a), (j, b) in itertools.combinations(enumerate(self.hosts, 1), 2):
                cable = self._cables[a, b] = Cable()
                undo.callback(cable.close)
                a.nics[b.name] = cable.ends[0], f"52:54:00:99:{i:02x}:{j:02x}", b.address
                b.nics[a.name] = cable.ends[1], f"52:54:00:99:{j:02x}:{i:02x}", a.address
            for host in self.hosts:
                undo.callback(host.kill)
                host.start()
            for host in self.hosts:
                host.ready()
            self._agree_on_time()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception):
        return self._undo.__exit__(*exception)

    def boot(self, host):
        """Powers a killed host on again and waits for it. What was cut stays cut."""
        for (a, b), cable in self._cables.items():
            if host in (a, b):
                cable.drain(0 if host is a else 1)
        self._unplugged = {(h, peer) for h, peer in self._unplugged if h is not host}
        for attempt in range(1, _BOOT_ATTEMPTS + 1):
            host.start()
            try:
                host.ready()
                break
            except LabError:
                # An assertion of QEMU's own, which one processor fails while another moves PCI windows.
                if not host.aborted() or attempt == _BOOT_ATTEMPTS:
                    raise
                print(f"     {host.name}: QEMU gave up while it booted, once more", flush=True)
                host.kill()
        self._agree_on_time([host])

    def _agree_on_time(self, fresh=None):
        """Reboots hosts (of these, if given) until all believe their TSC to run at the same speed.

        Each measures it while it boots, against an emulated timer that comes late on a busy
        machine; and a guest cannot go on where the TSC's speed differs (KVM takes 250 ppm).
        """
        for _ in range(_TIME_ATTEMPTS):
            alive = [host for host in self.hosts if host.alive() and not host.frozen()]
            khz = {}
            with contextlib.suppress(LabError):  # now and then a host hangs right after its boot
                khz = {host.name: host.tsc_khz() for host in alive}
            speeds = khz.values()
            if speeds and max(speeds) - min(speeds) <= min(speeds) * _TSC_TOLERANCE:
                return
            again = fresh or alive
            for host in again:
                host.kill()
            for host in again:
                host.start()
            for host in again:
                host.ready()
        raise LabError(f"the hosts do not agree on the speed of their TSC: {khz}")

    def cut(self, a, b, one_way=False):
        """From now on no frame passes between a and b (one_way: from a to b). Nobody is told."""
        self.lose(a, b, 1, one_way)

    def restore(self, a, b):
        """Undoes cut, lose and unplug."""
        self.lose(a, b, 0)
        for host, peer in (a, b), (b, a):
            if (host, peer) in self._unplugged:
                host.carrier(peer.name, True)
                self._unplugged.discard((host, peer))

    def lose(self, a, b, fraction, one_way=False):
        """Loses that fraction of the frames between a and b (one_way: from a to b) at random."""
        forward = (a, b) in self._cables
        cable = self._cables[(a, b) if forward else (b, a)]
        cable.lose(1 if forward else 0, fraction)
        if not one_way:
            cable.lose(0 if forward else 1, fraction)

    def unplug(self, a, b):
        """Pulls the cable out at both hosts, whose kernels see the carrier go."""
        for host, peer in (a, b), (b, a):
            if host.alive():
                host.carrier(peer.name, False)
                self._unplugged.add((host, peer))

    def _make_disk(self, name):
        if self._disk_mib == 0:
            return None
        disk = self.scratch / f"{name}.disk"
        with open(disk, "wb") as file:
            file.truncate(self._disk_mib << 20)
        return disk

    def _catch_sigterm(self, undo):
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            return

        def leave(number, frame):
            sys.exit(128 + number)

        signal.signal(signal.SIGTERM, leave)
        undo.callback(signal.signal, signal.SIGTERM, signal.SIG_DFL)

    def _make_scratch(self):
        base = pathlib.Path(tempfile.gettempdir()).resolve()
        if base.parts[1:2] and base.parts[1] in ("dev", "proc", "run", "sys"):
            raise LabError(f"{base} is hidden inside a lab host: set TMPDIR to another folder")
        if not re.fullmatch(r"[\w./+-]+", str(base), re.ASCII):
            # It goes through QEMU's options and a kernel command line, which have no quoting.
            raise LabError(f"{str(base)!r} has characters that the lab cannot pass on: set TMPDIR")
        # Folders of labs that were killed: no process holds their lock.
        for old in base.glob(_PREFIX + "*"):
            with contextlib.suppress(OSError):
                with open(old / ".lock", "rb") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(old, ignore_errors=True)
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        self._lock = open(self.scratch / ".lock", "wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def _remove_scratch(self, kind, value, trace):
        failed = kind is not None and not issubclass(kind, (KeyboardInterrupt, SystemExit))
        if self.keep or failed:
            os.unlink(self.scratch / ".lock")
            print(f"lab: consoles and scratch files are kept in {self.scratch}", file=sys.stderr)
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)
        self._lock.close()


if __name__ == "__main__":
    import lab_cli  # not above: it imports this module

    sys.exit(lab_cli.main(sys.argv[1:]))
