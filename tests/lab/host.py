"""One lab host: a QEMU that emulates a machine with SVM, and the commands that run inside it."""

import base64
import dataclasses
import functools
import itertools
import os
import re
import shlex
import signal
import socket
import threading

import images
import kvm_check
import process
from lines import LineTimeout, Lines, read_lines
from qmp import Qmp, QmpError

STREAMS = 8  # commands per host whose output can be followed at the same time
_END_MARK = "\x1eend "  # agent.sh writes it behind the output of a followed command
_CONSOLE_TAIL = 15  # lines shown with an error


@functools.cache
def _tsc_hint():
    """TCG's TSC is this machine's, so a host need not measure its speed, if KVM here knows it."""
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return f"tsc_early_khz={kvm_check.tsc_khz(fd)}"
    except OSError:
        return ""
    finally:
        os.close(fd)


class LabError(Exception):
    """Something failed or was late. The text names the host and ends with its console."""


@dataclasses.dataclass
class Result:
    """What a finished command left: its exit status (128 + signal), and its output as text."""
    status: int
    out: str
    err: str


class Job:
    """A command under way in a host. Made by Host.start."""

    def __init__(self, host, number, command, stream):
        self.command = command
        self.stream = stream  # number of the port that brings its lines, or None
        self.lines = Lines() if stream else None  # standard output and error together
        self._host = host
        self._number = number
        self._done = threading.Event()
        self._result = None  # set before _done; None then means that the host ended first

    def finish(self, result):
        """For Host: the command has ended, or (None) its host has."""
        self._result = result
        self._done.set()

    def running(self):
        return not self._done.is_set()

    def wait(self, timeout=60):
        """Its Result. LabError when it is late (it is then killed) or when the host ended first."""
        timeout *= self._host.slowness
        if not self._done.wait(timeout):
            self.kill()
            raise self._host.error(f"took more than {timeout:g} s: {self.command}", self)
        if self._result is None:
            raise self._host.error(f"the host ended during: {self.command}", self)
        if self.lines:
            self.lines.wait_for_end(5 * self._host.slowness)  # the output takes another path
        return self._result

    def wait_for(self, pattern, timeout=60, since=0):
        """The first re.Match among its lines. LabError when late or when it ended without."""
        try:
            return self.lines.wait_for(pattern, timeout * self._host.slowness, since)
        except (LineTimeout, EOFError) as late:
            raise self._host.error(f"{late}: {self.command}", self) from None

    def kill(self, number=signal.SIGKILL):
        """Signals its process group."""
        self._host.send(f"kill {self._number} {int(number)}")


class Host:
    """Owns one QEMU at a time. Call it from one thread at a time; its Jobs from any.

    `nics` maps the name of another host to (our end of the cable, our MAC, its IP address);
    Lab fills it in before start(). `disk` is an image file that is its /dev/vda, or None. With
    `systemd` that is its first process, its root can be written, and lasts if there is a disk.
    """

    def __init__(self, name, address, memory_mib, cpus, scratch, initramfs, slowness=1.0,
                 disk=None, systemd=False):
        self.name = name
        self.address = address
        self.scratch = scratch
        self.slowness = slowness  # factor on every timeout
        self.nics = {}
        self.console = Lines()
        self.disk = disk
        self.systemd = systemd
        self._memory_mib = memory_mib
        self._cpus = cpus
        self._initramfs = initramfs
        self._qemu = None
        self._qmp = None
        self._control = None
        self._frozen = False
        self._tsc_khz = None  # of this boot
        self._lock = threading.Lock()  # guards the four below and writes to _control
        self._jobs = {}
        self._free_streams = []
        self._stream_jobs = {}
        self._numbers = itertools.count(1)

    # Life of the machine.

    @property
    def pid(self):
        return self._qemu.pid if self._qemu else None

    def aborted(self):
        """Whether QEMU ended by an assertion of its own."""
        return self._qemu is not None and self._qemu.poll() == -signal.SIGABRT

    def alive(self):
        return self._qemu is not None and self._qemu.poll() is None

    def start(self):
        """Powers the host on and returns at once; ready() waits until it takes commands."""
        if self.alive():
            raise self.error("is on already")
        self._close()
        self._tsc_khz = None
        self.console = Lines()
        self._jobs, self._stream_jobs = {}, {}
        self._free_streams = list(range(1, STREAMS + 1))
        self._hello = threading.Event()  # the agent takes commands, or the host has ended
        self._gone = threading.Event()  # it has ended, seen before QEMU is reaped
        ours, theirs = {}, {}
        for channel in ["console", "qmp", "control"] + [f"stream{n}" for n in self._free_streams]:
            ours[channel], theirs[channel] = socket.socketpair()
        fds = {channel: end.fileno() for channel, end in theirs.items()}
        nic_fds = [end.fileno() for end, _, _ in self.nics.values()]
        if self.systemd:
            with open(f"{self.scratch}/{self.name}.network", "w") as script:
                script.write(self._network_script())
        with open(f"{self.scratch}/{self.name}.qemu.log", "ab") as log:
            self._qemu = process.launch(self._command(fds), [*fds.values(), *nic_fds],
                                        stdout=log, stderr=log)
        for end in theirs.values():
            end.close()
        read_lines(ours["console"], self.console.add, self.console.end)
        self._control = ours["control"]
        threading.Thread(target=self._read_answers, args=(ours["control"],), daemon=True).start()
        for number in self._free_streams:
            read_lines(ours[f"stream{number}"], lambda line, n=number: self._stream_line(n, line),
                       lambda n=number: self._stream_line(n, _END_MARK))
        try:
            self._qmp = Qmp(ours["qmp"], 10 * self.slowness)
        except (OSError, QmpError):
            raise self.error(f"QEMU did not start, see {self.name}.qemu.log") from None

    def _command(self, fds):
        command = [
            *images.qemu(), "-name", self.name, "-nodefaults", "-display", "none",
            "-no-reboot", "-accel", "tcg,thread=multi", "-cpu", "max,+svm,+npt",
            "-smp", self._cpus, "-m", self._memory_mib,
            "-kernel", images.kernel("host"), "-initrd", self._initramfs, "-append",
            f"console=ttyS0 panic=-1 mitigations=off no_timer_check {_tsc_hint()} "
            f"lab.name={self.name} lab.scratch={self.scratch}"
            + (" lab.init=systemd systemd.show_status=0" if self.systemd else ""),
            "-chardev", f"socket,id=console,fd={fds['console']},"
                        f"logfile={self.scratch}/{self.name}.console.log,logappend=on",
            "-serial", "chardev:console",
            "-chardev", f"socket,id=qmp,fd={fds['qmp']}", "-mon", "chardev=qmp,mode=control",
            "-device", "virtio-serial-pci"]
        for channel in ["control"] + [f"stream{n}" for n in range(1, STREAMS + 1)]:
            command += ["-chardev", f"socket,id={channel},fd={fds[channel]}",
                        "-device", f"virtserialport,chardev={channel},name=lab.{channel}"]
        for tag, options in ("root", "path=/,readonly=on"), ("scratch", f"path={self.scratch}"):
            command += ["-fsdev", f"local,id={tag},security_model=none,multidevs=remap,{options}",
                        "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
        if self.disk:
            # QEMU has what its guest flushed, and perhaps more, when it is killed: as a disk with
            # a cache of its own. What only the host's kernel had is gone.
            command += ["-drive", f"if=none,id=disk,file={self.disk},format=raw,discard=unmap",
                        "-device", "virtio-blk-pci,drive=disk"]
        for peer, (end, mac, _) in self.nics.items():
            command += ["-netdev", f"dgram,id=to-{peer},local.type=fd,local.str={end.fileno()}",
                        "-device",
                        f"virtio-net-pci,netdev=to-{peer},id=nic-{peer},mac={mac},romfile="]
        return command

    def ready(self, timeout=120):
        """Waits until the host takes commands and its network is up."""
        if not self._hello.wait(timeout * self.slowness) or self._gone.is_set():
            raise self.error(f"did not boot, or not within {timeout * self.slowness:g} s")
        if not self.systemd:
            return self.run(self._network_script(), inside="init")
        state = self.run("systemctl is-system-running --wait", timeout, check=False).out.strip()
        if state != "running":
            failed = self.run("systemctl --failed --no-legend --plain", check=False).out
            raise self.error(f"systemd is {state}: {failed}")

    def _network_script(self):
        script = ""
        for _, mac, peer_address in self.nics.values():
            # One address for the host, whatever the cable: so a host route a cable, no subnet.
            script += (f"for d in /sys/class/net/*; do [ $(cat $d/address) = {mac} ] || continue; "
                       f"d=${{d##*/}}; ip addr add {self.address}/32 dev $d; ip link set $d up; "
                       f"ip route add {peer_address}/32 dev $d; done\n")
        return script

    def interface_to(self, peer):
        """Name of the network interface at the cable to another host."""
        mac = self.nics[peer.name][1]
        return self.run(f"grep -l {mac} /sys/class/net/*/address").out.split("/")[4]

    def tsc_khz(self):
        """The speed of its TSC, as its KVM believes it to be."""
        if self._tsc_khz is None:  # asked once: a host that runs a guest is slow to answer
            out = self.run(["/usr/bin/python3", images.HERE / "kvm_check.py"], timeout=60).out
            self._tsc_khz = int(re.search(r"^tsc_khz=(\d+)$", out, re.MULTILINE)[1])
        return self._tsc_khz

    def kill(self):
        """Loses power: SIGKILL to QEMU."""
        if self._qemu:
            process.end(self._qemu)
        self._close()

    def frozen(self):
        return self._frozen

    def freeze(self):
        """Stops the whole host between two instructions."""
        if not self.alive():
            raise self.error("is off, cannot be frozen")
        self._qemu.send_signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self):
        if self._frozen:
            self._qemu.send_signal(signal.SIGCONT)
        self._frozen = False

    def carrier(self, peer, up):
        """Plugs in or pulls out the network cable to a peer, which the kernel inside sees."""
        try:
            self._qmp.command("set_link", name=f"nic-{peer}", up=up)
        except (OSError, QmpError) as error:
            raise self.error(f"set_link: {error}") from None

    def _close(self):
        if self._qmp:
            self._qmp.close()
        self._qmp = None
        self._frozen = False

    # Commands.

    def execute(self, command, follow=False, inside="host"):
        """Starts a command (a string is a /bin/sh script) and returns its Job.

        inside "host": in the machine's root, read-only but for /run and the scratch folder, which
        is the working folder; what the machine lacks comes from busybox. "init": in the initramfs
        (with systemd: there is none, it is busybox's shell in the same root).
        follow=True gives it lines that arrive while it runs, and no Result.out.
        """
        if not isinstance(command, str):
            command = shlex.join(str(word) for word in command)
        script = f"cd {self.scratch}\n{command}\n" if inside == "host" else command
        with self._lock:
            number = next(self._numbers)
            if not self.alive() or self._gone.is_set():
                raise self.error(f"is off, cannot run: {command}")
            if follow and not self._free_streams:
                raise self.error(f"follows {STREAMS} commands already, cannot run: {command}")
            stream = self._free_streams.pop() if follow else None
            job = Job(self, number, command.strip(), stream)
            self._jobs[number] = job
            if follow:
                self._stream_jobs[stream] = job
        encoded = base64.b64encode(script.encode()).decode()
        self.send(f"run {number} {inside} {stream or '-'} {encoded}")
        return job

    def run(self, command, timeout=60, check=True, inside="host"):
        """Runs a command to its end. LabError if it is late or, with check, if it fails."""
        result = self.execute(command, inside=inside).wait(timeout)
        if check and result.status != 0:
            raise self.error(f"exit status {result.status} of: {command}\n{result.out}{result.err}")
        return result

    def send(self, line):
        """For Job: one request to the agent. A host that is off has nothing to do for it."""
        with self._lock:
            try:
                self._control.sendall(line.encode() + b"\n")
            except OSError:
                pass

    def _stream_line(self, stream, line):
        with self._lock:
            job = self._stream_jobs.get(stream)
        if job and line.startswith(_END_MARK):
            job.lines.end(drop_blank=True)  # the agent begins a new line for its mark
            self._release_stream(job)
        elif job:
            job.lines.add(line)

    def _release_stream(self, job):
        """Once the agent has closed the port (its mark came) and forgotten the job (done came)."""
        with self._lock:
            if (job.lines and job.lines.ended() and not job.running()
                    and self._stream_jobs.get(job.stream) is job):
                del self._stream_jobs[job.stream]
                self._free_streams.append(job.stream)

    def _read_answers(self, sock):
        hello, gone, jobs = self._hello, self._gone, self._jobs
        with sock.makefile("rb") as file:
            try:
                for line in file:
                    words = line.split()
                    if words == [b"hello"]:
                        hello.set()
                    elif words and words[0] == b"done":
                        number, status, out, err = map(int, words[1:])
                        texts = [file.read(size).decode("utf-8", "replace") for size in (out, err)]
                        with self._lock:
                            job = jobs.pop(number)
                        job.finish(Result(status, *texts))
                        self._release_stream(job)
            except OSError:
                pass  # QEMU was killed
        with self._lock:
            gone.set()
            left = list(jobs.values())
            jobs.clear()
        hello.set()
        for job in left:
            job.finish(None)

    def error(self, text, job=None):
        """A LabError about this host, with the last lines of its console (and of a job)."""
        state = "frozen" if self._frozen else "on" if self.alive() else "off"
        parts = [f"{self.name} ({state}): {text}"]
        if job and job.lines:
            parts += ["  last output:"] + [f"  > {x}" for x in job.lines.all()[-_CONSOLE_TAIL:]]
        parts += [f"  last console lines of {self.name}:"]
        parts += [f"  | {x}" for x in self.console.all()[-_CONSOLE_TAIL:]]
        return LabError("\n".join(parts))
