#!/usr/bin/env python3
"""How long a UDP round trip through a guest takes, and how much of it protection adds.

    net_latency.py --build FOLDER [--pings 5000] [--json FILE]

The echo guest (tests/guests/echo) runs under romulusd on a tap; a client on the same host sends pings, so
many at a time. First alone (one node: what it says is let out at once), then protected by a second daemon on loopback
(each reply waits for its epoch's ack). In a network namespace of its own. Nothing is asserted: it measures.
The machine should have nothing else to do: the guest polls, so one processor is always busy.
"""

import argparse
import json
import pathlib
import platform
import socket
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/e2e"))
import netns  # noqa: E402
import pair as pairlib  # noqa: E402

PORT = 7
DEVICES = f'nics {{ tap: "tap-{{node}}" mac: "52:54:00:52:4f:02" announce_ip: "{netns.GUEST_IP}" }} rng: false'


def ping(count, concurrent=1, timeout_s=1.0):
    """Round trips in nanoseconds, so many pings on their way at a time, and how many were not answered."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((netns.GUEST_IP, PORT))
    sock.settimeout(timeout_s)
    times, lost, sent, began = [], 0, 0, {}
    while len(times) + lost < count:
        while sent < count and len(began) < concurrent:
            began[sent] = time.perf_counter_ns()
            sock.send(sent.to_bytes(8, "little") + bytes(8))
            sent += 1
        try:
            number = int.from_bytes(sock.recv(2048)[:8], "little")
        except TimeoutError:
            lost += len(began)
            began.clear()
            continue
        if number in began:  # else a late answer to one that was given up
            times.append(time.perf_counter_ns() - began.pop(number))
    sock.close()
    return times, lost


def row(name, times, lost, seconds, **more):
    times = sorted(times)
    return {"name": name, "pings": len(times), "lost": lost, "seconds": round(seconds, 2),
            "p50_us": statistics.median(times) / 1e3 if times else None,
            "p99_us": times[len(times) * 99 // 100] / 1e3 if times else None,
            "max_us": times[-1] / 1e3 if times else None, **more}


def measure(name, options, counters=lambda: {}):
    """A row for each number of pings at a time."""
    rows = []
    ping(options.warm)
    for concurrent in options.concurrent:
        before, began = counters(), time.monotonic()
        times, lost = ping(options.pings, concurrent)
        seconds = time.monotonic() - began
        after = counters()
        rows.append(row(name, times, lost, seconds, concurrent=concurrent,
                        **{key: int(after[key]) - int(before[key]) for key in before}))
    return rows


def start(pair, node, role):
    daemon = pair.start_node(node, role)
    daemon.await_console("the guest to be ready", lambda said: b" ready\n" in said)
    return daemon


def run(options):
    netns.make_switch(pairlib.NODES)
    arguments = dict(command_line=f"ip={netns.GUEST_IP} port={PORT}", memory_mib=16,
                     kernel=pathlib.Path(options.build).resolve() / "guests/echo.elf", devices=DEVICES,
                     checkpoint=f"max_interval_us: {options.max_interval_us} "
                                f"min_interval_us: {options.min_interval_us}")
    rows = []
    for repeat in range(options.repeats):
        with pairlib.Pair(options.build, **arguments) as pair:
            primary = start(pair, "alpha", "primary")
            rows += measure("unprotected", options)
            secondary = pair.start_node("beta", "secondary")
            secondary.await_status("an answer", lambda s: True)
            primary.await_mode("protected")
            rows += measure("protected", options, lambda: {
                "epochs": primary.status()["counters"]["epochs_acked"]})
    return rows


def print_table(rows):
    print(f"{'':<12} {'at once':>7} {'pings':>7} {'lost':>5} {'p50 us':>9} {'p99 us':>9} {'max us':>9} {'epochs':>8}")
    for each in rows:
        print(f"{each['name']:<12} {each['concurrent']:>7} {each['pings']:>7} {each['lost']:>5} {each['p50_us']:>9.1f}"
              f" {each['p99_us']:>9.1f} {each['max_us']:>9.1f} {each.get('epochs', ''):>8}")
    fewest = min(each["concurrent"] for each in rows)
    medians = {name: statistics.median(r["p50_us"] for r in rows
                                       if r["name"] == name and r["concurrent"] == fewest)
               for name in ("unprotected", "protected")}
    added = medians["protected"] - medians["unprotected"]
    print(f"protection adds {added:,.0f} us at the median, with {fewest} at a time")
    return added


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, help="CMake build folder")
    parser.add_argument("--pings", type=int, default=5000)
    parser.add_argument("--warm", type=int, default=200, help="pings before those that count")
    parser.add_argument("--concurrent", type=lambda text: [int(word) for word in text.split(",")],
                        default=[1, 16, 64], help="pings on their way at a time")
    parser.add_argument("--repeats", type=int, default=3, help="alternations of the two")
    parser.add_argument("--max-interval-us", type=int, default=20000)
    parser.add_argument("--min-interval-us", type=int, default=100)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    netns.enter()
    rows = run(options)
    added = print_table(rows)
    if options.json:
        options.json.write_text(json.dumps({
            "kernel": platform.release(), "max_interval_us": options.max_interval_us,
            "min_interval_us": options.min_interval_us, "added_p50_us": added, "rows": rows},
            indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
