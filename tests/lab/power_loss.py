#!/usr/bin/python3
"""Both hosts lose power at once: each disk by itself is whole, and the newest one is named.

    power_loss.py --build FOLDER [--seed N]

The writer (scripts/guest/writer) runs in a protected guest with a root disk. Exit status 0 if after the loss

  - each host's image, as it lies there, passes fsck once its ext4 journal is replayed,
  - the copy of the primary, and that of the secondary once its romulusd has recovered its journal, each have
    all that the guest had let out,
  - `romulusd disks` names the primary's copy as the newer one,
  - the guest boots from it;

77 if there is nothing to run.
"""

import json
import random
import sys
import time

import entry
import guest_disk
from romulus_node import console_file
from server_guest import LAB, ServerGuest
from switch_rig import wait_until
from writer_failover import CHECKPOINT, WRITES_BEFORE, await_writes, reported

LONGEST_DELAY_S = 5.0


def check_image(guest, host, count):
    """What guest_disk finds in the image of a host that is off: a remark."""
    with guest_disk.Image(guest.image_of(host), guest.lab.scratch) as image:
        replayed = "journal replayed" if image.recover() else "no journal to replay"
        return f"{host.name}: {replayed}, {guest_disk.check_writer(image, count)} writes"


def run(report, lab, binaries, seed):
    guest = ServerGuest(lab, binaries, "writer", CHECKPOINT)
    first, second = guest.hosts
    with report.check("the writer writes, its guest is protected", required=True):
        guest.set_up()
        guest.start(until="wrote 000001 ")
    with report.check("both hosts lose power", required=True) as remarks:
        await_writes(guest, WRITES_BEFORE)
        time.sleep(random.Random(seed).random() * LONGEST_DELAY_S)  # the random moment itself
        first.kill()
        second.kill()
        count = reported(guest)
        remarks.append(f"{count} writes were let out")
        console_file(lab.scratch, first).rename(lab.scratch / "before.guest")
    with report.check("the primary's image is whole and has them all") as remarks:
        remarks.append(check_image(guest, first, count))
    with report.check("the secondary's image is whole") as remarks:
        remarks.append(check_image(guest, second, 0))
    with report.check("the hosts come back, the newest copy is named", required=True) as remarks:
        for host in guest.hosts:
            lab.boot(host)
            guest.set_up_host(host)
        guest.node(first).disks(lab.scratch / "host1.json")
        (newest,) = json.loads(guest.node(second).disks(
            lab.scratch / "host2.json", compare=lab.scratch / "host1.json"))["newest"]
        remarks.append(f"{newest.get('node')}: {newest['why']}")
        if newest.get("node") != first.name:
            raise AssertionError(f"not the primary's: {newest}")
    with report.check("the secondary's copy has them all, its journal recovered") as remarks:
        secondary = guest.node(second)
        secondary.start("secondary")
        wait_until(secondary.status, 120, "an answer", second, secondary.daemon)
        second.kill()
        remarks.append(check_image(guest, second, count))
    with report.check("the guest boots from the newest copy") as remarks:
        guest.primary, guest.secondary = guest.node(first), None
        guest.primary.start("primary")
        wait_until(guest.primary.status, 120, "an answer", first, guest.primary.daemon)
        guest.primary.unprotect_by_force()  # nobody is left to say that it was not promoted
        guest.await_line("writer: /var/lib/writer is not empty")
        remarks += [line for line in guest.lines() if line.startswith("guest: fsck ")]


if __name__ == "__main__":
    sys.exit(entry.main(sys.argv[1:], __doc__, run, {
        "--seed": {"type": int, "default": 1, "help": "of the random moment"}}, **LAB))
