#!/usr/bin/python3
"""A stock Debian kernel is protected by romulusd, its host loses power, the other one goes on.

    failover_linux.py --build FOLDER   where romulusd and romulusctl were built

Exit status 0 if the guest went on with its memory intact, 77 if there is nothing to run.
"""

import sys
import time

import entry
import guest_initramfs
import images
from romulus_node import Node, config, console_file

TICKS_BEFORE = 10  # released by the first host before it loses power
TICKS_AFTER = 20  # at least so many more at the second


class ReleasedConsole:
    """What both nodes let out. Each wrote byte k of the guest's stream as byte k of its file, so
    the second file begins with a hole, and where the two overlap they must say the same."""

    def __init__(self, first, second):
        self._files = first, second

    def join(self):
        """(bytes, faults): the stream, and what is wrong with how the files fit together."""
        first, second = (f.read_bytes() if f.exists() else b"" for f in self._files)
        start = len(second) - len(second.lstrip(b"\0"))
        if not second or start == len(second):
            return first, []
        faults = []
        if start > len(first):
            faults.append(f"bytes {len(first)} to {start} were let out by nobody")
        shared = min(len(first), len(second))
        if first[start:shared] != second[start:shared]:
            faults.append("the nodes let out different bytes at the same place")
        return first[:start].ljust(start, b"\0") + second[start:], faults

    def lines(self):
        """Whole lines only: an epoch may end within one."""
        return self.join()[0].decode("utf-8", "replace").replace("\r", "").split("\n")[:-1]

    def ticks(self):
        return sum(line.startswith("tick ") for line in self.lines())


def wait_until(condition, timeout, what, node):
    """For states that only asking reveals; each question takes its time, so it does not spin."""
    deadline = time.monotonic() + timeout * node.host.slowness
    while not condition():
        if not node.daemon.running():
            raise node.host.error(f"romulusd ended before: {what}", node.daemon)
        if time.monotonic() > deadline:
            raise node.host.error(f"not within {timeout} s: {what}", node.daemon)
        time.sleep(0.1)


def run(report, lab, binaries):
    one, two = lab.hosts
    guest_initramfs.build(lab.scratch / "guest.cpio")
    released = ReleasedConsole(*(console_file(lab.scratch, host) for host in lab.hosts))
    file = lab.scratch / "linux.textproto"
    file.write_text(config(lab.hosts, lab.scratch, images.kernel("guest"),
                           lab.scratch / "guest.cpio", "console=ttyS0 panic=-1", 128))
    primary, secondary = Node(one, binaries, file), Node(two, binaries, file)

    with report.check("Linux boots under romulusd on host1", required=True):
        secondary.start("secondary")
        primary.start("primary")
        wait_until(lambda: released.ticks() >= 1, 300, "first tick of the guest", primary)
    with report.check("it is protected", required=True):
        wait_until(primary.is_protected, 300, "state protected", primary)
    with report.check("it ticks on while protected", required=True) as remarks:
        mark = released.ticks()
        wait_until(lambda: released.ticks() >= mark + TICKS_BEFORE, 120, "more ticks", primary)
        remarks.append(f"{released.ticks()} ticks")
    with report.check("host1 loses power, host2 goes on", required=True) as remarks:
        one.kill()
        before = released.ticks()
        wait_until(secondary.failover, 60, "failover at host2", secondary)
        wait_until(lambda: released.ticks() >= before + TICKS_AFTER, 120, "ticks at host2",
                   secondary)
        remarks.append(f"last tick before {before}, then {released.ticks() - before} more")
    with report.check("all ticks: no gap, no repeat, memory intact") as remarks:
        ticks, faults = guest_initramfs.check(released.lines())
        faults = released.join()[1] + faults
        remarks.append(f"{ticks} ticks")
        if faults:
            raise AssertionError("; ".join(faults[:5]))


if __name__ == "__main__":
    sys.exit(entry.main(sys.argv[1:], __doc__, run))
