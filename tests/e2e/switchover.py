#!/usr/bin/env python3
"""Planned hand-overs: back and forth in one life of the guest, and with either daemon killed in the middle.

No byte of the console is missing, none is said twice, both daemons live on, and the guest is protected again after
each. Prints every pause. Needs /dev/kvm; with --etcd Debian's etcd-server.
"""

import argparse
import os
import random
import statistics
import sys
import threading
import time

import arbitration
import pair as pairlib

MANUAL = "auto_failover: false heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000"


def said_once(first, second):
    """What two nodes' consoles say together, and what is wrong with it: console files are written by position,
    so what a node did not say is a hole (zero bytes), and what both said was said twice."""
    whole = bytearray(max(len(first), len(second)))
    for data in first, second:
        for k, byte in enumerate(data):
            if byte and whole[k]:
                return bytes(whole), f"byte {k} was said by both nodes"
            whole[k] = whole[k] or byte
    hole = bytes(whole).find(0)
    return bytes(whole), f"nobody said byte {hole}" if hole >= 0 else ""


def await_roles(pair, primary, secondary):
    primary.await_status("the guest, protected", lambda s: s["mode"] == "MODE_PROTECTED"
                         and s["role"] == "ROLE_PRIMARY")
    secondary.await_status("a replica", lambda s: s["mode"] == "MODE_PROTECTED"
                           and s["role"] == "ROLE_SECONDARY")


def last_step(pair):
    consoles = [daemon.console() for daemon in pair.daemons.values()]
    return pairlib.judge_console(said_once(*consoles)[0]).get("last") or 0


def back_and_forth(pair, rounds):
    """Returns what is wrong, or an empty text."""
    here, there = pair.start_protected()
    pauses = []
    for number in range(rounds):
        step = last_step(pair)
        here.await_status("steps", lambda s: last_step(pair) >= step + 5)
        answer = here.ctl("switchover")
        if answer["new_primary"] != there.node:
            return f"handed over to {answer['new_primary']}"
        await_roles(pair, there, here)
        pauses.append(int(answer["pause_ns"]) / 1e6)
        seen = there.status()["last_switchover"]
        if (seen["result"], seen["epoch"]) != ("taken_over", answer["epoch"]):
            return f"{there.node} says {seen}, {here.node} said {answer}"
        print(f"ok   {number:3} {here.node} -> {there.node}: epoch {answer['epoch']}, "
              f"pause {pauses[-1]:.1f} ms (there: {int(seen['pause_ns']) / 1e6:.1f} ms)", flush=True)
        here, there = there, here
    step = last_step(pair)
    here.await_status("the guest to go on", lambda s: last_step(pair) >= step + 5)
    here.ctl("pause")  # what it says would move while two files are read
    there.await_status("peace", lambda s: True)
    whole, wrong = said_once(here.settled_console(), there.settled_console())
    verdict = pairlib.judge_console(whole)
    done = [d.status()["last_switchover"]["result"] for d in (here, there)]
    print(f"pauses: median {statistics.median(pauses):.1f} ms, max {max(pauses):.1f} ms, "
          f"{len(pauses)} of {rounds}; last results {done}")
    if wrong or not verdict["good"]:
        return f"{wrong} {verdict}"
    return "" if all(d.alive() for d in pair.daemons.values()) else "a daemon has ended"


def killed_meanwhile(pair, source, with_record):
    """One switchover in which one of the two is killed. Returns (what is wrong, how it went)."""
    here, there = pair.start_protected()
    here.await_status("steps", lambda s: last_step(pair) >= 3)
    victim = source.choice([here, there])
    outcome = []
    asked = threading.Thread(target=lambda: outcome.append(here.ctl("switchover", check=False)))
    asked.start()
    time.sleep(source.random() * 0.06)  # the random moment itself
    victim.kill()
    asked.join()
    survivor = there if victim is here else here
    said = outcome[0]
    label = f"{'primary' if victim is here else 'secondary'} killed, answer {said.returncode}"
    if victim is here:
        # It promotes by the primary's word, by the record, or as its operator says.
        status = survivor.await_status(
            "a decision", lambda s: s["role"] == "ROLE_PRIMARY" or not s["peer"].get("connected"))
        if status["role"] != "ROLE_PRIMARY":
            survivor.ctl("failover", check=False)
    else:
        if said.returncode == 0:
            # The only node that had the guest has died: there is none, and nobody says otherwise.
            survivor.await_status("its loss", lambda s: s["role"] == "ROLE_SECONDARY"
                                  and not s["peer"].get("connected"))
            wrong = said_once(here.console(), there.console())[1]
            return wrong, f"{label}: the guest died with its only host"
        status = survivor.await_status(
            "the loss", lambda s: not s["peer"].get("connected")
            and (s["mode"] != "MODE_DEGRADED" or "stands still" in s["reason"]))
        if status["mode"] == "MODE_DEGRADED":
            label += ", held"
            if any(there.console()):
                # It had the guest, and died before it could say so.
                return said_once(here.console(), there.console())[1], f"{label}: it was heard"
            survivor.ctl("unprotect", "--force")
            survivor.ctl("protect")
    survivor.await_status("the guest", lambda s: s["role"] == "ROLE_PRIMARY"
                          and s["mode"] in ("MODE_SOLO", "MODE_SYNCING", "MODE_PROTECTED"))
    pair.start_node(victim.node, None if with_record else "secondary")
    await_roles(pair, survivor, pair.daemons[victim.node])
    step = last_step(pair)
    survivor.await_status("the guest to go on", lambda s: last_step(pair) >= step + 5)
    survivor.ctl("pause")
    # A node that was killed may have said what the other one says again, as after any failover.
    joined, whole, why = pairlib.stream_continues(
        pair.daemons[victim.node].console(), survivor.settled_console())
    verdict = pairlib.judge_console(whole)
    return "" if joined and verdict["good"] else f"{why} {verdict}", label


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--rounds", type=int, default=4, help="hand-overs of one guest")
    parser.add_argument("--kills", type=int, default=4, help="of guests that lose a daemon meanwhile")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="repeat this one kill")
    parser.add_argument("--etcd", action="store_true")
    arguments = parser.parse_args()
    if not os.path.exists("/dev/kvm"):
        print("skipped: no /dev/kvm")
        return 77
    etcd = arbitration.Etcd() if arguments.etcd else None
    failed = 0
    kills = range(arguments.kills) if arguments.only is None else [arguments.only]
    try:
        def pair():
            arbiter = "" if etcd is None else \
                f' arbiter {{ etcd {{ endpoints: "{etcd.endpoint}" timeout_ms: 1000 }} }}'
            return pairlib.Pair(arguments.build, failover=MANUAL + arbiter,
                                command_line="workload=uniform pages=64 report_ms=5 clock=1",
                                limits="reconnect_max_ms: 300")
        if arguments.rounds and arguments.only is None:
            with pair() as one:
                wrong = back_and_forth(one, arguments.rounds)
            failed += bool(wrong)
            print(f"FAIL {wrong}" if wrong else "ok   said once, by one or the other", flush=True)
        for number in kills:
            with pair() as one:
                source = random.Random(arguments.seed * 1000 + number)
                try:
                    wrong, label = killed_meanwhile(one, source, arguments.etcd)
                except pairlib.PairError as error:
                    wrong, label = str(error), "error"
            failed += bool(wrong)
            print(f"{'FAIL' if wrong else 'ok  '} kill {number:3} {label}: {wrong or 'intact'}",
                  flush=True)
    finally:
        if etcd is not None:
            etcd.end()
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
