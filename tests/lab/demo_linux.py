#!/usr/bin/python3
"""The demo on a machine with hardware virtualisation: one emulated host, where its guest is a Linux.

    demo_linux.py --build FOLDER   where romulusd and romulusctl were built

Exit status 0 if the demo's is, 77 if there is nothing to run.
"""

import argparse
import contextlib
import os
import pathlib
import sys

import images
from lab import Lab, LabError
from report import Report
from romulus_node import Binaries

DEMO = pathlib.Path(__file__).resolve().parent.parent / "e2e/demo.py"
SKIPPED = 77  # CTest's SKIP_RETURN_CODE


def run(report, lab, build):
    (host,) = lab.hosts
    with report.check("the demo holds, with a Linux guest", required=True):
        # The root is read-only there, and the scratch folder (9p) takes no sockets.
        command = (f"TMPDIR=/run/tmp ROMULUS_PATIENCE_S={600 * lab.slowness} "
                   f"ROMULUS_CACHE={images.cache_folder()} "
                   f"python3 -u {DEMO} --build {pathlib.Path(build).resolve()} "
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


def main(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=os.environ.get("ROMULUS_BUILD", "."),
                        help="CMake build folder (default: $ROMULUS_BUILD)")
    build = parser.parse_args(words).build
    if not Binaries(build).present():
        print(f"skipped: no romulusd in {build}")
        return SKIPPED
    report = Report()
    # What failed is in the table. Lab keeps its scratch folder when an exception leaves it.
    with contextlib.suppress(LabError, images.ImageError, AssertionError):
        with Lab(hosts=1) as lab:
            run(report, lab, build)
    return report.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
