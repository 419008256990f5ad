#!/usr/bin/env python3
"""Devices that are faster than the secondary: the guest waits, everything held stays within its cap (P6).

  disk    the disk guest writes as fast as it can
  frames  the echo guest floods its network with numbered frames; in a network namespace of the test's own

The link to the secondary is throttled to a tenth of what it just carried, then let go. All the while /metrics
and the status must stay within the configured caps, the guest goes on, slower, and nothing is dropped: the
disk's copies end equal, byte for byte, and no frame's number is missing on the tap. Needs /dev/kvm.
"""

import argparse
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request

import netns
import pair as pairlib
import slow_link

CHECK_DISK = pathlib.Path(__file__).resolve().parent.parent / "guests/disk/check_disk.py"
HELD_OUTPUT_KIB = 64
HELD_FRAMES_KIB = 256
DISK_LOG_MIB = 16
DISK_MIB = 40
# What the block device had taken when the log became full: 16 requests of 64 KiB.
DISK_OVERSHOOT = 16 * (64 << 10)
CONSOLE_OVERSHOOT = 4096
CHECKPOINT = (f"held_output_kib: {HELD_OUTPUT_KIB} held_frames_kib: {HELD_FRAMES_KIB}"
              f" disk_log_mib: {DISK_LOG_MIB} min_interval_us: 1000")
# Nobody is to be taken for dead here.
FAILOVER = "auto_failover: false heartbeat_interval_ms: 50 heartbeat_timeout_ms: 20000"
CAPS = {
    "romulus_held_output_bytes": (HELD_OUTPUT_KIB << 10) + CONSOLE_OVERSHOOT,
    "romulus_disk_log_bytes": (DISK_LOG_MIB << 20) + DISK_OVERSHOOT,
    "frames": HELD_FRAMES_KIB << 10,  # held for an ack, and waiting for the tap
}
COUNTERS = {"staging_used_bytes": "romulus_staging_used_bytes",
            "held_output_bytes": "romulus_held_output_bytes",
            "disk_log_bytes": "romulus_disk_log_bytes", "unacked_epochs": "romulus_unacked_epochs"}


def expect(good, what):
    if not good:
        raise AssertionError(what)


class Watch(threading.Thread):
    """Looks at the primary without end; `fullest` is how near each cap was, 1 at it."""

    def __init__(self, pair, primary, staging_mib, max_unacked):
        super().__init__(daemon=True)
        self.pair, self.primary = pair, primary
        self.caps = {**CAPS, "romulus_staging_used_bytes": staging_mib << 20,
                     "romulus_unacked_epochs": max_unacked}
        self.fullest, self.fault, self.looks = dict.fromkeys(self.caps, 0.0), None, 0
        self._stopped = threading.Event()
        self.start()

    def metrics(self):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.pair.ports[2]}/metrics",
                                      timeout=pairlib.PATIENCE_S).read().decode()
        found = {match[1]: float(match[2])
                 for match in re.finditer(r"^(romulus_\w+)\{[^}]*\} (\S+)$", text, re.M)}
        found["frames"] = found.get("romulus_nic_held_bytes", 0) + found.get("romulus_nic_queued_bytes", 0)
        return found

    def run(self):
        try:
            while not self._stopped.is_set() and not self.fault:
                found = [self.metrics()]
                counters = self.primary.status()["counters"]
                found.append({COUNTERS[name]: int(counters.get(name, 0)) for name in COUNTERS})
                for name, cap in self.caps.items():
                    for at in found:
                        self.fullest[name] = max(self.fullest[name], at.get(name, 0) / cap)
                        if at.get(name, 0) > cap:
                            self.fault = f"{name} is {at[name]:.0f}, its cap {cap}"
                self.looks += 1
                self._stopped.wait(0.02)
        except Exception as error:  # pylint: disable=broad-except
            if not self._stopped.is_set():
                self.fault = f"{type(error).__name__}: {error}"

    def stop(self):
        self._stopped.set()
        self.join(pairlib.PATIENCE_S)
        expect(not self.fault, self.fault)


class Listener(threading.Thread):
    """Takes the guest's numbered frames off the bridge. `last` is the newest number, `got` how many came. What
    this socket is too slow for it loses, and says so: only the rest can be missing."""

    PACKET_STATISTICS, SOL_PACKET, SO_RCVBUFFORCE = 6, 263, 33

    def __init__(self, device):
        super().__init__(daemon=True)
        self.last, self.got, self.fault = 0, 0, None
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88b5))
        self._socket.setsockopt(socket.SOL_SOCKET, self.SO_RCVBUFFORCE, 64 << 20)
        self._socket.bind((device, 0x88b5))
        self._socket.settimeout(0.2)
        self.start()

    def run(self):
        while not self.fault:
            try:
                frame = self._socket.recv(2048)
            except TimeoutError:
                continue
            except OSError:
                return
            number = int.from_bytes(frame[14:22], "little")
            if number <= self.last:
                self.fault = f"frame {number} came after {self.last}"
            self.last = number
            self.got += 1

    def own_drops(self):
        return struct.unpack("II", self._socket.getsockopt(self.SOL_PACKET, self.PACKET_STATISTICS, 8))[1]


class DiskWork:
    near = "romulus_disk_log_bytes"
    unit = 1 << 20  # bytes on the link, of which a measurement takes some tens
    # Large epochs: the log is full before anything else is.
    staging_mib, max_unacked = 32, 32
    checkpoint = f"max_dirty_pages: 2000 max_interval_us: 20000 staging_mib: {staging_mib}" \
                 f" max_unacked_epochs: {max_unacked}"

    def __init__(self, build):
        blocks = (DISK_MIB << 20) // (64 << 10)
        self.pair = pairlib.Pair(
            build, kernel=build / "guests/disk.elf", memory_mib=16, disks={"root": DISK_MIB},
            command_line=f"blocks={blocks} block=65536 depth=16 flush=16 verify=1 sweep=0",
            checkpoint=f"{CHECKPOINT} {self.checkpoint}", failover=FAILOVER)

    def done(self):
        steps = re.findall(rb"^step (\d{6,}) ", self.pair.daemons["alpha"].console(), re.M)
        return int(steps[-1]) if steps else 0

    def end(self, primary, secondary):
        """Stopped in order, both copies are the same, and what the guest told."""
        for daemon in (primary, secondary):
            daemon.signal(signal.SIGTERM)
            expect(daemon.process.wait(timeout=pairlib.PATIENCE_S) == 0, daemon.log_tail())
        images = [self.pair.image(node, "root") for node in pairlib.NODES]
        expect(images[0].read_bytes() == images[1].read_bytes(), "the copies of the disk differ")
        for image in images:
            verdict = subprocess.run([sys.executable, CHECK_DISK, image, primary.console_path],
                                     capture_output=True, text=True, timeout=pairlib.PATIENCE_S)
            expect(verdict.returncode == 0, verdict.stdout + verdict.stderr)


class FrameWork:
    near = "frames"
    unit = 32 << 10  # of what changes in memory; frames do not travel
    staging_mib, max_unacked = 4, 8
    checkpoint = f"max_dirty_pages: 64 max_interval_us: 5000 staging_mib: {staging_mib}" \
                 f" max_unacked_epochs: {max_unacked}"

    def __init__(self, build):
        self.pair = pairlib.Pair(
            build, kernel=build / "guests/echo.elf", memory_mib=16,
            command_line=f"ip={netns.GUEST_IP} flood=1500 report_ms=20",
            checkpoint=f"{CHECKPOINT} {self.checkpoint}", failover=FAILOVER,
            devices='nics { tap: "tap-{node}" mac: "52:54:00:52:4f:05" } rng: false')
        self.listener = Listener("br0")  # a port of a bridge hands protocols on to it

    def done(self):
        expect(not self.listener.fault, self.listener.fault)
        return self.listener.last

    def end(self, primary, secondary):
        counters = primary.status()["devices"][0].get("counters", {})
        expect(int(counters.get("frames_dropped_out", 0)) == 0, counters)  # it hears nothing anyway
        # The guest stands still: what it said before comes out, to the last frame.
        primary.ctl("pause")
        primary.await_status("an empty gate", lambda _: self.frames_waiting() == 0)
        expect(not self.listener.fault, self.listener.fault)
        time.sleep(0.5)  # the listener's own queue, of which nothing tells the length
        lost, last, got = self.listener.own_drops(), self.listener.last, self.listener.got
        expect(got + lost == last, f"{got} frames came and {lost} were missed here, of {last}")
        said = re.findall(rb" flooded (\d+)", primary.console())
        expect(int(said[-1]) <= last + 32, f"the guest sent {said[-1]} frames, {last} came")
        print(f"{last} frames, in order, none missing ({lost} missed by the listener)")
        for daemon in (primary, secondary):
            daemon.signal(signal.SIGTERM)
            daemon.process.wait(timeout=pairlib.PATIENCE_S)

    def frames_waiting(self):
        return Watch.metrics(self)["frames"]


def run(work):
    with work.pair as pair, slow_link.SlowLink(pair._ports()[1]) as link:
        secondary = pair.start_node("beta", "secondary")
        secondary.await_status("an answer", lambda s: True)
        direct = f'"127.0.0.1:{pair.ports[1]}"'
        text = pair.config.read_text()
        expect(direct in text, "no address of the secondary in the configuration")
        pair.config.write_text(text.replace(direct, f'"127.0.0.1:{link.port}"'))
        primary = pair.start_node("alpha", "primary")
        primary.await_mode("protected")

        def rate_over(units):
            before = work.done()
            took_s = link.await_forwarded(units * work.unit, pairlib.PATIENCE_S)
            return (work.done() - before) / took_s

        watch = Watch(pair, primary, work.staging_mib, work.max_unacked)
        free = rate_over(32)
        began = time.monotonic()
        link.await_forwarded(16 * work.unit, pairlib.PATIENCE_S)
        link.rate = 16 * work.unit / (time.monotonic() - began) / 10
        # Until what lies in buffers on the way has left, the guest lives on it.
        link.await_forwarded(24 * work.unit, pairlib.PATIENCE_S)
        slow = rate_over(24)
        expect(slow > 0, f"the guest stands still: {slow:.0f}/s of {free:.0f}/s, {watch.fullest}")
        expect(slow < free / 2, f"the guest runs ahead of its secondary: {slow:.0f}/s of {free:.0f}/s")
        expect(watch.fullest[work.near] > 0.5,
               f"{work.near} was never near its cap, this tests nothing: {watch.fullest}")
        link.rate = None
        link.await_forwarded(16 * work.unit, pairlib.PATIENCE_S)
        for _ in range(20):  # a busy machine has slow moments of its own
            again = rate_over(16)
            if again > 2 * slow:
                break
        expect(again > 2 * slow, f"the guest stays slow: {again:.0f}/s after {slow:.0f}/s")
        status = primary.await_mode("protected")
        expect(int(status["sync"]["completed"]) == 1, "the stream was lost on the way")
        expect(int(status["counters"].get("epochs_aborted", 0)) == 0, "epochs were aborted")
        watch.stop()
        near = ", ".join(f"{name.removeprefix('romulus_')} {part:.0%}"
                         for name, part in watch.fullest.items())
        print(f"work/s: free {free:.0f}, throttled {slow:.0f}, free again {again:.0f};"
              f" {watch.looks} looks, fullest: {near}", flush=True)
        work.end(primary, secondary)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("device", choices=["disk", "frames"])
    arguments = parser.parse_args()
    if arguments.device == "frames":
        netns.enter()
        netns.make_switch(pairlib.NODES)
    work = {"disk": DiskWork, "frames": FrameWork}[arguments.device]
    run(work(arguments.build.resolve()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
