"""What all benches in Python share: where things are, numbers, the host, what a process costs."""

import fcntl
import json
import os
import pathlib
import platform
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "tests/e2e")]  # pair.py, netns.py

SKIPPED = 77  # as CTest's SKIP_RETURN_CODE
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class ResultError(Exception):
    """A result that is missing or not of the form that it should have."""


def say(*words):
    print(*words, flush=True)


def numbers(text):
    """Of a command line: 1,2,3"""
    return [int(word) for word in text.split(",")]


def quantile(values, share):
    """The value below which `share` of them lie; None of none."""
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else None


def summary(values):
    """{median, low, high, count} of repeated measurements; what could not be measured is None and left out."""
    values = [value for value in values if value is not None]
    if not values:
        return {"median": None, "low": None, "high": None, "count": 0}
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "count": len(values)}


def ratio(above, below):
    return above / below if above is not None and below else None


def host():
    """What figures depend on."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    memory_kib = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    flavours = [name for name in ("kvm_pvm", "kvm_intel", "kvm_amd") if pathlib.Path("/sys/module", name).exists()]
    return {"processor": model, "cores": os.cpu_count(), "memory_mib": memory_kib >> 10,
            "kernel": platform.release(), "kvm": flavours, "load_before": round(os.getloadavg()[0], 2)}


def divided_cpus(vcpus=1):
    """([CPUs for vCPUs alone], [the others]); two empty lists where there are not enough."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[-vcpus:], cpus[:-vcpus]) if len(cpus) > vcpus else ([], [])


def cpus_words():
    """The same as a configuration's `cpus`."""
    mine, others = divided_cpus()
    return f"vcpus: {mine} others: {others}" if mine else ""


def tsc_word():
    """For the end of a ledger's command line: the frequency that KVM knows (KVM_CREATE_VM, KVM_CREATE_VCPU,
    KVM_GET_TSC_KHZ), so that the guest need not measure it, which it gives up on a busy machine."""
    descriptors = []
    try:
        descriptors.append(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
        descriptors.append(fcntl.ioctl(descriptors[0], 0xae01, 0))
        descriptors.append(fcntl.ioctl(descriptors[1], 0xae41, 0))
        return f" tsc_khz={fcntl.ioctl(descriptors[2], 0xaea3, 0)}"
    except OSError:
        return ""
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def cpu_seconds(pid):
    """User and system time of a process so far, all threads (proc(5), stat, fields 14 and 15)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def loopback_bytes():
    """All that went through this network namespace's loopback, headers included (/sys may be another one's)."""
    for line in pathlib.Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    raise ResultError("no loopback in /proc/net/dev")


def load_json(path):
    try:
        return json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: {error}") from error


def write_json(path, value):
    """In one step, so that no reader finds half of it."""
    path = pathlib.Path(path)
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)
