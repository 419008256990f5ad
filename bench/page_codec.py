"""How fast and how small pages are encoded, beside XBZRLE, on pages recorded from running guests.

    page_codec.py --build FOLDER [--seconds 2] [--max-pairs 4000] [--json FILE] [PAIRS ...]

Records the ledger guest under each of its workloads (bench/record_pairs), then runs bench/page_codec on that, and
on the files PAIRS, which record_pairs wrote of another guest.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

from common import SKIPPED, say, tsc_word

WORKLOADS = {"uniform": "workload=uniform bytes=8", "hotcold": "workload=hotcold bytes=64",
             "sequential": "workload=sequential bytes=1024"}


def record(options, name, folder):
    """A file of pairs."""
    path = folder / name
    subprocess.run([options.build / "bench/record_pairs", "--kernel", options.build / "guests/ledger.elf", "--append",
                    f"{WORKLOADS[name]} pages=256 verify=0{tsc_word()}", "--max-pairs", str(options.max_pairs),
                    "--seconds", str(options.record_seconds), "--out", path], check=True, timeout=60)
    if path.stat().st_size == 0:
        raise SystemExit(f"{name}: no page was written twice")
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path, help="CMake build folder")
    parser.add_argument("--seconds", default=2, type=float, help="per encoder and corpus, and once more in cache")
    parser.add_argument("--record-seconds", default=10, type=float, help="per corpus, at most")
    parser.add_argument("--max-pairs", default=4000, type=int, help="per corpus")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("pairs", nargs="*", type=pathlib.Path, metavar="PAIRS")
    options = parser.parse_args()
    if not pathlib.Path("/dev/kvm").exists():
        say("no /dev/kvm to record with")
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        files = [record(options, name, pathlib.Path(folder)) for name in WORKLOADS] + options.pairs
        words = [options.build / "bench/page_codec", "--seconds", str(options.seconds)]
        words += ["--json", options.json] if options.json else []
        subprocess.run([*words, *files], check=True, timeout=60 + 16 * options.seconds * len(files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
