"""Whether the pause depends on how much memory a guest has: the same dirty pages in small and large, by turns.

    memory_size.py --build FOLDER [--sizes 512,8192] [--pages 10,100,4096] [--repeats 3] [--json FILE]

Runs bench/epoch_rate with the ring and with the bitmap.
"""

import argparse
import sys

from common import numbers, ratio, summary
import turns


def table(rows, sizes):
    """One line for each tracking and number of pages; the ratio is of each repeat's largest to its smallest."""
    small, large = min(sizes), max(sizes)
    lines = []
    for (tracking, pages), found in sorted(rows.items()):
        pauses = {mib: [row["pause"].get("p50_us") for row in found[mib]] for mib in sizes}
        rates = {mib: [row.get("epochs_per_s", 0) for row in found[mib]] for mib in sizes}
        lines.append({"tracking": tracking, "pages": pages,
                      "pause_p50_us": {str(mib): summary(pauses[mib]) for mib in sizes},
                      "epochs_per_s": {str(mib): summary(rates[mib]) for mib in sizes},
                      "pause_ratio": summary([ratio(*pair) for pair in zip(pauses[large], pauses[small])])})
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=numbers, default=[512, 8192], help="MiB of guest memory")
    turns.add_arguments(parser, pages=[10, 100, 4096], seconds=2, repeats=3)
    options = parser.parse_args()
    rows = turns.by_turns(options, {mib: ["--memory-mib", str(mib)] for mib in options.sizes})
    turns.write_report(options.json, table(rows, options.sizes), sizes_mib=options.sizes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
