"""How fast and how small pages are encoded, beside XBZRLE, on pages recorded from running guests.

    page_codec.py --build FOLDER [--seconds 2] [--max-pairs 4000] [--linux boot,redis] [--json FILE] [PAIRS ...]

Records the ledger guest under each of its workloads (bench/record_pairs), and a stock Linux (record_linux.py) as far
as scripts/lab-setup and scripts/make-guest have left one; then runs bench/page_codec on that, and on the files PAIRS,
which one of the two wrote before.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

from common import HERE, SKIPPED, say, tsc_word
import record_linux

WORKLOADS = {"uniform": "workload=uniform bytes=8", "hotcold": "workload=hotcold bytes=64",
             "sequential": "workload=sequential bytes=1024"}
LINUX = {"boot": "linux boot", "redis": "linux redis"}
LINUX_LIMIT_S = 400


def record(options, name, folder):
    """A file of pairs."""
    path = folder / name
    subprocess.run([options.build / "bench/record_pairs", "--kernel", options.build / "guests/ledger.elf", "--append",
                    f"{WORKLOADS[name]} pages=256 verify=0{tsc_word()}", "--max-pairs", str(options.max_pairs),
                    "--seconds", str(options.record_seconds), "--out", path], check=True, timeout=60)
    if path.stat().st_size == 0:
        raise SystemExit(f"{name}: no page was written twice")
    return path


def record_linuxes(options, folder):
    """Files of pairs, of what there is; of the rest it says why not."""
    files = []
    for what in options.linux:
        lacks = record_linux.why_not(what)
        if lacks:
            say(f"{LINUX[what]}: left out: {lacks}")
            continue
        files.append(folder / LINUX[what])
        subprocess.run([sys.executable, "-u", HERE / "record_linux.py", what, "--max-pairs", str(options.max_pairs),
                        "--seconds", str(2 * options.record_seconds), "--out", files[-1]], check=True,
                       timeout=LINUX_LIMIT_S)
    return files


def corpora(text):
    """The words of --linux."""
    words = [word for word in text.split(",") if word]
    unknown = set(words) - set(LINUX)
    if unknown:
        raise argparse.ArgumentTypeError(f"no such guest: {', '.join(sorted(unknown))}")
    return words


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path, help="CMake build folder")
    parser.add_argument("--seconds", default=2, type=float, help="per encoder and corpus, and once more in cache")
    parser.add_argument("--record-seconds", default=10, type=float, help="per corpus, at most; twice as much of Linux")
    parser.add_argument("--max-pairs", default=4000, type=int, help="per corpus")
    parser.add_argument("--linux", default=list(LINUX), type=corpora, metavar="boot,redis",
                        help="which of these; none: --linux ''")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("pairs", nargs="*", type=pathlib.Path, metavar="PAIRS")
    options = parser.parse_args()
    if not pathlib.Path("/dev/kvm").exists():
        say("no /dev/kvm to record with")
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        files = [record(options, name, folder) for name in WORKLOADS] + record_linuxes(options, folder) + options.pairs
        words = [options.build / "bench/page_codec", "--seconds", str(options.seconds)]
        words += ["--json", options.json] if options.json else []
        subprocess.run([*words, *files], check=True, timeout=60 + 16 * options.seconds * len(files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
