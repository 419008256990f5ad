#!/usr/bin/env python3
"""Checks the model of arbitration with spin, in several settings, and that broken variants of it are caught.

    check.py [--only SETTING ...] [--faults NAME=N ...]      budgets of the model, for all settings: CRASHES=2, ...

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
# What happens -> budgets. One with all would be too large; each is looked at wholly.
SETTINGS = {
    "failover": ["CRASHES=1", "BREAKS=2", "LOST_ANSWERS=1", "OUTAGES=1"],
    "second_path": ["SECOND_PATH", "DEAF=1", "CRASHES=1", "BREAKS=1", "LOST_ANSWERS=1", "OUTAGES=1"],
    "switchover": ["SWITCHOVERS=1", "CRASHES=1", "BREAKS=1", "LOST_ANSWERS=1", "OUTAGES=1"],
    "failed_switchover": ["SWITCHOVERS=1", "FAILED_PROMOTIONS=1", "CRASHES=0", "BREAKS=1", "LOST_ANSWERS=1",
                          "OUTAGES=0"],
    "given_back": ["REPLICAS_LOST=1", "FAILED_PROMOTIONS=1", "CRASHES=0", "BREAKS=1", "LOST_ANSWERS=1", "OUTAGES=1"],
}
# What is broken -> the setting and the property that must notice.
BROKEN = {
    "RELEASE_BEFORE_ACK": ("failover", "safe"),
    "PROMOTE_WITHOUT_ARBITER": ("failover", "safe"),
    "ACCEPT_WHILE_ASKING": ("switchover", "again"),
    "START_WITHOUT_TOUCH": ("failover", "again"),
    "FORGET_CLAIM": ("second_path", "again"),
    "WITHDRAW_WITHOUT_TOUCH": ("second_path", "again"),
    "SWITCHOVER_WITHOUT_RECORD": ("switchover", "safe"),
    "FENCE_WHEN_UNSURE": ("switchover", "safe"),
    "KEEP_LOST_TERM": ("failed_switchover", "again"),
}


class Verifier:
    """The model as a program that looks at every state."""

    def __init__(self, budgets):
        self._folder = tempfile.TemporaryDirectory()
        self._run(["spin", "-a", *[f"-D{define}" for define in budgets], str(MODEL)])
        self._run(["cc", "-O1", "-DNFAIR=4", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}", "-o", "pan", "pan.c"])

    def look(self, name):
        return Search(self._run(["./pan", "-a", f"-m{DEPTH}", *PROPERTIES[name]]))

    def close(self):
        self._folder.cleanup()

    def _run(self, command):
        done = subprocess.run(command, cwd=self._folder.name, timeout=TIMEOUT_S, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}")
        return done.stdout


class Search:
    """What one run found: how many errors, states, and whether it saw them all."""

    def __init__(self, out):
        self.errors = int(re.search(r"errors: (\d+)", out)[1])
        self.states = int(float(re.search(r"([\d.e+]+) states, stored", out)[1]))
        self.whole = not re.search(r"not completed|truncated|max search depth too small|out of memory", out)
        self.found = next((line for line in out.splitlines() if line.startswith("pan:1:")), "")


def holds(setting, budgets):
    verifier = Verifier(budgets)
    failed = 0
    for name in PROPERTIES:
        search = verifier.look(name)
        good = search.errors == 0 and search.whole
        failed += not good
        print(f"{'ok' if good else 'FAILED':6} {setting}, {name}: {search.states} states, "
              f"{'all of them' if search.whole else 'cut off'} {search.found}", flush=True)
    verifier.close()
    return failed


def is_caught(define, setting, name, budgets):
    verifier = Verifier([*budgets, define])
    search = verifier.look(name)
    verifier.close()
    print(f"{'FAILED' if search.errors == 0 else 'ok':6} {define} is caught by {setting}, {name}: "
          f"{search.found or 'nothing'}", flush=True)
    return search.errors != 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(SETTINGS), choices=list(SETTINGS), metavar="SETTING")
    parser.add_argument("--faults", nargs="*", default=[], metavar="NAME=N")
    arguments = parser.parse_args()

    def budgets(setting):
        mine = {fault.split("=")[0] for fault in arguments.faults}
        return [fault for fault in SETTINGS[setting] if fault.split("=")[0] not in mine] + arguments.faults

    failed = sum(holds(setting, budgets(setting)) for setting in arguments.only)
    for define, (setting, name) in BROKEN.items():
        if setting in arguments.only:
            failed += not is_caught(define, setting, name, budgets(setting))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
