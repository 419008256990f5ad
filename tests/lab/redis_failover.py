#!/usr/bin/python3
"""A client's one TCP connection to a redis survives the death of its host, and no write is lost.

    redis_failover.py --build FOLDER [--count N] [--seed N]

A stock Debian kernel with a root disk runs redis (append-only file, appendfsync always). A client on a third
host sends numbered writes and records each reply. The primary's host loses power at a random moment, the
guest goes on at the other; then the first comes back as secondary, and so on, N times, all with the same
connection. Exit status 0 if every acknowledged write is in redis and on the disk, the file system is clean
and the guest's clock never went back; 77 if there is nothing to run.
"""

import pathlib
import random
import sys
import time

import entry
import guest_disk
import images
from lab import LabError
from server_guest import LAB, ServerGuest
from switch_rig import GUEST_IP, wait_until

ACKED_BEFORE = 20  # replies between two failovers at least
ACKED_AFTER = 20
LONGEST_DELAY_S = 5.0  # of the random moment, after these replies


class Client:
    """redis_client.py on the switch."""

    def __init__(self, guest):
        self._guest = guest
        self._stop = guest.lab.scratch / "stop"
        self.record = guest.lab.scratch / "acked"
        patience = 600 * guest.switch.slowness
        self.job = guest.switch.execute(
            ["/usr/bin/python3", images.HERE / "redis_client.py", GUEST_IP, self.record, self._stop,
             patience], follow=True)

    def acked(self):
        """The newest batch that the client has a reply for and has recorded."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return int(lines[-1].split()[0]) if lines else 0

    def await_acked(self, more, timeout=150):
        goal = self.acked() + more
        try:
            wait_until(lambda: self.acked() >= goal, timeout, f"{more} more replies",
                       self._guest.switch, self.job)
        except LabError as error:
            raise LabError(f"{error}\n{self._guest.state()}") from error

    def finish(self):
        """The line in which it says that all is there."""
        self._stop.touch()
        found = self.job.wait_for(r"^(final ok (\d+) .*|BROKEN .*)$", 300)
        if not found[2]:
            raise AssertionError(found[1])
        return int(found[2]), found[1]


def run(report, lab, binaries, count, seed):
    guest = ServerGuest(lab, binaries, "redis")
    moments = random.Random(seed)
    with report.check("redis runs in the guest, which is protected", required=True):
        guest.set_up()
        guest.start(until="Ready to accept connections")
    with report.check("a client is connected", required=True) as remarks:
        client = Client(guest)
        remarks.append(client.job.wait_for(r"^connected from port \d+$", 120)[0])
    for number in range(1, count + 1):
        with report.check(f"failover {number}: the same connection goes on", required=True) as remarks:
            client.await_acked(ACKED_BEFORE)
            time.sleep(moments.random() * LONGEST_DELAY_S)  # the random moment itself
            name = guest.primary.host.name
            guest.fail_over()
            before = client.acked()
            client.await_acked(ACKED_AFTER)
            remarks.append(f"{name} lost power after reply {before}, now {client.acked()}")
        if number < count:
            with report.check(f"{name} comes back and is the secondary", required=True):
                guest.rejoin()
    with report.check("every acknowledged write is in redis", required=True) as remarks:
        acked, said = client.finish()
        remarks.append(said)
    with report.check("the console has neither gap nor contradiction"):
        faults = guest.console()[1]
        if faults:
            raise AssertionError("; ".join(faults))
    with report.check("and on the disk, whose file system is clean") as remarks:
        host = guest.primary.host
        host.kill()
        with guest_disk.Image(guest.image_of(host), pathlib.Path(lab.scratch)) as image:
            remarks.append("journal replayed" if image.recover() else "no journal to replay")
            remarks.append(f"{guest_disk.check_redis(image, acked)} writes")


if __name__ == "__main__":
    sys.exit(entry.main(sys.argv[1:], __doc__, run, {
        "--count": {"type": int, "default": 1, "help": "failovers (default 1)"},
        "--seed": {"type": int, "default": 1, "help": "of the random moments"}}, **LAB))
