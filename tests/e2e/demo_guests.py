"""The guests of the demo: what each needs to run, and what its console has to say."""

import json
import os
import pathlib
import subprocess
import sys

import pair as pairlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lab"))
import guest_initramfs  # noqa: E402
import images  # noqa: E402


class Ledger:
    """tests/guests/ledger: runs on any host with KVM, also without hardware virtualisation."""

    name = "the ledger guest, which checks its own memory"
    steps_to_see = 100  # after the kill

    def __init__(self, build, folder, vcpus):
        del build, folder
        self.options = dict(command_line="workload=uniform pages=256 rate=20000 report_ms=10",
                            vcpus=vcpus, memory_mib=32)

    @staticmethod
    def judge(console):
        """(newest step or None, whether all is well, the verdict in words)"""
        verdict = pairlib.judge_console(console)
        return verdict.get("last"), verdict["good"], "intact" if verdict["good"] else str(verdict)


class Linux:
    """A stock Debian kernel (scripts/lab-setup) with an initramfs that verifies its files."""

    name = "a stock Debian Linux, which checks its own files"
    steps_to_see = 10

    def __init__(self, build, folder, vcpus):
        del build
        self.options = dict(kernel=images.kernel("guest"),
                            initrd=guest_initramfs.build(pathlib.Path(folder) / "guest.cpio"),
                            command_line="console=ttyS0 panic=-1 noxsave", vcpus=vcpus,
                            memory_mib=192)

    @staticmethod
    def judge(console):
        # Whole lines only: an epoch may end within one.
        lines = console.decode("utf-8", "replace").replace("\r", "").split("\n")[:-1]
        ticks, faults = guest_initramfs.check(lines)
        return ticks or None, bool(ticks) and not faults, "; ".join(faults[:3]) or "intact"


def choose(build, wanted):
    """Ledger or Linux. A Linux kernel needs hardware virtualisation; `wanted` may insist."""
    if wanted == "auto":
        probe = subprocess.run([os.fspath(pathlib.Path(build) / "daemon/romulusd"), "probe", "--json"],
                               capture_output=True, text=True, timeout=pairlib.PATIENCE_S, check=True)
        hardware = json.loads(probe.stdout)["virtualisation"].startswith(("VT-x", "SVM"))
        wanted = "linux" if hardware else "ledger"
    return {"ledger": Ledger, "linux": Linux}[wanted]
