"""Which benches there are, how each is called, how long it may take, and what its JSON must have.

A figure is named by a path: "rows.*.pause.p50_us" is that field in each of `rows`. All figures of a bench must be
there and be numbers; no bound is put on any of them.
"""

import dataclasses
import math

from common import HERE, ResultError


@dataclasses.dataclass(frozen=True)
class Bench:
    name: str
    limit_s: int
    quick_limit_s: int
    command: list        # BUILD, JSON, TABLE stand for paths
    quick: list          # arguments instead of, and after, those of `command` from `full` on
    full: list
    figures: tuple
    json_on_stdout: bool = False
    bounded: bool = False  # by what COSTS measures, right before it and after

    def words(self, build, json_path, table_path, quick):
        here = {"BUILD": build, "JSON": json_path, "TABLE": table_path, "HERE": HERE}
        words = self.command + (self.quick if quick else self.full)
        for name, path in here.items():
            words = [word.replace(name, str(path)) for word in words]
        return words


LEDGER = ["--kernel", "BUILD/guests/ledger.elf"]
RATE = ["BUILD/bench/epoch_rate", *LEDGER, "--max-interval-us", "50", "--json", "JSON", "--table", "TABLE"]
ROWS = ("rows.*.epochs_per_s", "rows.*.pause.p50_us", "rows.*.pause.p99_us", "rows.*.ack.p50_us",
        "rows.*.progress_share")


def python(name, *words):
    return ["python3", "-u", f"HERE/{name}.py", "--build", "BUILD", "--json", "JSON", *words]


COSTS = Bench("kvm_costs", 120, 60, ["BUILD/bench/kvm_costs", *LEDGER], ["--rounds", "1"], ["--rounds", "7"],
              ("first_write_us.ring", "first_write_us.bitmap", "kick_us", "copy_page_us", "vcpu_items_us.*"),
              json_on_stdout=True)

BENCHES = (
    COSTS,
    Bench("epoch_rate", 400, 60, RATE, ["--seconds", "0.3", "--pages", "3,100"],
          ["--seconds", "5", "--pages", "1,3,5,10,50,100,200,1000,4096"], ROWS, bounded=True),
    Bench("sustained", 600, 60, [*RATE, "--only-writes", "--tracking", "ring"], ["--seconds", "0.5", "--pages", "10"],
          ["--seconds", "60", "--pages", "1,3,5,10,50,200"], ROWS, bounded=True),
    Bench("two_vcpus", 300, 60, python("two_vcpus"), ["--seconds", "0.3", "--pages", "10", "--repeats", "1"], [],
          ("lines.*.pause_ratio.median", "lines.*.vcpus.*.tail.median", "lines.*.vcpus.*.epochs_per_s.median")),
    Bench("progress", 500, 60, [*RATE, "--tracking", "ring"],
          ["--seconds", "0.3", "--pages", "10", "--intervals-us", "2000", "--hot-pages", "0,64"],
          ["--seconds", "4", "--pages", "10,100,1000", "--intervals-us", "25000,10000,2000,1000,400",
           "--hot-pages", "0,1024"],
          (*ROWS, "rows.*.interval_us", "rows.*.hot_pages"), bounded=True),
    Bench("memory_size", 600, 90, python("memory_size"),
          ["--sizes", "64,512", "--pages", "10", "--seconds", "0.2", "--repeats", "1"], [],
          ("lines.*.pause_ratio.median", "lines.*.pause_p50_us.*.median")),
    Bench("codec", 240, 60, ["BUILD/bench/codec_bench", "--benchmark_out_format=json", "--benchmark_out=JSON"],
          ["--benchmark_filter=/10/4$", "--benchmark_min_time=0.01"], ["--benchmark_min_time=0.2"],
          ("benchmarks.*.cpu_time",)),
    Bench("page_codec", 600, 90, python("page_codec"),
          ["--seconds", "0.05", "--record-seconds", "1", "--max-pairs", "100", "--linux", "boot"], [],
          ("rows.*.bytes_per_page", "rows.*.gb_per_s", "rows.*.cached_gb_per_s", "rows.*.zero_before")),
    Bench("transport", 240, 90, ["BUILD/bench/transport", *LEDGER, "--json", "JSON"],
          ["--seconds", "0.2", "--memory-mib", "128"], [], ("rows.*.mib_per_s", "rows.*.cpu_s_per_gb")),
    Bench("transport_link", 240, 90, python("transport_link"), ["--seconds", "0.2", "--memory-mib", "128"], [],
          ("rows.*.mib_per_s", "rows.*.cpu_s_per_gb")),
    Bench("failover", 600, 90, python("failover"), ["--rounds", "1", "--timeouts-ms", "300"], [],
          ("rows.*.activate_ms.p50", "rows.*.activate_ms.p99", "rows.*.first_output_ms.p50",
           "rows.*.first_output_ms.max")),
    Bench("net_latency", 240, 90, python("net_latency"), ["--pings", "100", "--warm", "20", "--repeats", "1"], [],
          ("rows.*.p50_us", "rows.*.p99_us", "added_p50_us")),
    Bench("footprint", 300, 120, python("footprint"), ["--seconds", "0.5", "--memory-seconds", "0.5"], [],
          ("idle.*.protected.cpu_share", "idle.*.protected.epoch_bytes", "memory.primary.beyond_mib",
           "memory.secondary.beyond_mib")),
    Bench("migration", 300, 120, python("migration"), ["--fill-mib", "32", "--seconds", "0.5"], [],
          ("first_copy.romulus.mib_per_s",)),
    Bench("peers", 1800, 240, python("peers"), ["--rates", "2000", "--seconds", "0.5", "--repeats", "1"], [],
          ("loads.*.sessions.*.romulus.fastest.checkpoints_per_s", "loads.*.sessions.*.romulus.failover_ms",
           "loads.*.sessions.*.colo.fastest.checkpoints_per_s")),
)
TARGETS = ("epoch_rate", "kvm_costs", "codec_bench", "page_codec", "record_pairs", "transport", "guest_ledger",
           "guest_echo", "guest_halt", "romulusd", "romulusctl")


def values(data, path):
    """All that a path names. Errors: ResultError if there is nothing, or a part is missing."""
    found = [data]
    for part in path.split("."):
        step = []
        for each in found:
            if part == "*" and isinstance(each, (list, dict)):
                step.extend(each.values() if isinstance(each, dict) else each)
            elif isinstance(each, dict) and part in each:
                step.append(each[part])
            else:
                raise ResultError(f"{path}: no {part}")
        found = step
    if not found:
        raise ResultError(f"{path}: empty")
    return found


def number(value):
    """A JSON number; protobuf writes 64-bit integers as text."""
    if isinstance(value, bool) or value is None:
        raise ResultError(f"{value!r} is no number")
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise ResultError(f"{value!r} is no number") from None
    if not math.isfinite(result):
        raise ResultError(f"{value!r} is no number")
    return result


def check(bench, data):
    """Errors: ResultError, naming the figure."""
    for path in bench.figures:
        for value in values(data, path):
            try:
                number(value)
            except ResultError as error:
                raise ResultError(f"{bench.name}: {path}: {error}") from None
