"""QEMU's live migration with XBZRLE beside Romulus's full sync and deltas, on loopback.

    migration.py --build FOLDER [--fill-mib 768] [--seconds 5] [--json FILE]

First copy: MiB of the guest's memory that is not zero, by the time in which it is all on the other side for the
first time, while the guest runs. Of both, the other side's memory was written before: on a virtual machine the first
touch of a page can take longer than the rest. QEMU has it in its page tables then, too; Romulus's node has not.

Re-dirtied working set: bytes that a page costs of which a few times 8 bytes changed, its head of 8 bytes included, by
XBZRLE's own counters and by Romulus's. QEMU only goes round again while the guest writes more than it may send: its
bandwidth is a little below that, which makes a round a quarter of a second long. So far apart are Romulus's checkpoints.
"""

import argparse
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from common import SKIPPED, host, ratio, say, tsc_word, write_json
import netns
import pair as pairlib
import peers
import qemu

WORKING_SET_PAGES = 4096
CACHE_MIB = 512
WRITES_PER_S = 16000  # of the re-dirtied working set
INTERVAL_US = 250_000  # no longer, because the guest's words, each report_ms, end one, too
# A page of which 8 bytes changed takes some 23: if all were sent at once they would be 370 KB/s.
SUSTAINED_BYTES_PER_S = 280_000
FILL_BYTES_PER_S = 12 << 20  # so slow that the guest has written every page before the first round is over
HEAD_BYTES = 8  # of a page in QEMU's stream, which its counter of XBZRLE's bytes leaves out
PAGE_BYTES = 4096


def words(fill_mib, rate):
    return (f"workload=uniform bytes=8 pages={fill_mib << 8} rate={rate} verify=0 fill=1 report_ms=250 clock=1"
            " lsr=0" + tsc_word())


def first_copy_qemu(options):
    """All of the migration, of which the last rounds are a few pages and the guest's start over there."""
    memory_mib = options.fill_mib + 128
    with qemu.Couple(options.kernel, words(options.fill_mib, 100), memory_mib, "tcp") as couple:
        couple.source.await_console("the guest's first steps", peers.ready)
        on, parameters = qemu.migrate_settings(CACHE_MIB, **{"max-bandwidth": 10 << 30, "downtime-limit": 300})
        couple.begin(on, parameters, prealloc=True)
        done = couple.await_state("completed")
    ram = done["ram"]
    return {"seconds": done["total-time"] / 1e3, "downtime_ms": done.get("downtime"), "mbps": ram.get("mbps"),
            "bytes": ram["transferred"], "rounds": ram.get("dirty-sync-count"),
            "mib_per_s": options.fill_mib / (done["total-time"] / 1e3)}


def bandwidth(ram):
    """For XBZRLE to go on for ever. In the first round pages are sent whole, in the second one they come into the
    cache, and whole once more; from the third on they are small, and all would be over at the bandwidth of the first."""
    rounds = ram.get("dirty-sync-count", 0)
    if rounds < 2 or (rounds == 2 and ram["remaining"] > 1536 << 10):
        return FILL_BYTES_PER_S
    return SUSTAINED_BYTES_PER_S * {2: 8, 3: 2}.get(rounds, 1)


def xbzrle_figures(before, after, writes):
    """From two answers of query-migrate and the guest's page writes in between."""
    def gained(part, name):
        return after[part][name] - before[part][name]
    hits, small, missed = (gained("xbzrle-cache", name) for name in ("pages", "bytes", "cache-miss"))
    # Of a hit that turned out not to have changed nothing is sent: QEMU does not count these.
    sent = (gained("ram", "transferred") - small - missed * (PAGE_BYTES + HEAD_BYTES)) / HEAD_BYTES
    return {"hits": hits, "bytes": small, "cache_miss": missed, "overflow": gained("xbzrle-cache", "overflow"),
            "rounds": gained("ram", "dirty-sync-count"), "sent": round(sent),
            "bytes_per_page": ratio(small + HEAD_BYTES * sent, sent),
            "writes_per_page": ratio(writes, sent)}


def rounds_until(couple, enough):
    """The migration goes on, at the bandwidth that is right, until enough(its state): this state."""
    deadline = time.monotonic() + qemu.PATIENCE_S
    given = None
    while True:
        now = couple.state()
        if now.get("status") not in ("setup", "active") or time.monotonic() > deadline:
            raise qemu.QemuError(f"migration is {now.get('status')} after round "
                                 f"{now.get('ram', {}).get('dirty-sync-count')}")
        right = bandwidth(now.get("ram", {}))
        if right != given:
            given = right
            couple.set(**{"max-bandwidth": given})
        if enough(now):
            return now
        time.sleep(0.02)  # between two questions; its own step is 100 ms


def writes_in(seconds, before, after):
    """Page writes by the guest's own count and clock, of two states of its console; None where it said nothing new."""
    rate = peers.writes_per_s(peers.last_words(before), peers.last_words(after))
    return None if rate is None else rate * seconds


def redirtied_qemu(options):
    with qemu.Couple(options.kernel, words(WORKING_SET_PAGES >> 8, WRITES_PER_S), 128, "tcp") as couple:
        couple.source.await_console("the guest's first steps", peers.ready)
        # With a downtime-limit of 0 QEMU 7.2 never asks which pages were dirtied since, and ends after the first round.
        on, parameters = qemu.migrate_settings(CACHE_MIB >> 2, **{"max-bandwidth": FILL_BYTES_PER_S,
                                                                  "downtime-limit": 1})
        couple.begin(on, parameters)
        before = rounds_until(couple, lambda now: now.get("ram", {}).get("dirty-sync-count", 0) >= 7)
        said, until = couple.source.console(), time.monotonic() + options.seconds
        after = rounds_until(couple, lambda _: time.monotonic() >= until)
        writes = writes_in(options.seconds, said, couple.source.console())
        couple.source.monitor.command("migrate_cancel")
    return xbzrle_figures(before, after, writes)


def touch_replica(secondary):
    """All of the replica's memory is written once, with the zeros that it holds."""
    for link in pathlib.Path(f"/proc/{secondary.pid}/fd").iterdir():
        if os.readlink(link).startswith("/memfd:romulus-guest"):
            with open(link, "r+b", buffering=0) as memory:
                for _ in range(os.fstat(memory.fileno()).st_size >> 20):
                    memory.write(bytes(1 << 20))
            return
    raise pairlib.PairError("the secondary has no replica")


class Events:
    """A node's events as they come: asking again and again, each time with a new process, would take part of the
    processors that the copy is measured on."""

    def __init__(self, node):
        self._follower = subprocess.Popen(
            [str(node.build / "daemon/romulusctl"), "--address", node.address, "events", "--follow", "--json"],
            stdout=subprocess.PIPE, text=True)
        self.await_kind("started")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._follower.kill()
        self._follower.wait()
        self._follower.stdout.close()

    def await_kind(self, kind):
        timer = threading.Timer(pairlib.PATIENCE_S, self._follower.kill)
        timer.start()
        try:
            for line in self._follower.stdout:
                if json.loads(line)["kind"] == kind:
                    return
        finally:
            timer.cancel()
        raise pairlib.PairError(f"no event {kind}")


def first_copy_romulus(options):
    memory_mib = options.fill_mib + 128
    with pairlib.Pair(options.build, command_line=words(options.fill_mib, 100), memory_mib=memory_mib,
                      checkpoint="", failover=peers.FAILOVER) as pair:
        primary = peers.start_primary(pair)
        with Events(primary) as events:
            primary.signal(signal.SIGSTOP)  # it would find the other node at once
            secondary = pair.start_node("beta", "secondary")
            secondary.await_status("an answer", lambda s: True)
            touch_replica(secondary)
            primary.signal(signal.SIGCONT)
            events.await_kind("full_sync_done")
        primary.await_mode("protected")
        seconds = sync_span(primary)
        status = primary.status()
    return {"seconds": seconds, "mib_per_s": options.fill_mib / seconds if seconds else None,
            "bytes_sent": int(status["counters"]["bytes_sent"])}


def sync_span(primary):
    """Seconds that the node's one full sync took, by its own events; they tell the time in milliseconds."""
    lines = primary.ctl("events", "--json", json_output=False).splitlines()
    at = {event["kind"]: datetime.datetime.fromisoformat(event["time"]) for event in map(json.loads, lines)}
    return (at["full_sync_done"] - at["full_sync_begins"]).total_seconds()


def redirtied_romulus(options):
    with pairlib.Pair(options.build, command_line=words(WORKING_SET_PAGES >> 8, WRITES_PER_S), memory_mib=128,
                      checkpoint=f"max_interval_us: {INTERVAL_US} max_dirty_pages: 1000000 "
                                 f"previous_cache_mib: {CACHE_MIB >> 2}",
                      failover=peers.FAILOVER) as pair:
        primary = peers.start_primary(pair)
        peers.protect(pair, primary)
        before, said = primary.status()["counters"], primary.console()
        time.sleep(options.seconds)  # the span measured
        after, writes = primary.status()["counters"], writes_in(options.seconds, said, primary.console())

    def gained(table, name):
        return int(after.get(table, {}).get(name, 0)) - int(before.get(table, {}).get(name, 0))
    names = set(after.get("pages_by_encoding", {}))
    pages = {name: gained("pages_by_encoding", name) for name in names}
    encoded = {name: gained("bytes_by_encoding", name) for name in names}
    total = sum(pages.values())
    return {"pages": pages, "bytes": encoded, "bytes_per_page": ratio(sum(encoded.values()), total),
            "writes_per_page": ratio(writes, total)}


def attempt(what, bench, options):
    """One figure that is not to be had leaves the others alone."""
    try:
        result = bench(options)
    except (qemu.QemuError, pairlib.PairError, OSError, KeyError) as error:
        result = {"failed": str(error)[:1000]}
    say(f"  {what}: {json.dumps(result)[:300]}")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path, help="CMake build folder")
    parser.add_argument("--fill-mib", type=int, default=768, help="of the guest's memory that is not zero")
    parser.add_argument("--seconds", type=float, default=5, help="of the re-dirtied working set")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    if qemu.version() is None:
        say(f"skipped: no {qemu.PROGRAM}")
        return SKIPPED
    netns.enter()
    peers.quick_loopback()
    options.build = options.build.resolve()
    options.kernel = options.build / "guests/ledger.elf"
    report = {"host": host(), "qemu": qemu.version(), "fill_mib": options.fill_mib,
              "first_copy": {"qemu": attempt("first copy, QEMU", first_copy_qemu, options),
                             "romulus": attempt("first copy, Romulus", first_copy_romulus, options)},
              "redirtied": {"qemu": attempt("re-dirtied, XBZRLE", redirtied_qemu, options),
                            "romulus": attempt("re-dirtied, Romulus", redirtied_romulus, options)}}
    if options.json:
        write_json(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
