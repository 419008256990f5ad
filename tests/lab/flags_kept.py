#!/usr/bin/python3
"""A guest in a lab host outlives another processor that restores floating point state all the time.

    flags_kept.py

That is so in the QEMU that scripts/lab-setup leaves (qemu_mend.py); in Debian's own each FXRSTOR may undo
what processor 0, where the guest runs, has just written of its own flags, and the guest, if not the host,
dies within seconds. No romulusd.
"""

import contextlib
import subprocess
import sys

import guest_initramfs
import images
from lab import Lab, LabError
from report import Report

LIMIT_S = 240

RESTORES = """\
static char state[512] __attribute__((aligned(16)));
int main(void) {
  __asm__ volatile("fxsave %0" : "=m"(state));
  for (;;) __asm__ volatile("fxrstor %0" : : "m"(state));
}
"""


def run(report, lab):
    (host,) = lab.hosts
    kernel, initrd, restores = images.kernel("guest"), lab.scratch / "guest.cpio", lab.scratch / "restores"
    guest_initramfs.build(initrd)
    subprocess.run(["gcc", "-O1", "-static", "-x", "c", "-o", restores, "-"], input=RESTORES.encode(), check=True,
                   timeout=LIMIT_S)
    with report.check("a guest on processor 0 reaches its tick") as remarks:
        other = host.execute(["taskset", "-c", "1", restores], follow=True)
        result = host.run(
            ["taskset", "-c", "0", "/usr/bin/python3", images.HERE / "qmp_strain.py", "--every-us", 1000000,
             "--kernel", kernel, "--initrd", initrd, "--until", "tick 000003", "--timeout-s", LIMIT_S,
             "--append", "console=ttyS0 panic=-1"], timeout=LIMIT_S + 60, check=False)
        remarks.append(result.out.strip())
        assert result.status == 0, result.out + result.err
        assert other.running(), "processor 1 did not go on"


def main():
    report = Report()
    with contextlib.suppress(LabError, images.ImageError, AssertionError):  # the table has it
        with Lab(hosts=1) as lab:
            run(report, lab)
            lab.keep = report.failed > 0
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
