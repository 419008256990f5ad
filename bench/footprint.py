"""What two protecting daemons cost beside the guest: memory, and everything while the guest does nothing.

    footprint.py --build FOLDER [--seconds 20] [--memory-seconds 20] [--json FILE]

Memory: resident pages of each daemon beyond the guest's own, while a guest of 256 MiB writes 64 MiB of them as
fast as it can, sampled over the whole time. Idle: a halted guest, under the configuration's defaults; processor
time of both daemons, and all bytes on the loopback of a network namespace of the bench's own.
"""

import argparse
import json
import pathlib
import sys
import time

from common import cpu_seconds, host, loopback_bytes, say, write_json
import netns
import pair as pairlib
import peers

SAMPLES = 8
GUEST_MAPPING = "memfd:romulus-guest"
STAGING_MIB, CACHE_MIB = 64, 64  # the configuration's defaults, which limit what is measured


def resident_kib(pid):
    """(guest's, everything else's) of a process, from smaps (proc(5)): what it maps of the guest's memfd is the
    guest's, in however many places it is mapped."""
    guest = other = 0
    in_guest = False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as lines:
        for line in lines:
            word = line.split(maxsplit=1)[0]
            if not word.endswith(":"):
                in_guest = GUEST_MAPPING in line
            elif word == "Rss:":
                kib = int(line.split()[1])
                guest, other = (guest + kib, other) if in_guest else (guest, other + kib)
    return guest, other


def sample(daemons):
    found = {}
    for role, daemon in daemons.items():
        guest, other = resident_kib(daemon.pid)
        found[role] = {"guest_mib": guest / 1024, "beyond_mib": other / 1024}
    return found


def memory(options):
    with pairlib.Pair(options.build, command_line=peers.guest_words(0), memory_mib=peers.MEMORY_MIB,
                      checkpoint=f"staging_mib: {STAGING_MIB} previous_cache_mib: {CACHE_MIB}",
                      failover=peers.FAILOVER) as pair:
        primary = peers.start_primary(pair)
        secondary = peers.protect(pair, primary)
        daemons = {"primary": primary, "secondary": secondary}
        samples = []
        for _ in range(SAMPLES):
            time.sleep(options.memory_seconds / SAMPLES)  # the span measured
            samples.append(sample(daemons))
        counters = primary.status()["counters"]
    result = {"memory_mib": peers.MEMORY_MIB, "seconds": options.memory_seconds, "samples": samples,
              "configured_caches_mib": STAGING_MIB + CACHE_MIB, "epochs": int(counters["epochs_acked"]),
              "pages_per_epoch": int(counters["pages"]) / max(1, int(counters["epochs_acked"]))}
    for role in daemons:
        beyond = [each[role]["beyond_mib"] for each in samples]
        result[role] = {"beyond_mib": max(beyond), "growth_mib": beyond[-1] - beyond[len(beyond) // 2]}
    return result


def audit_bytes(pages):
    """About what the audit's hashes of so many pages are in an epoch, on average: lib/codec/audit_records.h. Pages are
    hashed by 16 that follow each other, so that fewer mean that many epochs have none."""
    return 2 * pages + 16 * max(pages / 64, min(1, pages / 16))


class Look:
    """Counters of both daemons at one moment. Theirs are asked for first: the answer takes a while."""

    def __init__(self, daemons, counters):
        self.counters = counters()
        self.at = time.monotonic()
        self.cpu = sum(cpu_seconds(daemon.pid) for daemon in daemons)
        self.loopback = loopback_bytes()


def span(daemons, seconds, counters):
    before = Look(daemons, counters)
    time.sleep(seconds)  # the span measured
    after = Look(daemons, counters)
    took = after.at - before.at
    epochs = after.counters["epochs_acked"] - before.counters["epochs_acked"]
    sent = after.counters["bytes_sent"] - before.counters["bytes_sent"]
    audited = after.counters["audited_pages"] - before.counters["audited_pages"]
    return {"seconds": took, "cpu_share": (after.cpu - before.cpu) / took,
            "loopback_bytes_per_s": (after.loopback - before.loopback) / took, "epochs_per_s": epochs / took,
            "stream_bytes_per_epoch": sent / epochs if epochs else None,
            "epoch_bytes": sent / epochs - audit_bytes(audited / epochs) if epochs else None}


def idle(options, name, checkpoint, least_seconds):
    with pairlib.Pair(options.build, kernel=options.build / "guests/halt.elf", command_line="", memory_mib=64,
                      checkpoint=checkpoint, failover="auto_failover: true") as pair:
        primary = pair.start_node("alpha", "primary")
        primary.await_console("the guest's word", lambda said: b"halt: ready" in said)

        def counters():
            status = primary.status()
            counted = status.get("counters", {})
            return {"audited_pages": int(status.get("audit", {}).get("pages", 0)),
                    **{key: int(counted.get(key, 0)) for key in ("epochs_acked", "bytes_sent")}}

        unprotected = span([primary], options.seconds / 2, counters)
        secondary = peers.protect(pair, primary)
        protected = span([primary, secondary], max(options.seconds, least_seconds), counters)
    say(f"  idle, {name}: alone {100 * unprotected['cpu_share']:.2f} % of a core, protected "
        f"{100 * protected['cpu_share']:.2f} %, {protected['loopback_bytes_per_s']:.0f} B/s, "
        f"{protected['epochs_per_s']:.1f} epochs/s of {protected['stream_bytes_per_epoch'] or 0:.0f} B, "
        f"{protected['epoch_bytes'] or 0:.0f} without the audit's hashes")
    return {"name": name, "unprotected": unprotected, "protected": protected}


# Name, checkpoint { }, and the seconds in which there is an epoch at any rate.
IDLE_ROWS = (("defaults", "", 5), ("two epochs a second", "idle_interval_us: 500000", 3),
             ("an epoch every 20 ms", "idle_interval_us: 0", 0.5),
             ("1,000 epochs/s", "max_interval_us: 1000 idle_interval_us: 0", 0.5))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path, help="CMake build folder")
    parser.add_argument("--seconds", type=float, default=20, help="idle, per row")
    parser.add_argument("--memory-seconds", type=float, default=20, help="3600 shows whether it is flat over an hour")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    netns.enter()
    netns.ip("link", "set", "lo", "up")
    options.build = options.build.resolve()
    report = {"host": host(), "idle": [idle(options, *row) for row in IDLE_ROWS], "memory": memory(options)}
    for role in ("primary", "secondary"):
        found = report["memory"][role]
        say(f"  memory, {role}: {found['beyond_mib']:.1f} MiB beyond the guest, {found['growth_mib']:+.1f} MiB in "
            "the second half")
    if options.json:
        write_json(options.json, report)
    else:
        print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
