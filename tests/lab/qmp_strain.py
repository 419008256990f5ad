#!/usr/bin/python3
"""Runs inside a lab host: QEMU with KVM boots a kernel, and is stopped and continued meanwhile.

    qmp_strain.py --kernel FILE --initrd FILE [--read-state] [--every-us N] [--seed N]
                  [--until TEXT] [--timeout-s N]

The counterpart of tests/kvm/boot_stress with a VMM that nobody of this project wrote. Between stops
the guest runs for a random time, --every-us in the mean, in which its vCPU is kicked out of the guest
again and again by the signal that QEMU has for that. With --read-state all registers are read in each
stop, which QEMU also writes back. Prints `outcome=... stops=... kicks=... ms=...`. Exit status: 0 a line
of the console begins with `until`, 1 the guest ended, 2 it was late.
"""

import argparse
import ctypes
import functools
import json
import random
import select
import signal
import socket
import subprocess
import sys
import time



def launch(options, qmp):
    return subprocess.Popen(
        ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "128", "-nodefaults",
         "-display", "none", "-S", "-action", "reboot=shutdown", "-serial", "stdio",
         "-chardev", f"socket,id=qmp,fd={qmp.fileno()}", "-mon", "chardev=qmp,mode=control",
         "-kernel", options.kernel, "-initrd", options.initrd, "-append", options.append],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=[qmp.fileno()])


class Kicker:
    """Sends the vCPU's thread the signal that makes KVM_RUN return. QEMU's own is SIGUSR1."""

    def __init__(self):
        self._tgkill = functools.partial(ctypes.CDLL(None).syscall, 234)  # x86-64
        self.thread = None  # (process, thread)
        self.kicks = 0

    def kick_for(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.thread:
                self._tgkill(*self.thread, signal.SIGUSR1)
                self.kicks += 1
            time.sleep(0.0002)  # the guest is to get on


def requests(options, kicker):
    """Whole rounds of what is done to the guest, for ever: request, how many answers it has."""
    def encode(name, **arguments):
        return json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n"

    chance = random.Random(options.seed)
    registers = encode("human-monitor-command", **{"command-line": "info registers"})
    yield encode("qmp_capabilities"), 1
    yield encode("query-cpus-fast"), 1
    while True:
        yield encode("cont"), 1
        kicker.kick_for(chance.random() * 2 * options.every_us / 1e6)
        yield (encode("stop") + registers, 2) if options.read_state else (encode("stop"), 1)


def main(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--initrd", required=True)
    parser.add_argument("--append", default="console=ttyS0 panic=-1")
    parser.add_argument("--until", default="tick 000003", help="what a line of the console begins with")
    parser.add_argument("--read-state", action="store_true")
    parser.add_argument("--every-us", type=float, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout-s", type=float, default=120)
    options = parser.parse_args(words)

    ours, theirs = socket.socketpair()
    began = time.monotonic()
    qemu = launch(options, theirs)
    theirs.close()
    kicker = Kicker()
    script = requests(options, kicker)
    console, answers, outcome = "\n", b"", None
    pending = stops = 0
    ended = "no word"
    while outcome is None:
        if pending == 0:
            request, pending = next(script)
            try:
                ours.sendall(request)
            except OSError:
                pass  # its end is read below
        ready = select.select([ours, qemu.stdout], [], [], 1)[0]
        if qemu.stdout in ready:
            text = qemu.stdout.read1(65536).decode("utf-8", "replace")
            console += text
            if "\n" + options.until in console:
                outcome = "reached"
            elif not text:
                outcome = f"ended ({ended})"
        if ours in ready:
            try:
                answers += ours.recv(65536)
            except OSError:
                pass
            *lines, answers = answers.split(b"\n")
            for line in filter(None, lines):
                answer = json.loads(line)
                pending -= "return" in answer or "error" in answer
                stops += answer.get("event") == "STOP"
                if isinstance(answer.get("return"), list):
                    kicker.thread = qemu.pid, answer["return"][0]["thread-id"]
                if answer.get("event") in ("SHUTDOWN", "GUEST_PANICKED"):
                    ended = f"{answer['event']} {answer.get('data', {}).get('reason')}"
        if outcome is None and time.monotonic() - began > options.timeout_s:
            outcome = "late"
    qemu.kill()
    qemu.wait()
    print(f"outcome={outcome} read_state={options.read_state} stops={stops} "
          f"kicks={kicker.kicks} ms={int(1000 * (time.monotonic() - began))}")
    if outcome == "reached":
        return 0
    print("console ends:", console[-3000:])
    return 2 if outcome == "late" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
