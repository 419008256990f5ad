"""bench/transport behind a link of a given rate: a network namespace of its own whose loopback has a token bucket.

    transport_link.py --build FOLDER [--gbit 5] [--json FILE] [what bench/transport takes ...]
"""

import argparse
import os
import pathlib
import subprocess
import sys

from common import SKIPPED, say

BURST = "2mb"  # more than a timer tick's worth at 10 Gbit/s
LATENCY = "20ms"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path, help="CMake build folder")
    parser.add_argument("--gbit", default=5, type=float, help="the link's rate")
    parser.add_argument("--json", type=pathlib.Path)
    options, rest = parser.parse_known_args()
    if os.geteuid() != 0:
        say("a network namespace and its queueing take root")
        return SKIPPED
    words = [options.build / "bench/transport", "--kernel", options.build / "guests/ledger.elf", *rest]
    words += ["--json", options.json] if options.json else []
    shaped = (f"ip link set lo up && tc qdisc add dev lo root tbf rate {options.gbit}gbit burst {BURST} "
              f"latency {LATENCY} && exec \"$@\"")
    return subprocess.run(["unshare", "--net", "sh", "-c", shaped, "sh", *words], check=False, timeout=220).returncode


if __name__ == "__main__":
    sys.exit(main())
