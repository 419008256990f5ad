#!/usr/bin/env python3
"""Checks the model of arbitration with spin, and that three broken variants of it are caught.

    check.py [--faults NAME=N ...]      budgets of the model: CRASHES, BREAKS, LOST_ANSWERS, OUTAGES

Every run is exhaustive: a search that was cut off counts as failed. Needs spin and a C compiler.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

MODEL = pathlib.Path(__file__).resolve().parent / "arbitration.pml"
DEPTH = 1_000_000
MEMORY_MIB = 4096
TIMEOUT_S = 900

# name -> options of pan. The assertions are checked by all.
PROPERTIES = {
    "safe": ["-N", "safe"],
    "again": ["-f", "-N", "again"],  # weak fairness: whoever can go on does
}
# What is broken -> the property that must notice.
BROKEN = {
    "RELEASE_BEFORE_ACK": "safe",
    "PROMOTE_WITHOUT_ARBITER": "safe",
    "ACCEPT_WHILE_ASKING": "again",
}


class Search:
    """One run of the verifier: how many errors, states, and whether it saw them all."""

    def __init__(self, name, budgets):
        with tempfile.TemporaryDirectory() as folder:
            defines = [f"-D{define}" for define in budgets]
            self._run(["spin", "-a", *defines, str(MODEL)], folder)
            self._run(["cc", "-O2", "-DNFAIR=3", f"-DMEMLIM={MEMORY_MIB}", "-o", "pan", "pan.c"], folder)
            out = self._run(["./pan", "-a", f"-m{DEPTH}", *PROPERTIES[name]], folder)
        self.errors = int(re.search(r"errors: (\d+)", out)[1])
        self.states = int(float(re.search(r"([\d.e+]+) states, stored", out)[1]))
        self.whole = not re.search(r"not completed|truncated|max search depth too small|out of memory", out)
        self.found = next((line for line in out.splitlines() if line.startswith("pan:1:")), "")

    @staticmethod
    def _run(command, folder):
        done = subprocess.run(command, cwd=folder, timeout=TIMEOUT_S, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}")
        return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", nargs="*", default=[], metavar="NAME=N")
    budgets = parser.parse_args().faults
    failed = 0
    for name in PROPERTIES:
        search = Search(name, budgets)
        good = search.errors == 0 and search.whole
        failed += not good
        print(f"{'ok' if good else 'FAILED':6} {name}: {search.states} states, "
              f"{'all of them' if search.whole else 'cut off'} {search.found}", flush=True)
    for define, name in BROKEN.items():
        search = Search(name, [*budgets, define])
        failed += search.errors == 0
        print(f"{'FAILED' if search.errors == 0 else 'ok':6} {define} is caught by {name}: "
              f"{search.found or 'nothing'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
