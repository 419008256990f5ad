#!/usr/bin/env python3
"""kill -9 of the primary at random moments: in full sync, in the middle of epochs, before and after acks.

Each time either the guest goes on in the secondary with an intact ledger and a console stream without gap or
repeat, or, when the kill came before the first epoch was acked, the secondary says that there is nothing to
promote. The moments are drawn from a seed; the first rounds aim at the full sync.
"""

import argparse
import random
import sys
import time

import pair as pairlib


def kill_moment(pair, random_source, in_sync):
    """Starts both nodes and kills the primary; returns (primary, secondary, mode it was in)."""
    if in_sync:
        # The guest fills its memory alone first, so that there is much to copy.
        primary = pair.start_node("alpha", "primary")
        primary.await_status("step 1", lambda s: pairlib.judge_console(primary.console()).get("last"))
        secondary = pair.start_node("beta", "secondary")
        secondary.await_status("the full sync", lambda s: s.get("sync", {}).get("active")
                               or s.get("mode") != "MODE_STANDBY")
        time.sleep(random_source.random() * 0.3)
    else:
        primary, secondary = pair.start_protected()
        time.sleep(random_source.random() * 0.5)  # the random moment itself
    mode = secondary.status().get("mode")
    primary.kill()
    return primary, secondary, mode


def clock_fault(verdict, failover, elapsed_s, between_steps):
    """What is wrong with the guest's clock, if anything: it goes on as if the guest had never stood
    still, so the failover is in it, from the last that was heard of the primary on, and no more.
    between_steps: some step was said before it, so that two steps tell how long it took."""
    silent_ms = int(failover.get("detect_ns", 0)) / 1e6
    guest_ms = verdict["last_ms"] - verdict["first_ms"]
    if between_steps and verdict["longest_ms"] + 1 < silent_ms:
        return f"its clock knows nothing of {silent_ms} ms of silence"
    if guest_ms > elapsed_s * 1010:
        return f"its clock went forward by {guest_ms} ms in {elapsed_s} s"
    return ""


def round_of(build, number, seed, in_sync):
    source = random.Random(seed * 1000 + number)
    vcpus = source.choice([1, 1, 2])
    workload = source.choice(["uniform", "hotcold", "sequential"])
    rate = source.choice([0, 2000, 20000])
    pages = source.choice([2, 64, 1500])
    memory_mib = 32
    fill = 0
    if in_sync:  # so much memory in use that the full sync takes a while
        memory_mib, pages, fill = 512, source.choice([3000, 60_000]), 1
    command_line = (f"workload={workload} pages={pages} rate={rate} fill={fill} report_ms=3 clock=1"
                    f" seed={number + 1}")
    began = time.monotonic()
    with pairlib.Pair(build, command_line=command_line, vcpus=vcpus, memory_mib=memory_mib) as pair:
        primary, secondary, mode = kill_moment(pair, source, in_sync)
        said_before = primary.console()
        # Either it promotes, or it has lost its primary with nothing to promote and says so.
        status = secondary.await_status(
            "a promotion or a clear word",
            lambda s: "last_failover" in s
            or (not s["peer"].get("connected") and s.get("mode") == "MODE_STANDBY"))
        label = f"{vcpus} vCPU {workload} {pages} pages rate {rate}"
        if "last_failover" not in status:
            refused = secondary.ctl("failover", check=False)
            reason = (refused.stderr + status.get("reason", "")).lower()
            good = refused.returncode != 0 and "nothing to promote" in reason
            return good, "nothing to promote", f"{label}: {status.get('reason', '')}"
        last = pairlib.judge_console(said_before).get("last") or 0
        def goes_on(_):
            whole = pairlib.stream_continues(said_before, secondary.console())[1]
            return (pairlib.judge_console(whole).get("last") or 0) >= last + 20
        secondary.await_status("twenty more steps", goes_on)
        joined, whole, explanation = pairlib.stream_continues(said_before, secondary.console())
        verdict = pairlib.judge_console(whole)
        clock = clock_fault(verdict, status["last_failover"], time.monotonic() - began, last > 0)
        good = joined and verdict["good"] and not clock
        detail = explanation if good else f"{explanation} {clock} {verdict}"
        return good, "resumed", f"{label}: killed at step {last}, {detail}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--sync-rounds", type=int, default=None, help="of them in the full sync")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="repeat this one round")
    arguments = parser.parse_args()
    in_sync = arguments.rounds // 5 if arguments.sync_rounds is None else arguments.sync_rounds
    counts = {}
    failed = 0
    rounds = [arguments.only] if arguments.only is not None else range(arguments.rounds)
    for number in rounds:
        try:
            good, outcome, detail = round_of(arguments.build, number, arguments.seed,
                                             number < in_sync)
        except pairlib.PairError as error:
            good, outcome, detail = False, "error", str(error)
        counts[outcome] = counts.get(outcome, 0) + 1
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {number:3} {outcome}: {detail}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    print(f"{len(rounds) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
