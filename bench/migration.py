"""QEMU's live migration with XBZRLE beside Romulus's full sync and deltas, on loopback.

    migration.py --build FOLDER [--fill-mib 768] [--seconds 5] [--json FILE]

First copy: MiB of the guest's memory that is not zero, by the time in which it is all on the other side for the
first time, while the guest runs. Re-dirtied working set: bytes that a page costs of which 8 bytes changed, by
XBZRLE's own counters and by Romulus's.
"""

import argparse
import datetime
import json
import pathlib
import sys
import time

from common import SKIPPED, host, say, tsc_word, write_json
import netns
import pair as pairlib
import peers
import qemu

WORKING_SET_PAGES = 4096
CACHE_MIB = 512


def words(fill_mib, rate):
    return (f"workload=uniform bytes=8 pages={fill_mib << 8} rate={rate} verify=0 fill=1 report_ms=250 clock=1"
            " lsr=0" + tsc_word())


def first_copy_qemu(options):
    """Until the second round begins: QEMU counts rounds."""
    memory_mib = options.fill_mib + 128
    with qemu.Couple(options.kernel, words(options.fill_mib, 100), memory_mib, "tcp") as couple:
        couple.source.await_console("the guest's first steps", peers.ready)
        on, parameters = qemu.migrate_settings(CACHE_MIB, **{"max-bandwidth": 10 << 30, "downtime-limit": 300})
        couple.begin(on, parameters)
        done = couple.await_state("completed")
    ram = done["ram"]
    return {"seconds": done["total-time"] / 1e3, "downtime_ms": done.get("downtime"), "mbps": ram.get("mbps"),
            "bytes": ram["transferred"], "rounds": ram.get("dirty-sync-count"),
            "mib_per_s": options.fill_mib / (done["total-time"] / 1e3)}


def redirtied_qemu(options):
    """With so little bandwidth that it does not end, and no downtime allowed: rounds over a working set."""
    with qemu.Couple(options.kernel, words(WORKING_SET_PAGES >> 8, 20000), 128, "tcp") as couple:
        couple.source.await_console("the guest's first steps", peers.ready)
        on, parameters = qemu.migrate_settings(CACHE_MIB >> 2, **{"max-bandwidth": 100 << 20, "downtime-limit": 0})
        couple.begin(on, parameters)
        time.sleep(options.seconds + 1)  # the span measured, after the first copy
        cache = couple.state().get("xbzrle-cache", {})
        couple.source.monitor.command("migrate_cancel")
    return {**cache, "bytes_per_page": cache["bytes"] / cache["pages"] if cache.get("pages") else None}


def first_copy_romulus(options):
    memory_mib = options.fill_mib + 128
    with pairlib.Pair(options.build, command_line=words(options.fill_mib, 100), memory_mib=memory_mib,
                      checkpoint="", failover=peers.FAILOVER) as pair:
        primary = peers.start_primary(pair)
        peers.protect(pair, primary)
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
    with pairlib.Pair(options.build, command_line=words(WORKING_SET_PAGES >> 8, 20000), memory_mib=128,
                      checkpoint="max_interval_us: 100000 max_dirty_pages: 1000000", failover=peers.FAILOVER) as pair:
        primary = peers.start_primary(pair)
        peers.protect(pair, primary)
        before = primary.status()["counters"]
        time.sleep(options.seconds)  # the span measured
        after = primary.status()["counters"]

    def gained(table, name):
        return int(after.get(table, {}).get(name, 0)) - int(before.get(table, {}).get(name, 0))
    names = set(after.get("pages_by_encoding", {}))
    pages = {name: gained("pages_by_encoding", name) for name in names}
    encoded = {name: gained("bytes_by_encoding", name) for name in names}
    total = sum(pages.values())
    return {"pages": pages, "bytes": encoded, "bytes_per_page": sum(encoded.values()) / total if total else None}


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
