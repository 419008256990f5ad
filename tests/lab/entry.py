"""What the tests in this folder that need a built romulusd have in common: how they are called."""

import argparse
import contextlib
import os

import images
from lab import Lab, LabError
from report import Report
from romulus_node import Binaries

SKIPPED = 77  # CTest's SKIP_RETURN_CODE


def main(words, doc, run, options=None, **lab_options):
    """run(report, lab, binaries) in a Lab made with lab_options; the exit status of the test.

    options maps further options of the command line ("--count") to what argparse's add_argument takes;
    run gets their values as keywords.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--build", default=os.environ.get("ROMULUS_BUILD", "."),
                        help="CMake build folder (default: $ROMULUS_BUILD)")
    for option, details in (options or {}).items():
        parser.add_argument(option, **details)
    values = vars(parser.parse_args(words))
    binaries = Binaries(values.pop("build"))
    if not binaries.present():
        print(f"skipped: no {binaries.romulusd}")
        return SKIPPED
    report = Report()
    # What failed is in the table. Lab keeps its scratch folder when an exception leaves it.
    with contextlib.suppress(LabError, images.ImageError, AssertionError):
        with Lab(**lab_options) as lab:
            run(report, lab, binaries, **values)
            lab.keep = report.failed > 0
    return report.close()
