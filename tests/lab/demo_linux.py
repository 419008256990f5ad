#!/usr/bin/python3
"""The demo on a machine with hardware virtualisation: one emulated host, where its guest is a Linux.

    demo_linux.py --build FOLDER   where romulusd and romulusctl were built

Exit status 0 if the demo's is, 77 if there is nothing to run.
"""

import pathlib
import sys

import entry
import images

DEMO = pathlib.Path(__file__).resolve().parent.parent / "e2e/demo.py"


def run(report, lab, binaries):
    (host,) = lab.hosts
    with report.check("the demo holds, with a Linux guest", required=True):
        # The root is read-only there, and the scratch folder (9p) takes no sockets.
        command = (f"TMPDIR=/run/tmp ROMULUS_PATIENCE_S={600 * lab.slowness} "
                   f"ROMULUS_CACHE={images.cache_folder()} "
                   f"python3 -u {DEMO} --build {binaries.build} "
                   f"--slowness {int(50 * lab.slowness)}")
        demo = host.execute(command, follow=True)
        try:
            status = demo.wait(900).status
        finally:
            print("\n".join(demo.lines.all()), flush=True)
        if status != 0:
            raise AssertionError(f"exit status {status}")
        if not any("Linux" in line for line in demo.lines.all()):
            raise AssertionError("its guest was no Linux")


if __name__ == "__main__":
    sys.exit(entry.main(sys.argv[1:], __doc__, run, hosts=1))
