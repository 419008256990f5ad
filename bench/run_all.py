"""Runs the benches on this host and writes one page of results.

    bench/run                       about half an hour; the machine should have nothing else to do
    bench/run --quick               short rows: shows that the benches work, not how fast anything is
    bench/run --only peers,codec    these; of the others the figures that are there already stay

Writes OUT/RESULTS.md, and beside it OUT/results/ with each bench's JSON, what it printed, and plots. OUT is
`bench`, of a quick run build/bench. Builds first, unless it is given a build folder. Of each bench it is kept on
what machine, of which commit and how quick it was, and what else the machine did right before. Where a bench cannot
run here, or was not reached before an interrupt, its earlier results stay. Exit code 1: a bench
failed, was late, or its results are not all there. Pages of a Linux are recorded where scripts/make-guest, which calls
scripts/lab-setup, has left one.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

from common import ROOT, SKIPPED, ResultError, host, load_json, say, write_json
import pair as pairlib
import plan
import qemu
import results


def build():
    say("building")
    for command in (["cmake", "--preset", "release"],
                    ["cmake", "--build", "--preset", "release", "--target", *plan.TARGETS]):
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return ROOT / "build/release"


def placeless(text, build_folder):
    """Without where this machine keeps things: results are published."""
    text = text.replace(str(build_folder), "BUILD").replace(str(ROOT), ".")
    text = re.sub(r'"host_name": *"[^"]*",?\s*', "", text)  # google-benchmark's
    return re.sub(rf"{re.escape(tempfile.gettempdir())}/[^/\s\"']+/?", "", text)


def stream(process, text_path, build_folder):
    """What it prints, to the terminal and into a file; returns all of it."""
    text = []
    with open(text_path, "w", encoding="utf-8") as copy:
        for line in process.stdout:
            text.append(line)
            copy.write(placeless(line, build_folder))
            print("    " + line, end="", flush=True)
    return "".join(text)


def json_line(said):
    """Of what a bench prints, the line that is JSON, or nothing."""
    return next((line for line in said.splitlines() if line.startswith("{")), "")


def run_program(words, limit_s, text_path, build_folder):
    """(exit code or None if it did not end in time, what it said). Ends with all its processes, whatever happens."""
    late = threading.Event()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          stdin=subprocess.DEVNULL, start_new_session=True,
                          preexec_fn=pairlib.die_with_parent) as process:
        def end():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        def be_late():
            late.set()
            end()
        timer = threading.Timer(limit_s, be_late)
        timer.daemon = True
        timer.start()
        try:
            said = stream(process, text_path, build_folder)
            code = process.wait()
        finally:
            timer.cancel()
            end()
    return (None if late.is_set() else code), said


def attempt(bench, options, folder, finish=lambda found: found):
    """One bench: {"state": "ok" | "skipped" | "failed", "why", "seconds"}; its files are in the folder if ok, else
    only what it said, as NAME.failed.txt: no file that was there is lost. `finish` completes its JSON."""
    limit_s = (bench.quick_limit_s if options.quick else bench.limit_s) * options.patience
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as place:
        new = pathlib.Path(place)
        text_path, json_path = new / f"{bench.name}.txt", new / f"{bench.name}.json"
        failed_path = folder / f"{bench.name}.failed.txt"
        failed_path.unlink(missing_ok=True)
        code, said = run_program(bench.words(options.build, json_path, new / f"{bench.name}.tsv", options.quick),
                                 limit_s, text_path, options.build)
        state = {"state": "ok", "why": "", "seconds": round(time.monotonic() - began, 1)}
        if code == SKIPPED:
            return {**state, "state": "skipped", "why": said.strip().splitlines()[-1] if said.strip() else ""}
        try:
            if code is None:
                raise ResultError(f"no end within {limit_s:g} s")
            if code != 0:
                raise ResultError(f"exit code {code}")
            if bench.json_on_stdout:
                json_path.write_text(json_line(said))
            found = load_json(json_path)
            plan.check(bench, found)
            json_path.write_text(placeless(json.dumps(finish(found), indent=1) + "\n", options.build))
        except ResultError as error:
            text_path.replace(failed_path)
            return {**state, "state": "failed", "why": str(error).replace(f"{place}/", "")}
        made = [path.replace(folder / path.name) for path in new.iterdir()]
        for path in {folder / f"{bench.name}.{kind}" for kind in ("json", "tsv", "txt")} - set(made):
            path.unlink(missing_ok=True)
    return state


def costs(options):
    """What cannot be avoided, at this moment: a host's speed changes within minutes. Errors: ResultError."""
    words = plan.COSTS.words(options.build, "-", "-", options.quick)
    limit_s = plan.COSTS.limit_s * options.patience
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=limit_s, check=True,
                              stdin=subprocess.DEVNULL, preexec_fn=pairlib.die_with_parent).stdout
        found = json.loads(json_line(said))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or "").strip()
        raise ResultError(f"kvm_costs beside it: {error} {said}") from error
    plan.check(plan.COSTS, found)
    return found


def middle(one, other):
    """Of two JSON objects with the same numbers, one with their means."""
    if isinstance(one, dict):
        return {key: middle(one[key], other[key]) for key in one if key in other}
    return (one + other) / 2 if isinstance(one, (int, float)) else one


def attempt_between_costs(bench, options, folder):
    """attempt(), its JSON with what kvm_costs measures right before it and after, `costs`: their mean."""
    try:
        before = costs(options)
    except ResultError as error:
        return {"state": "failed", "why": str(error), "seconds": 0}

    def with_costs(found):
        try:
            return {**found, "costs": middle(before, costs(options))}
        except ResultError as error:
            say(f"  {error}; held to what was measured before it")
            return {**found, "costs": before}
    return attempt(bench, options, folder, with_costs)


def commit(build_folder):
    """Of the tree that the build folder is of."""
    tree = ROOT
    with contextlib.suppress(OSError):
        found = re.search(r"^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$", (build_folder / "CMakeCache.txt").read_text(), re.M)
        tree = found[1] if found else ROOT
    done = subprocess.run(["git", "-C", str(tree), "describe", "--always", "--dirty"], capture_output=True,
                          text=True)
    return done.stdout.strip() or "unknown"


def cpu_ticks():
    """(busy, all) of the machine's processors since its start (proc(5), stat)."""
    fields = [int(word) for word in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def busy_share(seconds):
    """How much of the processors something else takes now."""
    busy, total = cpu_ticks()
    time.sleep(seconds)  # the span measured
    busy_after, total_after = cpu_ticks()
    return round((busy_after - busy) / max(1, total_after - total), 3)


def choose(only):
    names = [bench.name for bench in plan.BENCHES]
    unknown = set(only) - set(names)
    if unknown:
        raise SystemExit(f"bench/run: no such bench: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return [bench for bench in plan.BENCHES if not only or bench.name in only]


FACTS = ("host", "commit", "qemu", "quick")  # of each bench: others may stay from an earlier run


def known_before(folder):
    """What an earlier run left: the states of its benches, each with its facts."""
    try:
        run = load_json(folder / "run.json")
        return {name: {**{fact: run[fact] for fact in FACTS}, **state} for name, state in run["benches"].items()}
    except (ResultError, KeyError):
        return {}


def end_by_exception(_, __):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--build", type=pathlib.Path, help="a build folder; default: builds build/release")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--patience", type=float, default=1, help="factor on how long each bench may take")
    options = parser.parse_args()
    chosen = choose(options.only)
    signal.signal(signal.SIGTERM, end_by_exception)
    options.build = options.build.resolve() if options.build else build()
    facts = {"host": host(), "commit": commit(options.build), "qemu": qemu.version(), "quick": options.quick}
    out = (options.out or ROOT / ("build/bench" if options.quick else "bench")).resolve()
    folder = out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    states = known_before(folder)
    interrupted = False
    try:
        run_all(chosen, options, facts, folder, states)
    except KeyboardInterrupt:
        interrupted = True
        say("interrupted: of what had not ended, what was there stays")
    try:
        if states:
            say(f"written: {results.write(out, folder)}")
    except ResultError as error:
        say(f"no page: {error}")
        return 1
    if interrupted:
        return 130
    bad = [bench.name for bench in chosen if states[bench.name]["state"] == "failed"]
    if bad:
        say(f"failed: {', '.join(bad)}")
    return 1 if bad else 0


def run_all(chosen, options, facts, folder, states):
    """Each bench in its turn; adds its state, and writes all of them down."""
    for number, bench in enumerate(chosen, 1):
        say(f"[{number}/{len(chosen)}] {bench.name}")
        busy = busy_share(0.1 if options.quick else 2)
        state = (attempt_between_costs if bench.bounded else attempt)(bench, options, folder)
        state = {**state, "why": placeless(state["why"], options.build), **facts, "busy_before": busy}
        say(f"  {state['state']} after {state['seconds']:.0f} s {state['why']}")
        if state["state"] == "skipped" and states.get(bench.name, {}).get("state") == "ok":
            say(f"  what {states[bench.name]['commit']} left stays")
            continue
        states[bench.name] = state
        write_json(folder / "run.json", {**facts, "benches": states})
