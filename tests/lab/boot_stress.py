#!/usr/bin/python3
"""Boots a Linux in a lab host again and again under the strain of protection, and counts.

    boot_stress.py --vmm romulus --build FOLDER [--mode checkpoint ...]   tests/kvm/boot_stress
    boot_stress.py --vmm qemu [--read-state] [--every-us N]               qmp_strain.py
                   [--kernel pvh|bzimage] [--boots N] [--minutes M]

No test: it measures how often a guest, or the emulated host itself, does not survive (README.md,
Traps), and whether that depends on the VMM. Prints a line a boot and a sum. A host that ended or
hung is counted, and booted again.
"""

import argparse
import collections
import re
import sys
import time

import bzimage
import guest_initramfs
import images
from lab import Lab, LabError

UNTIL = "tick 000003"


def command(options, kernel, initrd, seed):
    if options.vmm == "qemu":
        words = ["/usr/bin/python3", images.HERE / "qmp_strain.py"]
        if options.read_state:
            words.append("--read-state")
    else:
        words = [options.build + "/tests/kvm/boot_stress", "--mode", options.mode]
    if options.every_us is not None:
        words += ["--every-us", options.every_us]
    return words + ["--seed", seed, "--kernel", kernel, "--initrd", initrd, "--until", UNTIL,
                    "--timeout-s", options.timeout_s, "--append", "console=ttyS0 panic=-1"]


def boot_once(lab, words, timeout_s):
    """What became of one boot: a word to count, and a line to read."""
    host = lab.hosts[0]
    try:
        if not host.alive():
            lab.boot(host)
        result = host.run(words, timeout=timeout_s + 60, check=False)
    except LabError as error:
        text = str(error)
        host.kill()
        return "host", text
    if result.status == 0:
        return "reached", result.out
    return {1: "guest ended", 2: "late"}.get(result.status, "error"), result.out + result.err


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vmm", choices=["qemu", "romulus"], required=True)
    parser.add_argument("--build", default=".", help="romulus: CMake build folder")
    parser.add_argument("--mode", default="checkpoint", help="romulus: see boot_stress --help")
    parser.add_argument("--read-state", action="store_true", help="qemu: in each stop")
    parser.add_argument("--every-us", type=int, help="mean time from one stop to the next")
    parser.add_argument("--kernel", choices=["pvh", "bzimage"], default="pvh")
    parser.add_argument("--boots", type=int, default=10)
    parser.add_argument("--timeout-s", type=int, default=150, help="for one boot")
    parser.add_argument("--minutes", type=float, default=60, help="begin no boot after that")
    options = parser.parse_args(arguments)
    counts = collections.Counter()
    over = time.monotonic() + 60 * options.minutes
    with Lab(hosts=1) as lab:
        guest_initramfs.build(lab.scratch / "guest.cpio")
        kernel = images.kernel("guest")
        if options.kernel == "pvh":
            bzimage.extract_pvh(kernel, lab.scratch / "vmlinux")
            kernel = lab.scratch / "vmlinux"
        for number in range(1, options.boots + 1):
            if time.monotonic() > over:
                break
            words = command(options, kernel, lab.scratch / "guest.cpio", number)
            outcome, text = boot_once(lab, words, options.timeout_s)
            counts[outcome] += 1
            print(f"boot {number}: {outcome}: {re.sub(r'^', '  ', text, flags=re.M).strip()}",
                  flush=True)
    print(f"{sum(counts.values())} boots:", ", ".join(f"{n} {k}" for k, n in counts.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
