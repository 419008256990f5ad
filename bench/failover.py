#!/usr/bin/env python3
"""How long a guest is gone: from the end of its primary until what it says next leaves the other node.

    failover.py --build FOLDER [--rounds 30] [--timeouts-ms 200,500] [--json FILE]

The ledger guest writes pages as fast as it can and says something all the time. Two daemons on loopback, files as
consoles: the survivor's file grows at once by what the guest had said in acked epochs and nobody had let out, and then by
what it says there. The second growth is taken. A killed primary's connection ends with it, and no timeout runs; one
that is frozen (SIGSTOP) is as silent as one whose host is gone. Nothing is asserted: it measures.
"""

import argparse
import pathlib
import random
import signal
import sys
import time

from common import host, numbers, quantile, say, tsc_word, write_json
import pair as pairlib

PAGES = 2000
CHECKPOINT = "max_interval_us: 2000 min_interval_us: 500"
HEARTBEAT_MS = 20
HOW = {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}


def size_of(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def await_growth(path, size, limit_s):
    """(monotonic ns, size) when the file was first seen larger, looked at without rest."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if (now := size_of(path)) > size:
            return time.monotonic_ns(), now
        time.sleep(0.0001)
    raise pairlib.PairError(f"{path} did not grow in {limit_s} s")


def round_of(options, how, timeout_ms, moments):
    """{activate_ms, detect_ms, first_output_ms} of one failover."""
    failover = f"auto_failover: true heartbeat_interval_ms: {HEARTBEAT_MS} heartbeat_timeout_ms: {timeout_ms}"
    with pairlib.Pair(options.build, command_line=f"workload=uniform pages={PAGES} report_ms=1{tsc_word()}",
                      memory_mib=options.memory_mib, checkpoint=CHECKPOINT, failover=failover) as pair:
        primary, secondary = pair.start_protected()
        primary.await_status("epochs", lambda s: int(s["counters"]["epochs_acked"]) > 200)
        time.sleep(moments.random() * 0.1)  # the random moment itself
        size = size_of(secondary.console_path)
        # Reaped later: to wait for its end takes longer than what is measured.
        ended_ns = primary.signal(HOW[how])
        _, size = await_growth(secondary.console_path, size, options.limit_seconds)
        seen_ns, _ = await_growth(secondary.console_path, size, options.limit_seconds)
        status = secondary.await_status("a promotion", lambda s: "last_failover" in s)["last_failover"]
    return {"activate_ms": int(status["activate_ns"]) / 1e6, "detect_ms": int(status.get("detect_ns", 0)) / 1e6,
            "first_output_ms": (seen_ns - ended_ns) / 1e6}


def row_of(options, how, timeout_ms):
    moments = random.Random(timeout_ms)
    rounds = [round_of(options, how, timeout_ms, moments) for _ in range(options.rounds)]
    row = {"how": how, "timeout_ms": timeout_ms, "rounds": len(rounds), "each": rounds}
    for name in ("activate_ms", "detect_ms", "first_output_ms"):
        values = [each[name] for each in rounds]
        row[name] = {"p50": quantile(values, 0.5), "p99": quantile(values, 0.99), "max": max(values)}
    say(f"  {how}, timeout {timeout_ms} ms, {len(rounds)} times: activation p50 {row['activate_ms']['p50']:.2f}, at most "
        f"{row['activate_ms']['max']:.2f} ms; first output p50 {row['first_output_ms']['p50']:.1f}, at most "
        f"{row['first_output_ms']['max']:.1f} ms")
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path, help="CMake build folder")
    parser.add_argument("--rounds", type=int, default=30, help="kills for each timeout")
    parser.add_argument("--timeouts-ms", type=numbers, default=[200, 500], help="heartbeat_timeout_ms")
    parser.add_argument("--memory-mib", type=int, default=64)
    parser.add_argument("--limit-seconds", type=float, default=30, help="for one failover")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    options = parser.parse_args()
    report = {"host": host(), "memory_mib": options.memory_mib, "pages": PAGES,
              "rows": [row_of(options, how, timeout_ms) for how in HOW for timeout_ms in options.timeouts_ms]}
    write_json(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
