#!/usr/bin/env python3
"""P2 and P5 on the disk: kills daemons of the disk guest, and looks at what the disks hold.

  failover   the primary is killed; in the secondary the guest goes on, reads its whole disk back and finds
             what it remembers (its memory and its disk are of one epoch); the steps have neither gap nor
             repeat; the dead primary's image has all that was reported
  both       both are killed; the secondary's image, once its journal was recovered, is of exactly one moment,
             and has all that the primary had let out

Needs /dev/kvm.
"""

import argparse
import pathlib
import random
import sys
import time

import pair as pairlib

GUESTS = pathlib.Path(__file__).resolve().parent.parent / "guests"
sys.path[:0] = [str(GUESTS / "disk"), str(GUESTS / "common")]
import check_console  # noqa: E402
import check_disk  # noqa: E402

DISK_BYTES = 8 << 20
DEVICES = 'disks { name: "data" path: "FOLDER/{node}.disk" } rng: false'
SWEEP = 16  # steps from one reading of the whole disk to the next


class DiskPair(pairlib.Pair):
    """The disk guest, on an image of each node's own."""

    def __init__(self, build, seed, moments):
        depth = moments.choice([1, 4, 16])
        block = moments.choice([512, 4096, 16384])
        self.label = f"depth {depth} block {block}"
        super().__init__(
            build, kernel=pathlib.Path(build).resolve() / "guests/disk.elf", memory_mib=16,
            command_line=f"seed={seed} depth={depth} block={block} blocks=200 flush=8 zeroes=13 discard=17"
                         f" sweep={SWEEP} rate={moments.choice([0, 500])}", devices=DEVICES)
        for node in pairlib.NODES:
            with open(self.image(node), "wb") as file:
                file.truncate(DISK_BYTES)

    def image(self, node):
        return self.folder / f"{node}.disk"


def last_step(said):
    console = check_console.Console("disk")
    console.data(said)
    return console.last or 0


def expect_good_console(said):
    console = check_console.Console("disk")
    console.data(said)
    if console.errors:
        raise AssertionError("; ".join(console.errors[:3]))


def expect_good_image(image, said, exact):
    model, verdict = check_disk.check(image, said, exact)
    if verdict.fault_count:
        raise AssertionError(f"{image.name}: {'; '.join(verdict.faults[:3])}")
    return model, verdict


def start(pair, moments):
    primary, secondary = pair.start_protected()
    primary.await_console("some steps", lambda said: last_step(said) >= SWEEP)
    time.sleep(moments.random())  # the random moment itself
    return primary, secondary


def failover(build, seed, moments):
    with DiskPair(build, seed, moments) as pair:
        primary, secondary = start(pair, moments)
        primary.kill()
        before = primary.console()
        secondary.await_status("the guest to run here", lambda s: "last_failover" in s)
        goal = last_step(before) + 2 * SWEEP
        after = secondary.await_console(
            "its whole disk read back", lambda said: last_step(
                pairlib.stream_continues(before, said)[1]) >= goal or b"DISK " in said)
        joined, whole, explanation = pairlib.stream_continues(before, after)
        if not joined:
            raise AssertionError(explanation)
        expect_good_console(whole)
        expect_good_image(pair.image("alpha"), before, exact=False)
        secondary.kill()
        whole = pairlib.stream_continues(before, secondary.console())[1]
        expect_good_image(pair.image("beta"), whole, exact=False)
        return f"{pair.label}: killed at step {last_step(before)}, {explanation}"


def both(build, seed, moments):
    with DiskPair(build, seed, moments) as pair:
        primary, secondary = start(pair, moments)
        if moments.random() < 0.5:
            primary.kill()
            secondary.kill()
        else:
            secondary.kill()
            primary.kill()
        said = primary.console()
        # It recovers its journal when it opens its disks, and nobody is there who could overwrite them.
        secondary = pair.start_node("beta", "secondary")
        secondary.await_status("an answer", lambda s: True)
        secondary.kill()
        model, verdict = expect_good_image(pair.image("beta"), said, exact=True)
        return f"{pair.label}: {model.reported} writes reported, the copy is of write {verdict.at_write}"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    failed = 0
    for number in range(arguments.rounds):
        moments = random.Random(arguments.seed * 1000 + number)
        scenario = (failover, both)[number % 2]
        try:
            good, detail = True, scenario(arguments.build, arguments.seed + number, moments)
        except (pairlib.PairError, AssertionError, ValueError) as error:
            good, detail = False, f"{type(error).__name__}: {error}"
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {number} {scenario.__name__}: {detail}", flush=True)
    print(f"{arguments.rounds - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
