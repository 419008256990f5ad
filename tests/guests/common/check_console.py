#!/usr/bin/env python3
"""Judges the console of a guest that tells steps: are they consecutive, and did it find no corruption?

A console that ends in the middle of a line is normal (its host was killed); that rest is ignored.
Exit code: 0 if the console is good, 1 if not, 2 for wrong usage.
"""

import argparse
import json
import re
import sys

STEP = re.compile(
    r"step (\d{6,})(?: ms (?P<ms>\d+))? sum ([0-9a-f]{16}) writes (?P<writes>\d+) vcpus (?P<vcpus>\d+) ok")
# First line of each guest.
BANNERS = {"ledger": r"ledger: vcpus=\d+ .*", "disk": r"disk: blocks=\d+ .*"}
MAX_ERRORS = 20  # reported; all are counted


class Console:
    """State while reading lines; `result()` is what is printed."""

    def __init__(self, guest="ledger"):
        self.done_line = re.compile(
            guest + r": done steps (\d+) sum ([0-9a-f]{16}) writes (\d+) vcpus (\d+) ok")
        self.banner = re.compile(BANNERS[guest])
        self.bad = re.compile(guest.upper() + r" (CORRUPT|ERROR|TRAP)\b.*")
        self.damaged = re.compile(rf"\bstep \d|{guest}:|{guest.upper()}")
        self.first = self.last = self.writes = self.vcpus = None
        self.steps = self.boots = self.error_count = 0
        self.first_ms = self.ms = None  # the guest's clock, if steps tell it (clock=1)
        self.longest_ms = 0  # from one step to the next
        self.corrupt = self.done = False
        self.errors = []

    def error(self, number, text):
        self.error_count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(f"line {number}: {text}")

    def step(self, number, match):
        step, writes, vcpus = int(match[1]), int(match["writes"]), int(match["vcpus"])
        if self.done:
            self.error(number, f"step {step} after the end")
        if self.last is None:
            self.first = step
        elif step != self.last + 1:
            kind = "repeat" if step <= self.last else "gap"
            self.error(number, f"{kind}: step {step} follows {self.last}")
        if self.writes is not None and writes < self.writes:
            self.error(number, f"writes fell from {self.writes} to {writes}")
        if self.vcpus is not None and vcpus != self.vcpus:
            self.error(number, f"vcpus changed from {self.vcpus} to {vcpus}")
        if match["ms"] is not None:
            self.time(number, int(match["ms"]))
        self.steps += 1
        self.last, self.writes, self.vcpus = step, writes, vcpus

    def time(self, number, ms):
        if self.ms is not None:
            if ms < self.ms:
                self.error(number, f"the clock fell from {self.ms} to {ms} ms")
            self.longest_ms = max(self.longest_ms, ms - self.ms)
        else:
            self.first_ms = ms
        self.ms = ms

    def line(self, number, line):
        if match := STEP.fullmatch(line):
            self.step(number, match)
        elif match := self.done_line.fullmatch(line):
            self.done = True
            if int(match[1]) != (self.last or 0):
                self.error(number, f"done after {match[1]} steps, but {self.last} was the last")
        elif self.banner.fullmatch(line):
            self.boots += 1
            if self.boots > 1 or self.last is not None:
                self.error(number, "booted again")
        elif self.bad.search(line):
            self.corrupt |= " CORRUPT " in line
            self.error(number, line)
        elif self.damaged.search(line):
            self.error(number, f"damaged line: {line!r}")
        # Anything else is not ours: a firmware or a VMM wrote to the same file.

    def data(self, data):
        """All of a console, as bytes."""
        lines = data.decode("latin-1").replace("\r\n", "\n").split("\n")
        for number, line in enumerate(lines[:-1], 1):
            self.line(number, line)
        # An unfinished line cannot be judged, unless it already tells of damage.
        if self.bad.search(lines[-1]):
            self.line(len(lines), lines[-1])

    def result(self):
        return {
            "ok": self.error_count == 0,
            "first": self.first,
            "last": self.last,
            "steps": self.steps,
            "writes": self.writes,
            "vcpus": self.vcpus,
            "boots": self.boots,
            "first_ms": self.first_ms,
            "last_ms": self.ms,
            "longest_ms": self.longest_ms,
            "done": self.done,
            "corrupt": self.corrupt,
            "error_count": self.error_count,
            "errors": self.errors,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("console", help="console file, - for standard input")
    parser.add_argument("--guest", choices=BANNERS, default="ledger")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--first", type=int, metavar="N", help="the first step must be N")
    parser.add_argument("--min-steps", type=int, default=1, metavar="N",
                        help="there must be at least N steps (default 1)")
    parser.add_argument("--done", action="store_true", help="the guest must have come to its end")
    args = parser.parse_args()

    try:
        with open(0 if args.console == "-" else args.console, "rb") as file:
            data = file.read()
    except OSError as error:
        print(f"check_console: {error}", file=sys.stderr)
        return 2

    console = Console(args.guest)
    console.data(data)
    if args.first is not None and console.first not in (None, args.first):
        console.error("end", f"first step is {console.first}, not {args.first}")
    if console.steps < args.min_steps:
        console.error("end", f"{console.steps} steps, wanted {args.min_steps}")
    if args.done and not console.done:
        console.error("end", "the guest did not come to its end")

    result = console.result()
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{'ok' if result['ok'] else 'BAD'}: steps {result['first']} to {result['last']} "
              f"({result['steps']} lines), writes {result['writes']}, vcpus {result['vcpus']}"
              f"{', done' if result['done'] else ''}")
        for error in result["errors"]:
            print(f"  {error}")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
