"""Whether the pause depends on how much memory a guest has: the same dirty pages in small and large, by turns.

    memory_size.py --build FOLDER [--sizes 512,8192] [--pages 10,100,4096] [--repeats 3] [--json FILE]

Runs bench/epoch_rate with the ring and with the bitmap.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

from common import host, load_json, ratio, say, summary, write_json
from peers import numbers


def epoch_rate(options, memory_mib):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([options.build / "bench/epoch_rate", "--kernel", options.build / "guests/ledger.elf",
                        "--seconds", str(options.seconds), "--pages", ",".join(map(str, options.pages)),
                        "--max-interval-us", "50", "--memory-mib", str(memory_mib), "--json", file.name],
                       check=True, stdout=subprocess.DEVNULL, timeout=options.limit_seconds)
        return load_json(file.name)["rows"]


def run(options):
    """{(tracking, pages, MiB): rows}"""
    rows = {}
    for repeat in range(options.repeats):
        for memory_mib in options.sizes if repeat % 2 == 0 else reversed(options.sizes):
            say(f"  {memory_mib} MiB, {repeat + 1} of {options.repeats}")
            for row in epoch_rate(options, memory_mib):
                key = (row["tracking"], int(row["pages_per_epoch"]), memory_mib)
                rows.setdefault(key, []).append(row)
    return rows


def table(rows, sizes):
    """One line for each tracking and number of pages; the ratio is of each repeat's largest to its smallest."""
    small, large = min(sizes), max(sizes)
    lines = []
    for tracking, pages in sorted({key[:2] for key in rows}):
        pauses = {mib: [row["pause"].get("p50_us") for row in rows[tracking, pages, mib]] for mib in sizes}
        rates = {mib: [row.get("epochs_per_s", 0) for row in rows[tracking, pages, mib]] for mib in sizes}
        lines.append({"tracking": tracking, "pages": pages,
                      "pause_p50_us": {str(mib): summary(pauses[mib]) for mib in sizes},
                      "epochs_per_s": {str(mib): summary(rates[mib]) for mib in sizes},
                      "pause_ratio": summary([ratio(*pair) for pair in zip(pauses[large], pauses[small])])})
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path, help="CMake build folder")
    parser.add_argument("--sizes", type=numbers, default=[512, 8192], help="MiB of guest memory")
    parser.add_argument("--pages", type=numbers, default=[10, 100, 4096])
    parser.add_argument("--seconds", type=float, default=2, help="per row")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit-seconds", type=float, default=300, help="for one size, once")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    options = parser.parse_args()
    report = {"host": host(), "sizes_mib": options.sizes, "lines": table(run(options), options.sizes)}
    for line in report["lines"]:
        say(f"  {line['tracking']:<7} {line['pages']:>5} pages: pause x {line['pause_ratio']['median']:.2f}")
    write_json(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
