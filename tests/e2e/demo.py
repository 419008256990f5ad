#!/usr/bin/env python3
"""The main job: protect a guest, kill its primary, see it go on. Prints a table; exit code 0 if all holds."""

import argparse
import contextlib
import sys
import tempfile
import time

import demo_guests
import pair as pairlib
from demo_guests import images


def us(ns):
    return f"{int(ns) / 1000:,.0f} us"


def ms(ns):
    return f"{int(ns) / 1e6:,.1f} ms"


def table(rows):
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def run(build, seconds, vcpus, guest_type, slowness):
    failover = (f"auto_failover: true heartbeat_interval_ms: {20 * slowness} "
                f"heartbeat_timeout_ms: {400 * slowness}")
    checkpoint = f"max_interval_us: {2000 * slowness} min_interval_us: {500 * slowness}"
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="romulus-demo-"))
        guest = guest_type(build, scratch, vcpus)
        pair = stack.enter_context(pairlib.Pair(build, failover=failover, checkpoint=checkpoint,
                                                **guest.options))
        print(f"starting two daemons on loopback and {guest.name} ...")
        primary, secondary = pair.start_protected()
        primary.await_console("its first step", lambda said: guest.judge(said)[0])
        print(f"protected; letting it run for {seconds} s ...")
        time.sleep(seconds)  # the show itself
        before = primary.status()
        print(f"kill -9 {primary.pid} (the primary)")
        primary.kill()
        said_before = primary.console()
        after = secondary.await_status("the guest to run here", lambda s: "last_failover" in s)
        last_before, good_before, _ = guest.judge(said_before)
        goal = (last_before or 0) + guest.steps_to_see

        def goal_reached(said):
            return (guest.judge(pairlib.stream_continues(said_before, said)[1])[0] or 0) >= goal

        said_after = secondary.await_console(f"{guest.steps_to_see} more steps", goal_reached)
        joined, whole, explanation = pairlib.stream_continues(said_before, said_after)
        last, good, verdict = guest.judge(whole)
        took = after["last_failover"]
        counters = before["counters"]
        table([
            ("epochs acked", f"{int(counters['epochs_acked']):,}"),
            ("pages in them", f"{int(counters['pages']):,}"),
            ("bytes sent", f"{int(counters['bytes_sent']):,}"),
            ("pause p50 / p99", f"{us(before['pause']['p50_ns'])} / {us(before['pause']['p99_ns'])}"),
            ("time to detect", ms(took.get("detect_ns", 0))),
            ("time to activate", ms(took["activate_ns"])),
            ("last step released before the kill", last_before),
            ("first step after", (last_before or 0) + 1),
            ("steps now", last),
            ("console stream", explanation),
            ("guest's verdict", verdict if good else f"BROKEN: {verdict}"),
        ])
        held = joined and good and good_before
        print("the guest outlived its primary" if held else "FAILED")
        return 0 if held else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--vcpus", type=int, default=1)
    parser.add_argument("--slowness", type=int, default=1,
                        help="factor on intervals and timeouts, for an emulated host")
    parser.add_argument("--guest", choices=("auto", "linux", "ledger"), default="auto",
                        help="auto: Linux where the processor has virtualisation, else the ledger")
    arguments = parser.parse_args()
    try:
        sys.exit(run(arguments.build, arguments.seconds, arguments.vcpus,
                     demo_guests.choose(arguments.build, arguments.guest),
                     arguments.slowness))
    except (pairlib.PairError, images.ImageError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        sys.exit(1)
