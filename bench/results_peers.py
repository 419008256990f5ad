"""The sections of RESULTS.md about peers: measured in the same run, and published."""

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
    "progress": ("progress", None, False, share),
    "cpu_share": ("processor, both sides", None, True, share),
}
MODES = {"fastest": "as often as it can", "modest": "every {} ms"}


def factor(value):
    return f"{value:.1f}x" if value >= 1 else f"1/{1 / value:.1f}" if value > 0 else "0"


def goal_text(goal):
    return "" if goal is None else f" (goal {factor(goal)})"


def rated(load, mode, measure):
    """Romulus / COLO, in bold where it misses its goal."""
    goal, most = MEASURES[measure][1:3]
    found = load["ratios"][mode][measure]
    if found["median"] is None:
        return "-"
    text = spread(found, factor)
    return text if goal is None else verdict(found["median"], goal, lambda _: text, most)


def load_name(load):
    return f"{load['pages_per_s']:,}" if load["pages_per_s"] else "flat out"


def colo_section(data, _):
    lines = [f"The same guest under both, by turns ({data['qemu']}): {data['memory_mib']} MiB, one vCPU, 8-byte "
             f"writes to random pages of {data['working_set_mib']} MiB. COLO periodic, over a Unix socket, without disks and "
             "comparing; its bytes counted over TCP with XBZRLE, both with a cache of "
             f"{data['cache_mib']} MiB. **COLO runs the secondary's guest as well**, which on few cores costs it "
             "part of its p99; its pause is counted from when the vCPU stands, Romulus's from the request. Medians, and the "
             "range of the repeats."]
    for mode, title in MODES.items():
        heads = ["pages/s", "measure", "COLO", "Romulus", "Romulus / COLO"]
        rows = []
        for load in data["loads"]:
            for measure, (name, goal, _, text) in MEASURES.items():
                medians = load["medians"]
                rows.append([load_name(load), name + goal_text(goal), spread(medians["colo"][mode][measure], text),
                             spread(medians["romulus"][mode][measure], text), rated(load, mode, measure)])
        lines += ["", f"### {title.format(data['modest_ms'])}", "", *table(heads, rows)]
    lines += ["", "### Failover", "", "COLO: from the kill, and `x-colo-lost-heartbeat` right behind it, until its guest "
              "runs; it has no detector. Romulus: from the decision until its vCPUs run (goal: 5 ms at the median); to "
              "notice that the primary is dead took it the configured second.", "",
              *table(["pages/s", "COLO's smallest delay", "COLO", "Romulus"], [
                  [load_name(load), spread(load["medians"]["colo"]["delay_ms"], lambda v: f"{v:.0f} ms"),
                   *(spread(load["medians"][vmm]["failover_ms"], lambda v: amount(v, "ms"))
                     for vmm in ("colo", "romulus"))] for load in data["loads"]])]
    for load in data["loads"]:
        lines += [f"- failed at {load_name(load)}: {each['vmm']}: {each['why'][:200]}" for each in load["failed"]]
    return [*lines, "", "![peers](results/peers.svg)", "", "### Published, not measured here", "",
            *table(["who", "what"], [list(each) for each in PUBLISHED])]


def field(data, part, who, name, text):
    found = data[part][who]
    if "failed" in found:
        return "failed: " + found["failed"].splitlines()[0][:120]
    return text(found[name]) if found.get(name) is not None else "-"


def migration_section(data, _):
    rows = [[f"first copy of {data['fill_mib']} MiB, the guest running",
             *(field(data, "first_copy", who, "mib_per_s", lambda v: f"{v:,.0f} MiB/s")
               for who in ("qemu", "romulus"))],
            ["a page of which 8 bytes changed",
             *(field(data, "redirtied", who, "bytes_per_page", lambda v: f"{v:.1f} bytes")
               for who in ("qemu", "romulus"))]]
    return ["QEMU with XBZRLE over loopback.", "", *table(["", "QEMU", "Romulus"], rows)]
