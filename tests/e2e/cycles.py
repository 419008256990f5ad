#!/usr/bin/env python3
"""Kill and protect again, many times over: nothing is lost on the way and nothing grows.

`--victim primary` kills the node that runs the guest, so that the guest changes sides in every cycle; `--victim
secondary` kills the other one, so that one process protects the same guest again and again (that is where a
leak would show). In each cycle the dead node starts again as a secondary, and the pair must be protected
without help. The console is joined from both nodes' files, without a gap or a byte said twice differently.
"""

import argparse
import os
import pathlib
import re
import statistics
import sys
import time

import pair as pairlib

WARM_UP = 5            # cycles before the figures of a process count: pools and arenas fill
RSS_SLACK_KIB = 8192   # of noise between the first and the last quarter
POOL_SLACK = 3         # threads of gRPC's pools, and what they poll, come and go


class Figures:
    """What one process holds: file descriptors, threads, private memory."""

    def __init__(self, pid):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        self.fds = len(os.listdir(f"/proc/{pid}/fd"))
        self.threads = int(re.search(r"^Threads:\s+(\d+)", status, re.M)[1])
        self.anon_kib = int(re.search(r"^RssAnon:\s+(\d+)", status, re.M)[1])


class Stream:
    """The guest's console, joined from the nodes' files: byte k of the stream is byte k of each file."""

    def __init__(self):
        self.whole = bytearray()

    def add(self, said):
        """What is wrong with `said`, if anything."""
        self.whole.extend(bytes(max(0, len(said) - len(self.whole))))
        for begin in range(0, len(said), 4096):  # equal blocks are the rule
            block, mine = said[begin:begin + 4096], self.whole[begin:begin + 4096]
            if block == mine:
                continue
            for k, byte in enumerate(block, begin):
                if byte and self.whole[k] and byte != self.whole[k]:
                    return f"byte {k} was said as {self.whole[k]:#x} and again as {byte:#x}"
                self.whole[k] = self.whole[k] or byte
        hole = self.whole.find(0)
        return f"gap in the stream at byte {hole}" if hole >= 0 else ""


def cycle(pair, running, other, stream, victim):
    """One death and return. Returns (running, other, LastFailover or None, fault)."""
    before = stream.whole.rstrip(b"\0")
    if victim == "primary":
        running.kill()
        dead, survivor = running, other
        status = survivor.await_status("a promotion", lambda s: s["role"] == "ROLE_PRIMARY")
        failover = status["last_failover"]
    else:
        other.kill()
        dead, survivor, failover = other, running, None
        survivor.await_status("the loss", lambda s: not s["peer"].get("connected"))
    fault = stream.add(dead.console())
    back = pair.start_node(dead.node, "secondary")
    survivor.await_mode("protected")
    back.await_mode("protected")
    survivor.await_console("more of the guest", lambda said: len(said) > len(before) + 500)
    return survivor, back, failover, fault or stream.add(survivor.settled_console())


def growth(samples, memory=True):
    """(what grew, or "") between the first and the last quarter of one process's figures."""
    samples = samples[WARM_UP:]
    quarter = len(samples) // 4
    if quarter < 2:
        return ""
    first, last = samples[:quarter], samples[-quarter:]
    grown = []
    for name, slack in (("fds", POOL_SLACK), ("threads", POOL_SLACK),
                        *((("anon_kib", RSS_SLACK_KIB),) if memory else ())):
        # Connections come and go: the least that is held tells what is never given back.
        was, now = (min(getattr(s, name) for s in part) for part in (first, last))
        if now > was + slack:
            grown.append(f"{name} {was} -> {now}")
    return ", ".join(grown)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def report(samples, failovers, seconds):
    for name in ("fds", "threads", "anon_kib"):
        values = [getattr(s, name) for s in samples]
        print(f"{name:9} first {values[0]}, last {values[-1]}, least {min(values)}, most {max(values)}")
    for name in ("detect_ns", "activate_ns"):
        values = [int(f[name]) / 1e6 for f in failovers]
        if values:
            print(f"{name[:-3]:9} ms p50 {statistics.median(values):.2f}, p99 {percentile(values, .99):.2f},"
                  f" most {max(values):.2f} over {len(values)}")
    print(f"{len(samples)} cycles in {seconds:.0f} s")


def run(arguments):
    samples, failovers, stream = [], [], Stream()
    began = time.monotonic()
    command_line = f"workload=hotcold pages=512 rate=4000 report_ms={arguments.report_ms}"
    with pairlib.Pair(arguments.build, command_line=command_line, vcpus=arguments.vcpus,
                      memory_mib=arguments.memory_mib) as pair:
        running, other = pair.start_protected()
        for number in range(arguments.count):
            running, other, failover, fault = cycle(pair, running, other, stream, arguments.victim)
            if fault:
                raise pairlib.PairError(f"cycle {number}: {fault}")
            if failover:
                failovers.append(failover)
            samples.append(Figures(running.pid))
            if sys.stdout.isatty() or number % 20 == 19:
                now = samples[-1]
                print(f"cycle {number + 1}: {running.node} runs, {now.fds} fds, {now.threads} threads,"
                      f" {now.anon_kib} KiB", flush=True)
        verdict = pairlib.judge_console(bytes(stream.whole))
    report(samples, failovers, time.monotonic() - began)
    # A sanitizer keeps what was freed, and shadows of it.
    grown = growth(samples, memory=not pairlib.sanitizer(arguments.build))
    print(f"ledger: {verdict}")
    print(f"growth: {grown or 'none'}")
    return 0 if verdict["good"] and not grown else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--victim", choices=["primary", "secondary"], default="primary")
    parser.add_argument("--vcpus", type=int, default=1)
    parser.add_argument("--memory-mib", type=int, default=32)
    parser.add_argument("--report-ms", type=int, default=20)
    arguments = parser.parse_args()
    try:
        return run(arguments)
    except pairlib.PairError as error:
        print(f"FAIL {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
