"""What a second vCPU does to the pause: the same dirty pages of one vCPU and of two, by turns.

    two_vcpus.py --build FOLDER [--pages 10,100] [--repeats 5] [--json FILE]

Runs bench/epoch_rate with the ring. Skipped (exit code 77) where there is only one processor.
"""

import argparse
import os
import sys

from common import SKIPPED, ratio, say, summary
import turns

PARTS = ("p50_us", "p99_us")


def side(rows):
    """Summaries over the repeats."""
    return {**{part: summary([row["pause"].get(part) for row in rows]) for part in PARTS},
            "tail": summary([ratio(row["pause"].get("p99_us"), row["pause"].get("p50_us")) for row in rows]),
            **{name: summary([row.get(name) for row in rows]) for name in ("epochs_per_s", "progress_share")}}


def lines(rows):
    """One for each number of pages; the ratio is that of each repeat."""
    for (_, pages), found in sorted(rows.items()):
        pauses = ([row["pause"].get("p50_us") for row in found[count]] for count in (2, 1))
        yield {"pages": pages, "vcpus": {str(count): side(found[count]) for count in (1, 2)},
               "pause_ratio": summary([ratio(*pair) for pair in zip(*pauses)])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    turns.add_arguments(parser, pages=[10, 100], seconds=3, repeats=5)
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        say("skipped: one processor; two vCPUs would wait for each other")
        return SKIPPED
    rows = turns.by_turns(options, {count: [*turns.RING, "--vcpus", str(count)] for count in (1, 2)})
    turns.write_report(options.json, list(lines(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
