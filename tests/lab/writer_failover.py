#!/usr/bin/python3
"""An ext4 under a writer that makes each file durable and then says so: all that was said is on the disk.

    writer_failover.py --build FOLDER [--seed N]

The writer (scripts/guest/writer) runs in a guest with a root disk. The primary's host loses power at a random
moment, the guest goes on at the other. Exit status 0 if what the writer reported has neither gap nor
contradiction over the failover and every reported file is on the disk of the survivor, whose file system is
clean; 77 if there is nothing to run.
"""

import random
import sys
import time

import entry
import guest_disk
from server_guest import LAB, ServerGuest
from switch_rig import wait_until

WRITES_BEFORE = 30
WRITES_AFTER = 30
LONGEST_DELAY_S = 5.0
# Each write starts eight processes, of some hundred pages each. An emulated host takes a third of a
# millisecond for the first write to a page in an epoch, so that short epochs leave the guest hardly anything:
# with the default of 20 ms a write took 12 s instead of one.
CHECKPOINT = "max_interval_us: 300000"


def reported(guest):
    return guest_disk.reported(guest.lines())


def await_writes(guest, more, timeout=300):
    goal = reported(guest) + more
    wait_until(lambda: reported(guest) >= goal, timeout, f"{more} more writes", guest.primary.host,
               guest.primary.daemon)


def run(report, lab, binaries, seed):
    guest = ServerGuest(lab, binaries, "writer", CHECKPOINT)
    with report.check("the writer writes, its guest is protected", required=True):
        guest.set_up()
        guest.start(until="wrote 000001 ")
    with report.check("its host loses power, it goes on", required=True) as remarks:
        await_writes(guest, WRITES_BEFORE)
        time.sleep(random.Random(seed).random() * LONGEST_DELAY_S)  # the random moment itself
        guest.fail_over()
        before = reported(guest)
        await_writes(guest, WRITES_AFTER)
        remarks.append(f"{before} writes before, {reported(guest) - before} after")
    with report.check("its console has neither gap nor contradiction"):
        faults = guest.console()[1]
        if faults:
            raise AssertionError("; ".join(faults))
    with report.check("all that it reported is on the disk") as remarks:
        host = guest.primary.host
        host.kill()
        with guest_disk.Image(guest.image_of(host), lab.scratch) as image:
            remarks.append("journal replayed" if image.recover() else "no journal to replay")
            count = reported(guest)
            remarks.append(f"{count} reported, {guest_disk.check_writer(image, count)} there")


if __name__ == "__main__":
    sys.exit(entry.main(sys.argv[1:], __doc__, run, {
        "--seed": {"type": int, "default": 1, "help": "of the random moment"}}, **LAB))
