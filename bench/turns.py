"""bench/epoch_rate in several ways by turns, so that what the machine does meanwhile meets all of them."""

import subprocess
import tempfile

from common import load_json, numbers, say

RING = ["--tracking", "ring"]


def add_arguments(parser, pages, seconds, repeats):
    parser.add_argument("--pages", type=numbers, default=pages)
    parser.add_argument("--seconds", type=float, default=seconds, help="per row")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--limit-seconds", type=float, default=300, help="for one way, once")


def epoch_rate(options, words):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([options.build / "bench/epoch_rate", "--kernel", options.build / "guests/ledger.elf",
                        "--seconds", str(options.seconds), "--pages", ",".join(map(str, options.pages)),
                        "--max-interval-us", "50", *words, "--json", file.name],
                       check=True, stdout=subprocess.DEVNULL, timeout=options.limit_seconds)
        return load_json(file.name)["rows"]


def by_turns(options, ways):
    """{(tracking, pages): {way: [its rows, one of each repeat]}} of {way: its words}."""
    rows = {}
    for repeat in range(options.repeats):
        for way in list(ways) if repeat % 2 == 0 else reversed(ways):
            say(f"  {way}, {repeat + 1} of {options.repeats}")
            for row in epoch_rate(options, ways[way]):
                found = rows.setdefault((row["tracking"], int(row["pages_per_epoch"])), {})
                found.setdefault(way, []).append(row)
    return rows
