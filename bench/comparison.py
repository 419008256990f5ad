"""Is a build slower than another? Both run by turns, so that what the machine does meanwhile meets both.

    bench/compare OLD NEW [--rounds 9] [--seconds 2] [--json FILE]

OLD and NEW are build folders (release) of two trees. Each round runs bench/epoch_rate and bench/codec_bench of
both, in changing order, and gives one ratio new/old for each figure. A figure is worse if the median of its ratios is
worse by more than --tolerance and so is 1 outside of the range that holds the true median 19 times of 20 (of the
order statistics, whatever the distribution). Of some twenty figures one may be so by chance: if any is, as many rounds
are made again, and a regression is what is worse in these, too. Exit code 1: a regression; 2: no answer. About eight
minutes, or twice that. FILE is written after each round.
"""

import argparse
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

from common import ResultError, load_json, numbers, say, write_json
from tables import table
import turns

CONFIDENCE = 0.95
# The median of fewer cannot be told with that confidence (2 * 0.5^n).
FEWEST_ROUNDS = 6
# figure of a row of epoch_rate: is more of it better?
RATE_FIGURES = {("epochs_per_s",): True, ("pause", "p50_us"): False, ("pause", "p99_us"): False,
                ("ack", "p50_us"): False, ("progress_share",): True, ("bytes_per_epoch",): False}
CODEC_FILTER = "/(10|1000)/4$"


def median_range(values):
    """The order statistics between which the median of the distribution lies with CONFIDENCE at least; the
    extremes if there are too few for that."""
    values = sorted(values)
    count, left_out, tail = len(values), 0, 0.0
    while left_out < count // 2:
        tail += math.comb(count, left_out) / 2 ** count
        if 2 * tail > 1 - CONFIDENCE:
            break
        left_out += 1
    at = max(0, left_out - 1)
    return values[at], values[count - 1 - at]


def judge(ratios, more_is_better, tolerance):
    """{median, low, high, verdict} of ratios new/old of one figure."""
    median, (low, high) = statistics.median(ratios), median_range(ratios)
    sign = 1 if more_is_better else -1
    gain = sign * (median - 1)
    surely_worse = high < 1 if more_is_better else low > 1
    surely_better = low > 1 if more_is_better else high < 1
    verdict = "same"
    if surely_worse and gain < -tolerance:
        verdict = "WORSE"
    elif surely_better and gain > tolerance:
        verdict = "better"
    return {"median": median, "low": low, "high": high, "verdict": verdict}


def field(row, path):
    for part in path:
        row = row[part]
    return float(row)


def rate_figures(build, options):
    rows = turns.epoch_rate(build, options, turns.RING)
    return {f"{row['pages_per_epoch']} pages {' '.join(path)}": (field(row, path), more)
            for row in rows for path, more in RATE_FIGURES.items()}


def codec_figures(build, options):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([build / "bench/codec_bench", f"--benchmark_filter={CODEC_FILTER}",
                        "--benchmark_min_time=0.1", "--benchmark_out_format=json", f"--benchmark_out={file.name}"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       timeout=options.limit_seconds)
        found = load_json(file.name)["benchmarks"]
    return {f"codec {each['name']}": (float(each["cpu_time"]), False) for each in found}


def measure(build, options):
    return {**rate_figures(build, options), **codec_figures(build, options)}


def save(options, found):
    if options.json:
        write_json(options.json, found)


def run(options, done):
    """{figure: {"old": [...], "new": [...], "more_is_better"}}; `done` is called with it after each round."""
    figures = {}
    for number in range(options.rounds):
        sides = [("old", options.old), ("new", options.new)]
        for side, build in sides if number % 2 == 0 else reversed(sides):
            say(f"round {number + 1} of {options.rounds}: {side}")
            for name, (value, more) in measure(build, options).items():
                figure = figures.setdefault(name, {"old": [], "new": [], "more_is_better": more})
                figure[side].append(value)
        done(figures)
    return figures


def report(figures, tolerance):
    """(lines, names of those that are worse); adds each figure's verdict. What cannot be compared is named."""
    lines, left_out = [], []
    for name, figure in figures.items():
        if len(figure["old"]) != len(figure["new"]) or not all(figure["old"]):
            left_out.append(f"{name} ({'0 in OLD' if len(figure['old']) == len(figure['new']) else 'not in both'})")
            continue
        ratios = [new / old for old, new in zip(figure["old"], figure["new"])]
        figure.update(judge(ratios, figure["more_is_better"], tolerance))
        lines.append([name, f"{statistics.median(figure['old']):.6g}", f"{statistics.median(figure['new']):.6g}",
                      f"{figure['median']:.3f}", f"{figure['low']:.3f} to {figure['high']:.3f}",
                      figure["verdict"]])
    if not lines:
        raise ResultError("the builds have no figure in common")
    worse = [name for name, figure in figures.items() if figure.get("verdict") == "WORSE"]
    named = [f"not compared: {', '.join(left_out)}"] if left_out else []
    return [*table(["figure", "old", "new", "new / old", "range", ""], lines), *named], worse


def compare(options):
    """The names of what is worse, twice if at all. Errors: ResultError, also if what was worse could not be judged
    again, and what running a program can raise."""
    found = []  # figures, and those of the rounds that are made again

    def judged():
        found.append({})

        def done(figures):
            found[-1] = figures
            save(options, found)
        figures = run(options, done)
        lines, worse = report(figures, options.tolerance)
        save(options, found)
        say("\n".join(lines))
        return worse
    worse = judged()
    if worse and options.rounds >= FEWEST_ROUNDS:
        say(f"perhaps worse: {', '.join(worse)}; once more")
        again = set(judged())
        if unknown := [name for name in worse if "verdict" not in found[-1].get(name, {})]:
            raise ResultError(f"worse, and not there again: {', '.join(unknown)}")
        worse = [name for name in worse if name in again]
    return worse


def main():
    parser = argparse.ArgumentParser(prog="bench/compare", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=pathlib.Path)
    parser.add_argument("new", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=9, help=f"at least {FEWEST_ROUNDS} to tell anything")
    parser.add_argument("--seconds", type=float, default=2, help="of each row")
    parser.add_argument("--pages", type=numbers, default=[3, 50, 1000])
    parser.add_argument("--tolerance", type=float, default=0.03)
    parser.add_argument("--limit-seconds", type=float, default=300, help="for one program, once")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    options.old, options.new = options.old.resolve(), options.new.resolve()
    try:
        worse = compare(options)
    except (ResultError, OSError, subprocess.SubprocessError, KeyError) as error:
        say(f"bench/compare: {error}")
        return 2
    if options.rounds < FEWEST_ROUNDS:
        say(f"too few rounds to tell; {FEWEST_ROUNDS} at least")
        return 2
    say(f"regression: {', '.join(worse)}" if worse else "no regression")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
