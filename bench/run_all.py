"""Runs the benches on this host and writes one page of results.

    bench/run                       about half an hour; the machine should have nothing else to do
    bench/run --quick               short rows: shows that the benches work, not how fast anything is
    bench/run --only peers,codec    these; of the others the figures that are there already stay

Writes OUT/RESULTS.md, and beside it OUT/results/ with each bench's JSON, what it printed, and plots. OUT is
`bench`, of a quick run build/bench. Builds first, unless it is given a build folder. Exit code 1: a bench
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


def attempt(bench, options, folder):
    """One bench: {"state": "ok" | "skipped" | "failed", "why", "seconds"}; its JSON is in the folder if ok."""
    json_path = folder / f"{bench.name}.json"
    json_path.unlink(missing_ok=True)
    words = bench.words(options.build, json_path, folder / f"{bench.name}.tsv", options.quick)
    limit_s = bench.quick_limit_s if options.quick else bench.limit_s
    began = time.monotonic()
    late = threading.Event()
    # Its own session, so that one that is late ends with all its processes.
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          stdin=subprocess.DEVNULL, start_new_session=True,
                          preexec_fn=pairlib.die_with_parent) as process:
        def end():
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        timer = threading.Timer(limit_s * options.patience, end)
        timer.start()
        said = stream(process, folder / f"{bench.name}.txt", options.build)
        code = process.wait()
        timer.cancel()
    state = {"state": "ok", "why": "", "seconds": round(time.monotonic() - began, 1)}
    if code == SKIPPED:
        return {**state, "state": "skipped", "why": said.strip().splitlines()[-1] if said.strip() else ""}
    if late.is_set():
        return {**state, "state": "failed", "why": f"no end within {limit_s * options.patience:g} s"}
    if code != 0:
        return {**state, "state": "failed", "why": f"exit code {code}"}
    try:
        if bench.json_on_stdout:
            json_path.write_text(json_line(said))
        plan.check(bench, load_json(json_path))
        json_path.write_text(placeless(json_path.read_text(), options.build))
    except ResultError as error:
        return {**state, "state": "failed", "why": str(error)}
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
        state = attempt(bench, options, folder)
        if state["state"] == "ok":
            try:
                before = middle(before, costs(options))
            except ResultError as error:
                say(f"  {error}; held to what was measured before it")
            path = folder / f"{bench.name}.json"
            write_json(path, {**load_json(path), "costs": before})
        return state
    except ResultError as error:
        return {"state": "failed", "why": str(error), "seconds": 0}


def commit():
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True,
                          text=True)
    return done.stdout.strip() or "unknown"


def choose(only):
    names = [bench.name for bench in plan.BENCHES]
    unknown = set(only) - set(names)
    if unknown:
        raise SystemExit(f"bench/run: no such bench: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return [bench for bench in plan.BENCHES if not only or bench.name in only]


def known_before(folder):
    """What an earlier run left: the states of its benches."""
    try:
        return load_json(folder / "run.json")["benches"]
    except (ResultError, KeyError):
        return {}


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
    facts = {"host": host(), "commit": commit(), "qemu": qemu.version(), "quick": options.quick}
    options.build = options.build.resolve() if options.build else build()
    out = (options.out or ROOT / ("build/bench" if options.quick else "bench")).resolve()
    folder = out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    states = known_before(folder) if options.only else {}
    for number, bench in enumerate(chosen, 1):
        say(f"[{number}/{len(chosen)}] {bench.name}")
        state = (attempt_between_costs if bench.bounded else attempt)(bench, options, folder)
        state["why"] = placeless(state["why"], options.build)
        state["commit"] = facts["commit"]  # others may stay from an earlier run
        state["load_before"] = facts["host"]["load_before"]
        states[bench.name] = state
        say(f"  {state['state']} after {state['seconds']:.0f} s {state['why']}")
        write_json(folder / "run.json", {**facts, "benches": states})
    try:
        say(f"written: {results.write(out, folder)}")
    except ResultError as error:
        say(f"no page: {error}")
        return 1
    bad = [name for name, state in states.items() if state["state"] == "failed"]
    if bad:
        say(f"failed: {', '.join(bad)}")
    return 1 if bad else 0
