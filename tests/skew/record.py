#!/usr/bin/env python3
"""Records what the previous release speaks: a stream, both sides of it, for tests/unit/skew_replay_test.cc, and the
definitions of its messages for tests/unit/codec_dialect_test.cc.

Builds the recorder with that release's library, lets its daemon protect the ledger guest there, and asks for a
hand-over. Done once per protocol version: tests/skew/README.md. Needs /dev/kvm.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys

import previous

sys.path.insert(0, str(previous.SOURCE / "tests/e2e"))
# pylint: disable=wrong-import-position
import pair as pairlib
import switchover

MEMORY_MIB = 6
STEPS = 20


def bring_recorder(source):
    """Puts the recorder into sources that have none."""
    folder = source / "tests/skew"
    if folder.exists():
        return
    folder.mkdir()
    for name in ("recorder.cc", "recording.h", "recorder.cmake"):
        shutil.copy(previous.HERE / name, folder)
    (source / "tests/e2e/skew_recorder.cmake").write_text("include(${CMAKE_SOURCE_DIR}/tests/skew/recorder.cmake)\n")


def record(old, new, recorder, out):
    with pairlib.Pair(new, failover=switchover.MANUAL, memory_mib=MEMORY_MIB,
                      devices="virtio_console: true rng: true", audit="pass_seconds: 1",
                      checkpoint="max_interval_us: 20000 min_interval_us: 5000",
                      command_line="workload=uniform pages=64 report_ms=20 clock=1") as pair:
        pair.builds = {"alpha": old}
        address = f"127.0.0.1:{pair.ports[1]}"
        with subprocess.Popen([str(recorder), address, str(MEMORY_MIB), str(out)], text=True,
                              stdout=subprocess.PIPE, preexec_fn=pairlib.die_with_parent) as secondary:
            secondary.stdout.readline()  # it listens
            primary = pair.start_node("alpha", "primary")
            primary.await_mode("protected")
            primary.await_status("steps", lambda s: pairlib.last_step(primary.console()) >= STEPS)
            primary.ctl("switchover", check=False)
            code = secondary.wait(timeout=pairlib.PATIENCE_S)
    if code != 0:
        raise RuntimeError(f"the recorder ended with {code}")
    print(f"{out}: {out.stat().st_size >> 10} KiB")


def record_definitions(source, out):
    subprocess.run(["protoc", "-I", str(source / "proto"), "--include_imports", f"--descriptor_set_out={out}",
                    "romulus/v1/replication.proto"], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True, help="of this release")
    parser.add_argument("--previous", help="a build folder of the previous one, if there is one; else it is built")
    parser.add_argument("--recorder", help="the program, if there is one built with the previous release's library")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="a path without ending")
    arguments = parser.parse_args()
    new = pathlib.Path(arguments.build).resolve()
    source = previous.unpack(new / "skew")
    if arguments.previous:
        old, recorder = pathlib.Path(arguments.previous).resolve(), arguments.recorder
    else:
        bring_recorder(source)
        old = previous.build(new / "skew", "romulusd", "romulusctl", "skew_recorder")
        recorder = next(old.glob("tests/*/skew_recorder"))
    out = arguments.out.resolve()
    record_definitions(source, out.with_suffix(".definitions"))
    record(old, new, recorder, out.with_suffix(".stream.gz"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
