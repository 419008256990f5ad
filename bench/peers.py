"""Romulus beside QEMU COLO: the same guest, the same loads, on this host, by turns.

    bench/peers --build FOLDER [--rates 200,2000,20000,0] [--seconds 6] [--repeats 3] [--json FILE]

Per load and repeat each VMM boots the ledger guest (tests/guests), runs it alone, then protects it at 20 ms
between checkpoints and at the smallest delay that works, and is killed: how long until the other one's guest
runs. COLO is in its fairest form: periodic, over a Unix socket, without disks, without a network to compare.
Nobody can count the bytes of a Unix socket; so they are counted in a second session over TCP, with XBZRLE,
in a network namespace of the bench's own whose loopback acks at once (else Nagle stalls it). COLO runs the
secondary's guest too: a guest that never halts takes a second processor from it.

Pause: QMP's STOP to RESUME for COLO, which begins when the vCPU stands; for Romulus from the request to stop it
until it is told to run. Progress: page writes by the guest's own count and clock, as a share of those alone.
"""

import argparse
import json
import pathlib
import re
import sys
import time

from common import (SKIPPED, cpu_seconds, cpus_words, divided_cpus, host, loopback_bytes, numbers, quantile, ratio,
                    say, summary, tsc_word, write_json)
import netns
import pair as pairlib
import qemu

MEMORY_MIB = 256
PAGES = 16384  # 64 MiB of data
CACHE_MIB = 128  # of both: previous versions of pages
MODEST_MS = 20
COLO_DELAYS_MS = (1, 5, 20, 100)  # 0 hangs it
ROMULUS_SHORTEST_US = 100
RECORDS = 4096
STEP = re.compile(rb"^step (\d+) ms (\d+) sum [0-9a-f]+ writes (\d+) vcpus 1 ok\r?$", re.M)
CHECKPOINT = (f"max_interval_us: {MODEST_MS * 1000} min_interval_us: {ROMULUS_SHORTEST_US} "
              f"max_dirty_pages: 1000000 staging_mib: 128 previous_cache_mib: {CACHE_MIB}")
FAILOVER = "auto_failover: true heartbeat_interval_ms: 50 heartbeat_timeout_ms: 1000"


def guest_words(rate):
    return (f"workload=uniform bytes=8 pages={PAGES} rate={rate} verify=0 fill=1 report_ms=250 clock=1 lsr=0"
            + tsc_word())


def last_words(console):
    """(milliseconds, page writes) of the guest's last whole step."""
    found = STEP.findall(console)
    return (int(found[-1][1]), int(found[-1][2])) if found else None


def writes_per_s(before, after):
    if before is None or after is None or after[0] <= before[0]:
        return None
    return (after[1] - before[1]) * 1000 / (after[0] - before[0])


def ready(console):
    return len(STEP.findall(console)) >= 2


def start_primary(pair):
    """A node alone, whose guest has written its memory once."""
    primary = pair.start_node("alpha", "primary")
    primary.await_console("the guest's first steps", ready)
    return primary


def protect(pair, primary):
    """The other node, once the two are in step."""
    secondary = pair.start_node("beta", "secondary")
    secondary.await_status("an answer", lambda s: True)
    primary.await_mode("protected")
    return secondary


class Window:
    """Between its construction and close(): time, processor time, loopback bytes and the guest's words."""

    def __init__(self, pids, console):
        self._pids, self._console = pids, console
        self._began = self._look()

    def _look(self):
        return (time.monotonic(), sum(cpu_seconds(pid) for pid in self._pids), loopback_bytes(),
                last_words(self._console()))

    def close(self):
        began, ended = self._began, self._look()
        seconds = ended[0] - began[0]
        return {"seconds": seconds, "cpu_share": (ended[1] - began[1]) / seconds, "bytes": ended[2] - began[2],
                "writes_per_s": writes_per_s(began[3], ended[3])}


def alone(pids, console, seconds):
    window = Window(pids, console)
    time.sleep(seconds)  # the span measured
    return window.close()["writes_per_s"]


def colo_row(couple, delay_ms, seconds):
    """One delay, measured; a row without checkpoints says that it could not be sustained."""
    couple.set(**{"x-checkpoint-delay": delay_ms})
    time.sleep(0.5)  # the delay before ends
    couple.source.monitor.take_events()
    window = Window(couple.pids(), couple.source.console)
    time.sleep(seconds)  # the span measured
    row = window.close()
    pauses = qemu.pauses_of(couple.source.monitor.take_events())
    return {"delay_ms": delay_ms, "checkpoints_per_s": len(pauses) / row["seconds"], "checkpoints": len(pauses),
            "pause_p50_ms": quantile(pauses, 0.5), "pause_p99_ms": quantile(pauses, 0.99),
            "paused_share": sum(pauses) / 1e3 / row["seconds"],
            "bytes_per_checkpoint": row["bytes"] / len(pauses) if pauses and row["bytes"] else None, **row}


def sustained(row):
    """A row of something that works: checkpoints by the dozen, and a guest that gets on."""
    return row["checkpoints"] >= 10 and (row["writes_per_s"] or 0) > 0


def colo_session(options, rate, transport, delays_ms):
    """{modest, fastest, alone_writes_per_s, failover_ms} of one pair of QEMUs."""
    kernel = options.build / "guests/ledger.elf"
    with qemu.Couple(kernel, guest_words(rate), MEMORY_MIB, transport) as couple:
        source = couple.source
        source.await_console("the guest's first steps", ready)
        if options.divide_colos_cpus:
            couple.divide(*divided_cpus())
        result = {"alone_writes_per_s": alone([source.pid], source.console, options.seconds / 2)}
        qemu.begin_colo(couple, MODEST_MS, CACHE_MIB if transport == "tcp" else 0)
        result["modest"] = colo_row(couple, MODEST_MS, options.seconds)
        for delay_ms in delays_ms:
            result["fastest"] = colo_row(couple, delay_ms, options.seconds)
            if sustained(result["fastest"]):
                break
        if transport == "unix":
            result["failover_ms"] = qemu.fail_over(couple)
    return result


def colo(options, rate):
    """Rate, pause and failover of the Unix socket's session, bytes of the other's."""
    result = colo_session(options, rate, "unix", COLO_DELAYS_MS)
    try:
        counted = colo_session(options, rate, "tcp", [result["fastest"]["delay_ms"]])
        for name in ("modest", "fastest"):
            result[name]["bytes_per_checkpoint"] = counted[name]["bytes_per_checkpoint"]
            result[name]["tcp"] = counted[name]
    except (qemu.QemuError, OSError) as error:
        result["tcp_failed"] = str(error)[:500]
    return result


def romulus_row(primary, secondary, interval_us, seconds):
    primary.ctl("set", "--max-interval-us", str(interval_us))
    before, asked = primary.status()["counters"], time.monotonic()
    window = Window([primary.pid, secondary.pid], primary.console)
    time.sleep(seconds)  # the span measured
    row = window.close()
    status, answered = primary.status(), time.monotonic()
    after = status["counters"]
    epochs = int(after["epochs_acked"]) - int(before["epochs_acked"])
    rate = epochs / (answered - asked)
    # Of the last RECORDS epochs; a window of fewer is looked up one by one.
    pauses = status["pause"] if epochs >= RECORDS else pause_of_last(primary, epochs)
    return {"delay_ms": interval_us / 1e3, "checkpoints_per_s": rate, "checkpoints": epochs,
            "pause_p50_ms": int(pauses["p50_ns"]) / 1e6, "pause_p99_ms": int(pauses["p99_ns"]) / 1e6,
            "pages_per_checkpoint": ratio(int(after["pages"]) - int(before["pages"]), epochs),
            "bytes_per_checkpoint": ratio(row["bytes"] / row["seconds"], rate), **row}


def pause_of_last(primary, epochs):
    listed = primary.ctl("epochs", "--last", str(max(1, epochs)))
    pauses = [int(each["pause_ns"]) for each in listed["epochs"]]
    return {"p50_ns": quantile(pauses, 0.5) or 0, "p99_ns": quantile(pauses, 0.99) or 0}


def romulus(options, rate):
    with pairlib.Pair(options.build, command_line=guest_words(rate), memory_mib=MEMORY_MIB,
                      checkpoint=CHECKPOINT, failover=FAILOVER, limits=f"epoch_records: {RECORDS}",
                      cpus=cpus_words()) as pair:
        primary = start_primary(pair)
        result = {"alone_writes_per_s": alone([primary.pid], primary.console, options.seconds / 2)}
        secondary = protect(pair, primary)
        result["modest"] = romulus_row(primary, secondary, MODEST_MS * 1000, options.seconds)
        result["fastest"] = romulus_row(primary, secondary, ROMULUS_SHORTEST_US, options.seconds)
        primary.kill()
        status = secondary.await_status("a promotion", lambda s: "last_failover" in s)
        failover = status["last_failover"]
        result["failover_ms"] = int(failover["activate_ns"]) / 1e6
        result["detect_ms"] = int(failover.get("detect_ns", 0)) / 1e6
    return result


VMMS = {"colo": colo, "romulus": romulus}
MEASURES = ("checkpoints_per_s", "pause_p50_ms", "pause_p99_ms", "bytes_per_checkpoint", "cpu_share",
            "writes_per_s", "counted_writes_per_s", "bytes_per_write", "progress")


def add_progress(session):
    """What follows from its figures."""
    for name in ("modest", "fastest"):
        row = session[name]
        row["progress"] = ratio(row["writes_per_s"], session["alone_writes_per_s"])
        counted = row.get("tcp", row)  # the session whose bytes were counted, in which the guest may have done less
        sent = counted["bytes_per_checkpoint"]
        row["bytes_per_write"] = ratio(sent * counted["checkpoints_per_s"] if sent else None, counted["writes_per_s"])
        row["counted_writes_per_s"] = counted["writes_per_s"]


def judge(load):
    """Medians over the repeats, and Romulus / COLO of each repeat."""
    sessions = load["sessions"]
    for each in sessions:
        for session in each.values():
            add_progress(session)
    load["medians"] = {vmm: {mode: {measure: summary([s[vmm][mode].get(measure) for s in sessions if vmm in s])
                                    for measure in MEASURES} for mode in ("modest", "fastest")} for vmm in VMMS}
    for vmm in VMMS:
        for measure in ("failover_ms", "detect_ms"):
            load["medians"][vmm][measure] = summary([s[vmm].get(measure) for s in sessions if vmm in s])
        load["medians"][vmm]["delay_ms"] = summary([s[vmm]["fastest"]["delay_ms"] for s in sessions if vmm in s])
    both = [s for s in sessions if all(vmm in s for vmm in VMMS)]
    load["ratios"] = {mode: {measure: summary([ratio(s["romulus"][mode].get(measure), s["colo"][mode].get(measure))
                                               for s in both]) for measure in MEASURES}
                      for mode in ("modest", "fastest")}


def one(vmm, options, rate):
    """A session; one that fails says so and leaves the others alone."""
    try:
        session = VMMS[vmm](options, rate)
        add_progress(session)  # said below
        fastest = session["fastest"]
        say(f"  {vmm:<8} {fastest['checkpoints_per_s']:8.0f}/s  pause {fastest['pause_p50_ms'] or 0:.3f} / "
            f"{fastest['pause_p99_ms'] or 0:.3f} ms  {fastest['bytes_per_checkpoint'] or 0:8.0f} B  "
            f"progress {100 * (fastest['progress'] or 0):5.1f} %  failover {session['failover_ms']:.1f} ms")
        return session
    except (qemu.QemuError, pairlib.PairError, OSError, KeyError) as error:
        say(f"  {vmm:<8} failed: {str(error)[:300]}")
        return {"failed": str(error)[:1000]}


def run(options):
    loads = []
    for rate in options.rates:
        load = {"pages_per_s": rate, "sessions": [], "failed": []}
        for repeat in range(options.repeats):
            say(f"{rate or 'as many as it can'} pages/s, {repeat + 1} of {options.repeats}")
            session = {}
            for vmm in sorted(VMMS, reverse=bool(repeat % 2)):
                result = one(vmm, options, rate)
                if "failed" in result:
                    load["failed"].append({"vmm": vmm, "why": result["failed"]})
                else:
                    session[vmm] = result
            load["sessions"].append(session)
        judge(load)
        loads.append(load)
    return loads


def quick_loopback():
    """Acks at once on loopback: for COLO over TCP, which waits 40 ms for delayed ones otherwise."""
    netns.ip("link", "set", "lo", "up")
    netns.ip("route", "replace", "local", "127.0.0.0/8", "dev", "lo", "table", "local", "proto", "kernel",
             "scope", "host", "src", "127.0.0.1", "quickack", "1")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path, help="CMake build folder")
    parser.add_argument("--rates", type=numbers, default=[200, 2000, 20000, 0],
                        help="pages that the guest writes per second; 0: as many as it can")
    parser.add_argument("--seconds", type=float, default=6, help="measured, per delay")
    parser.add_argument("--repeats", type=int, default=3, help="alternations of the two")
    parser.add_argument("--divide-colos-cpus", action="store_true",
                        help="COLO's guest, too, has a CPU of its own beside all else (its best form has been without)")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    if qemu.version() is None:
        say(f"skipped: no {qemu.PROGRAM}")
        return SKIPPED
    netns.enter()
    quick_loopback()
    options.build = options.build.resolve()
    report = {"host": host(), "qemu": qemu.version(), "colos_cpus_divided": options.divide_colos_cpus,
              "seconds": options.seconds, "memory_mib": MEMORY_MIB,
              "working_set_mib": PAGES * 4 >> 10, "cache_mib": CACHE_MIB, "modest_ms": MODEST_MS,
              "loads": run(options)}
    if options.json:
        write_json(options.json, report)
    else:
        print(json.dumps([{"pages_per_s": load["pages_per_s"], "ratios": load["ratios"]}
                          for load in report["loads"]], indent=1))
    return 0 if all(any(load["sessions"]) for load in report["loads"]) else 1


if __name__ == "__main__":
    sys.exit(main())
