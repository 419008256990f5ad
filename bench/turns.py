"""bench/epoch_rate in several ways by turns, so that what the machine does meanwhile meets all of them."""

import pathlib
import subprocess
import tempfile

from common import host, load_json, numbers, say, write_json

RING = ["--tracking", "ring"]


def add_arguments(parser, pages, seconds, repeats):
    parser.add_argument("--build", required=True, type=pathlib.Path, help="CMake build folder")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--pages", type=numbers, default=pages)
    parser.add_argument("--seconds", type=float, default=seconds, help="per row")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--limit-seconds", type=float, default=300, help="for one way, once")


def epoch_rate(build, options, words):
    """The rows of one run. Errors: ResultError, and what running a program can raise."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([build / "bench/epoch_rate", "--kernel", build / "guests/ledger.elf",
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
            for row in epoch_rate(options.build, options, ways[way]):
                found = rows.setdefault((row["tracking"], int(row["pages_per_epoch"])), {})
                found.setdefault(way, []).append(row)
    return rows


def write_report(path, lines, **facts):
    """Says each line's ratio, and writes all of them with the host and other facts."""
    for line in lines:
        say(f"  {line.get('tracking', ''):<7} {line['pages']:>5} pages: pause x {line['pause_ratio']['median']:.2f}")
    write_json(path, {"host": host(), **facts, "lines": lines})
