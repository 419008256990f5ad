#!/usr/bin/env python3
"""The main job: protect a guest, kill its primary, see it go on. Prints a table; exit code 0 if all holds."""

import argparse
import sys
import time

import pair as pairlib


def us(ns):
    return f"{int(ns) / 1000:,.0f} us"


def ms(ns):
    return f"{int(ns) / 1e6:,.1f} ms"


def table(rows):
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def run(build, seconds, vcpus):
    command_line = "workload=uniform pages=256 rate=20000 report_ms=10"
    with pairlib.Pair(build, command_line=command_line, vcpus=vcpus) as pair:
        print("starting two daemons on loopback and a guest that checks its own memory ...")
        primary, secondary = pair.start_protected()
        print(f"protected; letting it run for {seconds} s ...")
        time.sleep(seconds)  # the show itself
        before = primary.status()
        print(f"kill -9 {primary.pid} (the primary)")
        killed_ns = primary.kill()
        said_before = primary.console()
        after = secondary.await_status("the guest to run here", lambda s: "last_failover" in s)
        last_before = pairlib.judge_console(said_before)
        goal = (last_before.get("last") or 0) + 100
        secondary.await_status(
            "a hundred more steps",
            lambda s: (pairlib.judge_console(pairlib.stream_continues(
                said_before, secondary.console())[1]).get("last") or 0) >= goal)
        joined, whole, explanation = pairlib.stream_continues(said_before, secondary.console())
        verdict = pairlib.judge_console(whole)
        failover = after["last_failover"]
        first_after = (last_before.get("last") or 0) + 1
        counters = before["counters"]
        table([
            ("epochs acked", f"{int(counters['epochs_acked']):,}"),
            ("pages in them", f"{int(counters['pages']):,}"),
            ("bytes sent", f"{int(counters['bytes_sent']):,}"),
            ("pause p50 / p99", f"{us(before['pause']['p50_ns'])} / {us(before['pause']['p99_ns'])}"),
            ("time to detect", ms(failover.get("detect_ns", 0))),
            ("time to activate", ms(failover["activate_ns"])),
            ("last step released before the kill", last_before.get("last")),
            ("first step after", first_after),
            ("steps now", verdict.get("last")),
            ("console stream", explanation),
            ("ledger verdict", "intact" if verdict["good"] else f"BROKEN: {verdict}"),
        ])
        good = joined and verdict["good"] and last_before["good"]
        print("the guest outlived its primary" if good else "FAILED")
        return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--vcpus", type=int, default=1)
    arguments = parser.parse_args()
    try:
        sys.exit(run(arguments.build, arguments.seconds, arguments.vcpus))
    except pairlib.PairError as error:
        print(f"demo failed: {error}", file=sys.stderr)
        sys.exit(1)
