"""The sections of RESULTS.md about peers: measured in the same run, and published."""

import peers
from tables import amount, share, spread, table, verdict

# What was measured elsewhere, by others, under their conditions.
PUBLISHED = (
    ("Remus, NSDI 2008", "up to 40 checkpoints/s; each packet waits for its epoch"),
    ("the dirty ring's first authors", "2,500 checkpoints/s (a product of their own; conditions not stated)"),
    ("QEMU COLO with multifd, 2026", "pause 24.3 ms, then 14.1 ms in the mean, loaded, at 600 ms intervals, 10 GbE, "
                                     "RAM only"),
    ("VMware FT, 2010", "lag below 100 ms (record and replay)"),
)
# measure: (what it is called, goal of Romulus / COLO, at most?, how it is written)
MEASURES = {
    "checkpoints_per_s": ("checkpoints/s", 15, False, lambda v: f"{v:,.0f}"),
    "pause_p50_ms": ("pause p50", 1 / 8, True, lambda v: amount(v, "ms")),
    "pause_p99_ms": ("pause p99", 1 / 15, True, lambda v: amount(v, "ms")),
    "bytes_per_checkpoint": ("bytes a checkpoint", 1 / 2, True, lambda v: f"{v:,.0f}"),
    "writes_per_s": ("page writes/s", None, False, lambda v: f"{v:,.0f}"),
    "bytes_per_write": ("bytes a page write", None, True, lambda v: f"{v:,.1f}"),
    "progress": ("progress", None, False, share),
    "cpu_share": ("processor, both sides", None, True, share),
}
SAME_WORK = 0.1  # page writes/s that are fewer by no more
MODES = {"fastest": "as often as it can", "modest": "every {} ms"}


def factor(value):
    return f"{value:.1f}x" if value >= 1 else f"1/{1 / value:.1f}" if value > 0 else "0"


def goal_text(goal):
    return "" if goal is None else f" (goal {factor(goal)})"


def goal_of(mode, measure):
    """None for the rate where both were given the same."""
    return None if (mode, measure) == ("modest", "checkpoints_per_s") else MEASURES[measure][1]


def less_work(load, mode, measure):
    """Whether Romulus's guest wrote fewer pages than COLO's while that was measured, or nobody knows."""
    writes = "counted_writes_per_s" if measure == "bytes_per_checkpoint" else "writes_per_s"
    found = load["ratios"][mode][writes]["median"]
    return found is None or found < 1 - SAME_WORK


def rated(load, mode, measure):
    """Romulus / COLO, in bold where it misses its goal. One that is reached with less work is not reached."""
    goal, most = goal_of(mode, measure), MEASURES[measure][2]
    found = load["ratios"][mode][measure]
    if found["median"] is None:
        return "-"
    text = spread(found, factor)
    if goal is None:
        return text
    told = verdict(found["median"], goal, lambda _: text, most)
    return f"{text}, of less work" if told == text and less_work(load, mode, measure) else told


def load_name(load):
    return f"{load['pages_per_s']:,}" if load["pages_per_s"] else "flat out"


HOW = """The same guest under both, by turns ({qemu}): {memory_mib} MiB, one vCPU, 8-byte writes to random pages of
{working_set_mib} MiB. COLO is periodic, over a Unix socket, without disks and comparing; its bytes are counted over TCP
with XBZRLE, both with a cache of {cache_mib} MiB. **COLO runs the secondary's guest as well**, which on few cores
costs it part of its p99. Its pause is counted from when the vCPU stands, Romulus's from when it was to stop. {cpus}
Both get the same interval at the most; Romulus also ends an epoch when the guest says something. Bytes are of a
checkpoint, of which one side makes many more; a page write's are beside them. The goals are for the same work: what
reaches one with a guest that wrote fewer pages than COLO's, by more than a tenth, has not reached it (*of less work*).
Romulus's pauses are of its last
4,096 epochs. Medians, and the range of the repeats."""
CPUS = {True: "Both have their guest's vCPU on a CPU of its own, and all else on the others.",
        False: "Romulus's vCPU has a CPU of its own (`cpus`); COLO's threads are where the scheduler puts "
               "them: divided alike, it made more checkpoints, of longer pauses, and its guest hardly ran."}
FAILOVER = """COLO: from the kill, and `x-colo-lost-heartbeat` right behind it, until its guest runs; it has no detector.
Romulus: from the decision until its vCPUs run (goal: 5 ms at the median), and how long it took to notice, with a
heartbeat_timeout_ms of 1,000."""


def measure_rows(data, mode):
    for load in data["loads"]:
        colo, romulus = (load["medians"][vmm][mode] for vmm in ("colo", "romulus"))
        for measure, (name, _, _, text) in MEASURES.items():
            yield [load_name(load), name + goal_text(goal_of(mode, measure)), spread(colo[measure], text),
                   spread(romulus[measure], text), rated(load, mode, measure)]


def failover_rows(data):
    for load in data["loads"]:
        colo, romulus = (load["medians"][vmm] for vmm in ("colo", "romulus"))
        yield [load_name(load), *(spread(found, lambda ms: amount(ms, "ms")) for found in (
            colo["delay_ms"], colo["failover_ms"], romulus["failover_ms"], romulus["detect_ms"]))]


def colo_section(data, _):
    for load in data["loads"]:
        peers.judge(load)  # by what is held to be a measure now
    lines = HOW.format(cpus=CPUS[data["colos_cpus_divided"]], **data).splitlines()
    for mode, title in MODES.items():
        lines += ["", f"### {title.format(data['modest_ms'])}", "",
                  *table(["guest's pages/s", "measure", "COLO", "Romulus", "Romulus / COLO"],
                         list(measure_rows(data, mode)))]
    lines += ["", "### Failover", "", *FAILOVER.splitlines(), "",
              *table(["guest's pages/s", "COLO's smallest delay", "COLO", "Romulus", "noticed after"],
                     list(failover_rows(data)))]
    for load in data["loads"]:
        lines += [f"- failed at {load_name(load)}: {each['vmm']}: {each['why'][:200]}" for each in load["failed"]]
    return [*lines, "", "### Published, not measured here", "",
            *table(["who", "what"], [list(each) for each in PUBLISHED])]


def field(data, part, who, name, text):
    found = data[part][who]
    if "failed" in found:
        return "failed: " + found["failed"].splitlines()[0][:120]
    return text(found) if found.get(name) is not None else "-"


def redirtied(found):
    writes = found.get("writes_per_page")
    return f"{found['bytes_per_page']:.1f} bytes" + ("" if writes is None else f" ({writes:.1f} writes)")


def beside(data, part, name, text, most=False):
    """QEMU's and Romulus's, which is bold if it is behind."""
    qemu, romulus = (field(data, part, who, name, text) for who in ("qemu", "romulus"))
    figures = [data[part][who].get(name) for who in ("qemu", "romulus")]
    return [qemu, romulus if None in figures else verdict(figures[1], figures[0], lambda _: romulus, most)]


def migration_section(data, _):
    rows = [[f"first copy of {data['fill_mib']} MiB, the guest running",
             *beside(data, "first_copy", "mib_per_s", lambda found: f"{found['mib_per_s']:,.0f} MiB/s")],
            ["a page that was written again, 8 bytes at a time",
             *beside(data, "redirtied", "bytes_per_page", redirtied, most=True)]]
    return ["QEMU with XBZRLE over loopback. The first copy is into memory that was touched before, and that QEMU also "
            "has in its page tables. A page that was written again: both with a cache as large as the guest, so that all has "
            "been sent before; its bytes are with its head of 8, by the counters of each, and how often it was written "
            "since the last round or checkpoint is in brackets. Of a guest larger than Romulus's cache those pages that did "
            "not fit are sent whole once more after the full sync.", "", *table(["", "QEMU", "Romulus (goal: not behind)"], rows)]
