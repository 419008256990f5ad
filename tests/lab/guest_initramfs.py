#!/usr/bin/python3
"""The Linux guest: builds its initramfs, and knows what its console has to say.

    guest_initramfs.py build FILE       writes the initramfs (its kernel: images.kernel("guest"))
    guest_initramfs.py check < CONSOLE  checks the ticks on a console, exit status 0 if they hold

guest_init.sh says what a tick is and what the kernel command line may ask for.
"""

import hashlib
import re
import sys

import images

_TICK = re.compile(r"tick (\d{6}) sum ([0-9a-f]{32}) (ok|BAD) t=(\d+\.\d\d)$")


def build(image, modules=()):
    """modules: names of modules of the guest kernel that it loads, what they need included."""
    files = {"init": images.HERE / "guest_init.sh"}
    order = images.modules_in_order("guest", modules)
    if order:
        files.update({f"modules/{path.name}": path for path in order})
        files["modules/order"] = "".join(f"{path.name}\n" for path in order).encode()
    return images.pack(image, files)


def expected_sums(count, files=8, kib=16):
    """The sums of ticks 1 to count, computed the way guest_init.sh does."""

    def content(text):
        line = text.encode() + b"\n"
        return (line * (kib * 1024 // len(line) + 1))[:kib * 1024]

    tree = [content("0 start")] * files
    sums, last = [], "start"
    for tick in range(1, count + 1):
        tree[tick % files] = content(f"{tick} {last}")
        last = hashlib.md5(b"".join(tree)).hexdigest()
        sums.append(last)
    return sums


def check(lines, files=8, kib=16):
    """(ticks, faults): how many ticks the lines hold, and what is wrong with them, as texts.

    The lines are one released console, also over a failover: ticks 1, 2, 3... without gap or
    repeat, each verified by the guest, each with the sum that it must have, at times that rise.
    """
    ticks, faults = [], []
    for line in lines:
        if line.startswith("tick "):
            found = _TICK.match(line)
            if found:
                ticks.append(found)
            else:
                faults.append(f"garbled: {line!r}")
    sums = expected_sums(len(ticks), files, kib)
    for want, (tick, sum_) in enumerate(zip(ticks, sums), 1):
        if int(tick[1]) != want:
            faults.append(f"tick {int(tick[1])} where {want} belongs")
            break
        if tick[2] != sum_:
            faults.append(f"tick {want} has sum {tick[2]}, must be {sum_}")
            break
        if tick[3] != "ok":
            faults.append(f"tick {want}: the guest found its files damaged")
    times = tick_times(lines)
    faults += [f"the clock went back from {a} to {b} s" for a, b in zip(times, times[1:]) if b < a]
    return len(ticks), faults


def tick_times(lines):
    """The guest's uptime at each tick, in seconds."""
    return [float(found[4]) for found in map(_TICK.match, lines) if found]


def main(words):
    if len(words) == 2 and words[0] == "build":
        print(build(words[1]))
        return 0
    if words == ["check"]:
        ticks, faults = check(line.rstrip("\r\n") for line in sys.stdin)
        print(f"{ticks} ticks", *(faults or ["all as they must be"]), sep=", ")
        return 1 if faults or not ticks else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
