"""Writes RESULTS.md and the plots from the JSON files of a run."""

from common import ResultError, load_json, ratio
import plots
import results_peers
from tables import amount, share, spread, table, verdict

NOT_MEASURED = "Not measured in this run: {}."


# State that is not read if it provably is as it was (vmm/exit_witness.h): no part of a bound.
SPARED = ("xcrs", "debug_registers")


def items_us(costs):
    return sum(us for name, us in costs["vcpu_items_us"].items() if name not in SPARED)


def floor_us(costs, pages, kick=True):
    """The pause that cannot be avoided: the kick, each item of a vCPU's state, a copy of the pages."""
    return (costs["kick_us"] if kick else 0) + items_us(costs) + pages * costs["copy_page_us"]


def cost_us(costs, tracking, pages, kick=True):
    """What an epoch of so many pages takes from the guest at least."""
    return pages * costs["first_write_us"][tracking] + floor_us(costs, pages, kick)


def costs_of(data, others):
    """Those measured beside the bench; else the run's."""
    return data.get("costs") or others.get("kvm_costs")


def costs_lines(data):
    if "costs" not in data:
        return []
    costs = data["costs"]
    return [f"Right before and after, on average: first write {amount(costs['first_write_us']['ring'], 'us')} (ring), "
            f"{amount(costs['first_write_us']['bitmap'], 'us')} (bitmap), stopping a vCPU {amount(costs['kick_us'], 'us')}, "
            f"its state {amount(items_us(costs), 'us')}, copying a page {amount(costs['copy_page_us'], 'us')}; "
            "the bounds follow from these.", ""]


def costs_section(costs, _):
    rows = [["first write to a clean page, ring", amount(costs["first_write_us"]["ring"], "us")],
            ["first write to a clean page, bitmap", amount(costs["first_write_us"]["bitmap"], "us")],
            ["stopping a running vCPU", amount(costs["kick_us"], "us")],
            ["state of a vCPU that does not come with the exit, one ioctl an item", amount(items_us(costs), "us")],
            ["copying a page", amount(costs["copy_page_us"], "us")]]
    return ["The bounds below follow from such costs, measured beside each bench where that says so. An epoch of n "
            "pages takes n first writes, and a pause of one kick, "
            f"the vCPU's items and n copies. Without {' and '.join(SPARED)}, which are mostly not read. A pause can be "
            "shorter: a ring that stops its vCPU at the budget takes no kick, so that the goal's bound can be exceeded; the "
            "bound without a kick stands beside it. Neither has the way out of the guest, nor that into it. Where "
            "there is a kick, state and pages are read side by side, and it is measured from a guest that computes.", "",
            "A pause is counted from when the guest is to stop (a ring that is full: from when its exit reaches the daemon; "
            "an epoch that ends by time: from that time, with the timer's interrupt) until its vCPUs are told to run, and on a "
            "vCPU's own thread until the epoch was handed over.", "",
            *table(["cost", "each"], rows)]


LEAST_RATES = {1: 4500, 5: 3000}  # epochs/s, by first writes


LEAST_RATES_GOAL = f" (goal, ring: {', '.join(f'{rate:,} at {pages}' for pages, rate in LEAST_RATES.items())})"


def rate_row(row, costs):
    dirty = row["dirty_pages_mean"]
    # The last page of a budget is not written yet: its first write counts in the next epoch.
    writes = min(dirty, int(row["pages_per_epoch"])) if row["tracking"] == "ring" else dirty
    least = LEAST_RATES.get(int(row["pages_per_epoch"])) if costs and row["tracking"] == "ring" else None
    cells = [row["tracking"], str(row["pages_per_epoch"]), f"{dirty:.1f}",
             verdict(row["epochs_per_s"], least or 0, lambda rate: f"{rate:.0f}")]
    if costs:
        bound = 1e6 / cost_us(costs, row["tracking"], writes)
        cells += [f"{bound:.0f}", verdict(row["epochs_per_s"] / bound, 0.8, share),
                  share(row["epochs_per_s"] * cost_us(costs, row["tracking"], writes, kick=False) / 1e6)]
    p50, p99 = row["pause"]["p50_us"], row["pause"]["p99_us"]
    cells += [amount(p50, "us"), amount(p99, "us")]
    if costs:
        cells += [verdict(ratio(p50, floor_us(costs, dirty)), 2, ratio_text, most=True),
                  ratio_text(ratio(p50, floor_us(costs, dirty, kick=False)))]
    return cells + [verdict(ratio(p99, p50), 3, ratio_text, most=True), amount(row["ack"]["p50_us"], "us"),
                    share(row["progress_share"]), f"{row['bytes_per_epoch']:.0f}"]


def ratio_text(value):
    return f"{value:.2f}x"


def rate_section(data, others, bounded=True):
    costs = costs_of(data, others) if bounded else None
    heads = ["log", "first writes", "dirty", f"epochs/s{LEAST_RATES_GOAL if costs else ''}", *(["bound", "of it (goal 80 %)", "of one without a kick"] if costs else []),
             "pause p50", "p99", *(["p50 / floor (goal 2x)", "/ floor without a kick"] if costs else []), "p99 / p50 (goal 3x)", "ack p50", "progress",
             "bytes"]
    own_us = [1e6 / row["unprotected_writes_per_s"] for row in data["rows"] if row.get("unprotected_writes_per_s")]
    only = []
    if data.get("only_writes"):
        only = ["The guest does nothing but write: what else it did would count as if it were protection's, as the bound "
                "has none of it.", ""]
    elif own_us and bounded:
        only = [f"The guest verifies a page with each write: {amount(sorted(own_us)[len(own_us) // 2], 'us')} of work of its "
                "own, unprotected, of which the bound has none.", ""]
    return [*costs_lines(data), *only, *table(heads, [rate_row(row, costs) for row in data["rows"]])]


def two_vcpus_section(data, _):
    rows = []
    for line in data["lines"]:
        one, two = (line["vcpus"][count] for count in ("1", "2"))
        rows.append([str(line["pages"]), *(spread_us(one[part]) for part in ("p50_us", "p99_us")),
                     *(spread_us(two[part]) for part in ("p50_us", "p99_us")),
                     verdict(two["tail"]["median"], 3, ratio_text, most=True),
                     verdict(line["pause_ratio"]["median"], 2.5, lambda _, line=line: spread(line["pause_ratio"], ratio_text),
                             most=True),
                     *(f"{each['epochs_per_s']['median']:.0f}" for each in (one, two)), share(two["progress_share"]["median"])])
    return ["One and two by turns, medians and the range of the repeats; the ratio is that of each repeat. The pages are "
            "of all vCPUs together.", "",
            *table(["pages", "pause p50, one", "p99, one", "p50, two", "p99, two", "p99 / p50, two (goal 3x)",
                    "p50, two / one (goal 2.5x)", "epochs/s, one", "two", "progress, two"], rows)]


def spread_us(found):
    return spread(found, lambda us: amount(us, "us"))


def progress_section(data, others):
    costs = costs_of(data, others)
    rows = []
    for row in data["rows"]:
        hot = int(row.get("hot_pages", 0))
        cells = [str(row["pages_per_epoch"]), str(hot) if hot else "-", f"{1e6 / int(row['interval_us']):.0f}", f"{row['epochs_per_s']:.0f}",
                 f"{row['dirty_pages_mean']:.1f}", share(row["progress_share"])]
        if costs:
            bound, spared = (max(0.0, 1 - row["epochs_per_s"] / 1e6
                                 * cost_us(costs, row["tracking"], row["dirty_pages_mean"], kick)) for kick in (True, False))
            # Hot pages take no first write: the bound is another's, nothing to be held to.
            apart = points(row["progress_share"] - bound)
            cells += [share(bound), apart if hot else verdict(row["progress_share"] - bound, -0.10, lambda _, text=apart: text),
                      points(row["progress_share"] - spared)]
        rows.append([*cells, amount(row["pause"]["p50_us"], "us"), f"{row['bytes_per_epoch']:.0f}"])
    heads = ["working set, pages", "may stay writable", "epochs/s wanted", "measured", "dirty", "progress",
             *(["bound", "points from it (goal -10)", "from one without a kick"] if costs else []), "pause p50", "bytes"]
    return ["Where hot pages stay writable they are sent with every epoch and cost the guest no first write, so that it "
            "may get on better than the bound of all first writes, which such a row is not held to; what it costs is in the "
            "pause and in the bytes.", "",
            *costs_lines(data), *table(heads, rows)]


def points(value):
    return f"{100 * value:+.1f}"


def memory_size_section(data, _):
    small, large = (str(mib) for mib in sorted(data["sizes_mib"])[::max(1, len(data["sizes_mib"]) - 1)])
    rows = [[line["tracking"], str(line["pages"]), *(amount(line["pause_p50_us"][mib]["median"], "us")
                                                     for mib in (small, large)),
             verdict(line["pause_ratio"]["median"], 1.1, ratio_text, most=True)
             if line["tracking"] == "ring" else ratio_text(line["pause_ratio"]["median"]),
             *(f"{line['epochs_per_s'][mib]['median']:.0f}" for mib in (small, large))] for line in data["lines"]]
    return table(["log", "pages", f"pause p50, {small} MiB", f"{large} MiB", "ratio (goal 1.1x with the ring)",
                  f"epochs/s, {small} MiB", f"{large} MiB"], rows)


def codec_section(data, _):
    return table(["bench/dirty pages/changed words", "CPU", "bytes an epoch"], [
        [each["name"], f"{each['cpu_time']:.0f} {each['time_unit']}", f"{each.get('bytes_per_epoch', 0):.0f}"]
        for each in data["benchmarks"]])


LINUX_PAGES = ("Those of Linux are of a stock Debian kernel, 256 MiB, emulated by QEMU without KVM and stopped each 50 ms of "
               "running: a sample of all pages that changed between two stops, those that had been zero included. Boot: "
               "from the first instruction to the tests' busybox guest at work. Redis: 20,000 keys of 400 bytes, read and "
               "written half and half, an append-only file on ext4.")


def page_codec_section(data, _):
    peers = {row["corpus"]: row for row in data["rows"] if row["encoder"] == "xbzrle"}
    # The last of ours, the one that this processor chooses, is what the goals are meant for.
    ours = {row["corpus"]: row for row in data["rows"] if row["encoder"] != "xbzrle"}
    rows = []
    for row in data["rows"]:
        peer = peers[row["corpus"]]
        speeds = [ratio(row[field], peer[field]) for field in ("gb_per_s", "cached_gb_per_s")]
        size = ratio(row["bytes_per_page"], peer["bytes_per_page"])
        chosen = row is ours[row["corpus"]]
        # Memory may be the bound of both: then the speed in cache says whether the goal is met, or the other way round.
        missed = chosen and all(speed is None or speed < 5 for speed in speeds)
        from_memory, cached = (verdict(speed, 5, ratio_text) if missed else ratio_text(speed) for speed in speeds)
        rows.append([row["corpus"], row["encoder"], str(row["pairs"]), str(row.get("zero_before", "-")),
                     f"{row['bytes_per_page']:.1f}",
                     verdict(size, 1.15, ratio_text, most=True) if chosen else ratio_text(size),
                     f"{row['gb_per_s']:.2f}", from_memory, f"{row['cached_gb_per_s']:.2f}", cached])
    lines = ["Pages recorded from the ledger guest under three workloads, before and after an epoch. XBZRLE is an "
             "encoder of our own from its documented format. All pages are 32 MiB, so that both encoders wait for memory; "
             "*in cache* are small groups of them, encoded again and again: what an encoder itself costs."]
    if any(name.startswith("linux ") for name in peers):
        lines += ["", LINUX_PAGES]
    return [*lines, "",
            *table(["pages", "encoder", "pairs", "of them zero before", "bytes a page", "size / XBZRLE (goal 1.15x)",
                    "GB/s of pages", "speed / XBZRLE (goal 5x)", "in cache", "speed / XBZRLE in cache (goal 5x)"], rows),
            *compression_lines(data.get("compression", []))]


def compression_lines(rows):
    if not rows:
        return []
    return ["", "What compression makes of bodies of such records, for thin links (`checkpoint { compression }`):", "",
            *table(["pages", "records", "method", "compressed to", "compressing, MB/s", "decompressing, MB/s"], [
                [row["corpus"], row["records"], row["method"], share(row["ratio"]), f"{row['compress_mb_per_s']:.0f}",
                 f"{row['decompress_mb_per_s']:.0f}"] for row in rows])]


# What a row is held against: the bare stream with messages of that row's size, as much else running.
def bare_of(rows, row):
    before = [each for each in rows[:rows.index(row)] if each["name"].startswith("bare") and
              each["guest_runs"] == row["guest_runs"]]
    return before[-1]


def transport_section(data, _):
    rows, lines = data["rows"], []
    scan = next(row for row in rows if row["name"] == "reading zeros")
    for row in rows:
        cells = [row["name"], "yes" if row["guest_runs"] else "no", f"{row['mib_per_s']:,.0f}"]
        if row["name"] == "full sync of zeros":
            cells += [verdict(row["mib_per_s"] / scan["mib_per_s"], 0.9, share) + " of reading them (goal 90 %)"]
        elif row["name"].startswith(("epochs", "full sync")):
            goal = 0.9 if row["name"].startswith("epochs") else 0.8
            cells += [verdict(row["mib_per_s"] / bare_of(rows, row)["mib_per_s"], goal, share)]
        else:
            cells += [""]
        lines.append(cells + ["" if row["guest_runs"] else f"{row['cpu_s_per_gb']:.2f}"])
    return ["Over loopback, so that both ends and the kernel's copying share the processors: nothing but processor time "
            "bounds any of it. A bare stream is gRPC carrying messages that nobody makes or looks at. Pages are random, "
            f"memory is {data['memory_mib']} MiB.", "",
            *table(["", "a guest runs", "MiB/s", "of the bare stream above it (goal: epochs 90 %, sync 80 %)",
                    "CPU-s/GB, both ends"], lines)]


def transport_link_section(data, others):
    text = transport_section(data, others)
    return ["The same behind a link of 5 Gbit/s (a token bucket on the loopback of a network namespace): what an epoch takes "
            "from a network that is slower than two processors are.", "", *text[2:]]


def failover_section(data, _):
    rows = [[row["how"], str(row["timeout_ms"]), str(row["rounds"]), in_ms(row["detect_ms"]["p50"]),
             verdict(row["activate_ms"]["p50"], 5, in_ms, most=True),
             verdict(row["activate_ms"]["max"], 10, in_ms, most=True), in_ms(row["first_output_ms"]["p50"]),
             verdict(row["first_output_ms"]["max"], row["timeout_ms"] + 20, in_ms, most=True)] for row in data["rows"]]
    return ["While its guest writes as fast as it can, the primary is killed, which ends its connection at once, or "
            "frozen, so that only its silence tells. Activation is from the decision until the vCPUs run. First output is "
            "the first that the guest says on the other node.", "",
            *table(["primary", "heartbeat_timeout_ms", "times", "noticed after, p50", "activation p50 (goal 5 ms)",
                    "at most (goal 10 ms at p99)", "first output, p50", "at most (goal: the timeout + 20 ms)"], rows)]


def in_ms(value):
    return amount(value, "ms")


def latency_section(data, _):
    rows = [[row["name"], str(row["concurrent"]), str(row["pings"]), str(row["lost"]), amount(row["p50_us"], "us"),
             amount(row["p99_us"], "us")] for row in data["rows"]]
    added = verdict(data["added_p50_us"] / 1e3, 0.5, lambda ms: f"{ms:.3f} ms", most=True)
    return [*table(["", "at a time", "pings", "lost", "p50", "p99"], rows), "",
            f"Protection adds {added} at the median of one request at a time (goal: 0.5 ms)."]


def whole(value):
    return "-" if value is None else f"{value:.0f}"


def footprint_section(data, _):
    rows = [[row["name"], share(row["unprotected"]["cpu_share"]),
             verdict(row["protected"]["cpu_share"], 0.02, share, most=True), f"{row['protected']['epochs_per_s']:.1f}",
             f"{row['protected']['loopback_bytes_per_s']:.0f}",
             verdict(row["protected"]["stream_bytes_per_epoch"], 512, whole, most=True), whole(row["protected"]["epoch_bytes"])]
            for row in data["idle"]]
    memory = data["memory"]
    limits = {"primary": 64 + memory["configured_caches_mib"], "secondary": 64 + memory["pages_per_epoch"] / 256}
    held = [[role, verdict(memory[role]["beyond_mib"], limits[role], lambda mib: f"{mib:.1f} MiB", most=True),
             f"{limits[role]:.1f} MiB", f"{memory[role]['growth_mib']:+.1f} MiB"] for role in limits]
    return ["A halted guest:", "",
            *table(["", "processor, alone", "both daemons (goal 2 % of a core)", "epochs/s", "loopback B/s",
                    "stream bytes an epoch (goal 512)", "without the audit's hashes"], rows), "",
            "Those hashes (`audit`: two bytes a page, and 16 for each 64 that follow each other in an epoch) are of so many "
            "pages a second, whatever the epochs, and of more pages in a guest with more than the 64 MiB of this one. Bytes "
            "on the loopback are those "
            "of both ways with all heads, heartbeats and acks, for which there is no goal in figures.", "",
            f"Memory beyond the guest's, while it writes as fast as it can for {memory['seconds']:.0f} s; the limit "
            f"is 64 MiB and, on the primary, the configured caches ({memory['configured_caches_mib']} MiB), on the "
            f"secondary, one epoch. The guest has {memory['memory_mib']} MiB: of what grows with it (docs/limits.md) there is "
            "little here.", "", *table(["", "at most", "limit", "growth in the second half"], held), "",
            FLAT if memory["seconds"] >= 3600 else "Whether that is flat over an hour was not measured in this run: "
            "`bench/footprint.py --memory-seconds 3600`."]


FLAT = "The goal is that it is flat over an hour."


SECTIONS = (
    ("kvm_costs", "What cannot be avoided", costs_section),
    ("sustained", "Rate and pause, a minute a row", rate_section),
    ("epoch_rate", "Rate and pause, ring and bitmap", rate_section),
    ("two_vcpus", "Two vCPUs", two_vcpus_section),
    ("progress", "Guest progress", progress_section),
    ("memory_size", "Memory size", memory_size_section),
    ("codec", "Encoding and committing", codec_section),
    ("page_codec", "Changed pages beside XBZRLE", page_codec_section),
    ("transport", "Epochs and full sync beside a bare gRPC stream", transport_section),
    ("transport_link", "Epochs and full sync behind a link of 5 Gbit/s", transport_link_section),
    ("failover", "Failover", failover_section),
    ("net_latency", "Latency through a tap", latency_section),
    ("footprint", "Idle and memory", footprint_section),
    ("peers", "Beside QEMU COLO", results_peers.colo_section),
    ("migration", "Beside QEMU's live migration", results_peers.migration_section),
)


def benches_by(run, text):
    """{what `text` makes of the facts of a bench, of which each may have its own: their names}"""
    named = {}
    for name, state in run["benches"].items():
        named.setdefault(text({**run, **state}), []).append(name)
    return named


def said_of(run, text):
    """That of all benches; or, where they stayed from runs that differ, of each."""
    named = benches_by(run, text)
    if len(named) < 2:
        return next(iter(named), text(run))
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items())


def busy_text(facts):
    """What the machine did right before; of an earlier run its load before all of it. Nothing if that was little."""
    if "busy_before" in facts:
        return f"{share(facts['busy_before'])} of the processors" if facts["busy_before"] > 0.1 else ""
    load = facts.get("load_before", facts["host"].get("load_before", 0))
    return f"load {load}" if load > 0.5 else ""


def busy_before(run):
    """The benches before whose run the machine had something else to do."""
    return [f"{', '.join(names)} ({what})" for what, names in sorted(benches_by(run, busy_text).items()) if what]


# Of the machine: text of a bench's facts.
MACHINE = {"processor": lambda facts: f"{facts['host']['processor']}, {facts['host']['cores']} cores",
           "memory": lambda facts: f"{facts['host']['memory_mib']} MiB",
           "kernel": lambda facts: facts["host"]["kernel"],
           "KVM": lambda facts: ", ".join(facts["host"]["kvm"]) or "built in"}
SAID = {**MACHINE, "commit": lambda facts: facts["commit"], "peer": lambda facts: facts["qemu"] or "none"}


def warnings(run):
    quick = benches_by(run, lambda facts: facts["quick"]).get(True, [])
    if quick and len(quick) == len(run["benches"]):
        yield "A quick run: it shows that the benches work. Its figures mean nothing."
    elif quick:
        yield f"Of a quick run, so that their figures mean nothing: {', '.join(quick)}."
    if len(benches_by(run, lambda facts: tuple(text(facts) for text in MACHINE.values()))) > 1:
        yield "Measured on machines that differ, as listed: figures of one are not to be compared with those of another."
    if busy := busy_before(run):
        yield f"The machine was busy right before: the figures of {'; '.join(busy)} are not to be compared with others."


def introduction(run):
    lines = ["# Results", "", "Written by `bench/run`; to repeat it: `bench/run`, on a machine that has nothing else "
             "to do. Raw figures and plots are in results/. Bold is what misses its goal.", ""]
    for warning in warnings(run):
        lines += [f"**{warning}**", ""]
    return lines + table(["", ""], [[name, said_of(run, text)] for name, text in SAID.items()])


def section(name, title, body, run, found):
    state = run["benches"].get(name, {"state": "skipped", "why": "not asked for"})
    lines = ["", f"## {title}", ""]
    if state["state"] != "ok":
        return lines + [NOT_MEASURED.format(state["why"] or state["state"])]
    try:
        return lines + body(found[name], found)
    except (KeyError, TypeError, ZeroDivisionError, ValueError) as error:
        raise ResultError(f"{name}: {error!r}") from error


def write(out, folder):
    """The page's path. Errors: ResultError if a bench that says ok has results of another form."""
    run = load_json(folder / "run.json")
    for name, state in run["benches"].items():
        if state["state"] == "ok" and not (folder / f"{name}.json").exists():
            state.update(state="failed", why="its figures are gone")
    found = {name: load_json(folder / f"{name}.json") for name, state in run["benches"].items()
             if state["state"] == "ok"}
    lines = introduction(run)
    drawn = plots.draw(folder, found)
    for name, title, body in SECTIONS:
        lines += section(name, title, body, run, found)
        if name in drawn:
            lines += ["", f"![{title}](results/{name}.svg)"]
    page = out / "RESULTS.md"
    page.write_text("\n".join(lines) + "\n")
    return page
