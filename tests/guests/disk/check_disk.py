#!/usr/bin/env python3
"""Judges a disk image against what the disk guest said on its console.

  reported   all that a released step told is on the disk
  whole      every sector is a record of this guest, or zeros, and not damaged
  exact      the image is what it was after some number of writes, the last reported or later: so it is
             of one moment (a journaled copy, or one that was synchronised); --loose leaves this out,
             for a copy that lost its power without a journal: what was not flushed is there or not

Exit code: 0 if the image is good, 1 if not, 2 for wrong usage. model.c says what a record is.
"""

import argparse
import re
import struct
import sys

SECTOR = 512
WORDS = SECTOR // 8
MAGIC = 0x0000314B53494452
MASK = (1 << 64) - 1
BANNER = re.compile(rb"^disk: (blocks=.*)$", re.M)
STEP = re.compile(rb"^step (\d{6,}) sum [0-9a-f]{16} writes (\d+) vcpus 1 ok\r?$", re.M)
MAX_FAULTS = 20
# Beyond the newest record at most so many writes can be in an image without showing: zeroes.
MAX_UNSEEN = 10_000


def mix(x):
    x = ((x ^ x >> 31) * 0x9FB21C651E98DF25) & MASK
    x = ((x ^ x >> 29) * 0xD6E8FEB86659FD93) & MASK
    return x ^ x >> 32


class Model:
    """What the guest writes, from the options that its first line tells."""

    def __init__(self, console):
        banner = BANNER.search(console)
        if not banner:
            raise ValueError("the console has no first line of the disk guest")
        options = {key: int(value) for key, value in
                   (word.split("=") for word in banner[1].decode().split())}
        self.blocks, self.seed, self.flush = options["blocks"], options["seed"], options["flush"]
        self.first, self.block_bytes = options["first"], options["block"]
        self.sectors = self.block_bytes // SECTOR
        self._sequential, self._depth = options["sequential"], options["depth"]
        self._empty = [options["zeroes"], options["discard"]]
        self._mixed_seed = mix(self.seed)
        steps = STEP.findall(console)
        self.step = int(steps[-1][0]) if steps else 0
        self.reported = int(steps[-1][1]) if steps else 0  # writes

    def block_of(self, write):
        if self._sequential:
            return (write - 1) % self.blocks
        return mix((self._mixed_seed + write) & MASK) * self.blocks >> 64

    def is_record(self, write):
        return not any(every and write % every == 0 for every in self._empty)

    def record(self, sector, write):
        key = mix((mix((self.seed + sector * 0x9E3779B97F4A7C15) & MASK) + write) & MASK)
        words = [MAGIC, self.seed, sector, write, (write - 1) // self.flush + 1]
        for i in range(5, WORDS - 1):
            x = ((key + i) * 0xA0761D6478BD642F) & MASK
            words.append(x ^ x >> 32)
        value = 0
        for word in words:
            value = ((value ^ word) * 0x9FB21C651E98DF25) & MASK
            value ^= value >> 32
        return struct.pack(f"<{WORDS}Q", *words, value)


class Verdict:
    def __init__(self):
        self.fault_count = 0
        self.faults = []
        self.at_write = None  # exact: the number of writes that the image is of

    def fault(self, text):
        self.fault_count += 1
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(text)


def read_blocks(image, model, verdict):
    """For each block the list of its sectors' writes; 0: zeros, None: damaged."""
    found = []
    with open(image, "rb") as file:
        file.seek(model.first * SECTOR)
        for block in range(model.blocks):
            data = file.read(model.block_bytes)
            writes = []
            for i in range(model.sectors):
                sector = model.first + block * model.sectors + i
                raw = data[i * SECTOR:(i + 1) * SECTOR]
                write = int.from_bytes(raw[24:32], "little")
                if raw == bytes(SECTOR):
                    write = 0
                elif raw != model.record(sector, write):
                    verdict.fault(f"sector {sector} is no record of its own, nor zeros"
                                  f" (it says write {write}): {raw[:40].hex()}")
                    write = None
                elif not (write and model.is_record(write) and model.block_of(write) == block):
                    verdict.fault(f"sector {sector} has write {write}, which is not for it")
                    write = None
                writes.append(write)
            found.append(writes)
    return found


def state_after(model, count):
    """Number of the last write to each block after `count` writes."""
    last = [0] * model.blocks
    for write in range(1, count + 1):
        last[model.block_of(write)] = write
    return last


def shown(model, write):
    """What a block shows that was last written by `write`."""
    return write if write and model.is_record(write) else 0


def check_exact(model, found, verdict):
    """Looks for the number of writes whose state the image is."""
    newest = max((w for writes in found for w in writes if w), default=0)
    count = max(newest, model.reported)
    last = state_after(model, count)
    wrong = {block for block in range(model.blocks)
             if any(w != shown(model, last[block]) for w in found[block])}
    for count in range(count, count + MAX_UNSEEN):
        if not wrong:
            verdict.at_write = count
            return
        if model.is_record(count + 1):
            break  # that one would show
        block = model.block_of(count + 1)
        if any(w != 0 for w in found[block]):
            wrong.add(block)
        else:
            wrong.discard(block)
    for block in sorted(wrong):
        verdict.fault(f"block {block} shows writes {sorted(set(map(str, found[block])))}, but after"
                      f" {max(newest, model.reported)} writes it must show"
                      f" {shown(model, last[block])}")


def check_loose(model, found, verdict):
    """Each sector is at the last write of a reported step, or at a later one."""
    newest = max((w for writes in found for w in writes if w), default=0)
    allowed = [{shown(model, write)} for write in state_after(model, model.reported)]
    for write in range(model.reported + 1, max(newest, model.reported) + 4 * model.flush + 1):
        allowed[model.block_of(write)].add(shown(model, write))
    for block, writes in enumerate(found):
        for write in set(writes) - {None} - allowed[block]:
            verdict.fault(f"block {block} shows write {write}, reported and later are"
                          f" {sorted(allowed[block])}")


def check(image, console, exact=True):
    """(model, verdict) for an image file and the released console as bytes."""
    # An unfinished line was not released as a whole.
    model = Model(console[:console.rfind(b"\n") + 1])
    verdict = Verdict()
    found = read_blocks(image, model, verdict)
    (check_exact if exact else check_loose)(model, found, verdict)
    return model, verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("console", help="what the guest said, as far as it was released")
    parser.add_argument("--loose", action="store_true", help="the copy lost its power")
    args = parser.parse_args()
    try:
        with open(args.console, "rb") as file:
            model, verdict = check(args.image, file.read(), not args.loose)
    except (OSError, ValueError) as error:
        print(f"check_disk: {error}", file=sys.stderr)
        return 2
    at = f", the image is of write {verdict.at_write}" if verdict.at_write is not None else ""
    print(f"{'BAD' if verdict.fault_count else 'ok'}: step {model.step} reported, of write"
          f" {model.reported}{at}")
    for fault in verdict.faults:
        print(f"  {fault}")
    return 1 if verdict.fault_count else 0


if __name__ == "__main__":
    sys.exit(main())
