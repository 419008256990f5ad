#!/usr/bin/env python3
"""A rolling upgrade from the previous release to this one, and back, under a guest that keeps books.

Secondary first, switchover, then the other host; then the same with the two releases changed. The guest is
protected after each step, no byte of its console is missing or said twice, its books are in order at the end, and
the audit, which compares memory and disks of both nodes, finds nothing. Needs /dev/kvm.
"""

import argparse
import os
import pathlib
import signal
import sys

import previous

sys.path.insert(0, str(previous.SOURCE / "tests/e2e"))
# pylint: disable=wrong-import-position
import pair as pairlib
import switchover

STEPS = 20  # of the guest, between two acts
AUDIT = "pass_seconds: 1 disk_pass_seconds: 1 on_mismatch: ON_MISMATCH_FULL_SYNC"


class Wrong(Exception):
    pass


def await_steps(pair, daemon):
    before = switchover.last_step(pair)
    daemon.await_status("the guest to go on", lambda s: switchover.last_step(pair) >= before + STEPS)


def restart_as(pair, daemon, build):
    """`systemctl restart` of a secondary after its package was changed."""
    daemon.signal(signal.SIGTERM)
    if (code := daemon.process.wait(timeout=pairlib.PATIENCE_S)) != 0:
        raise Wrong(f"{daemon.node} ended with {code}\n{daemon.log_tail()}")
    pair.builds[daemon.node] = build
    return pair.start_node(daemon.node, "secondary")


def await_audited(primary):
    """A whole pass over memory and disks since now, with nothing found."""
    begun = int(primary.status()["audit"].get("passes", 0))
    status = primary.await_status("a pass of the audit",
                                  lambda s: int(s["audit"].get("passes", 0)) >= begun + 2)
    if int(status["audit"].get("mismatches", 0)) or int(status["audit"].get("disk_mismatches", 0)):
        raise Wrong(f"the audit found {status['audit']}")


def protocol(pair):
    """That the two speak now, by those that can tell; 0: neither can."""
    said = {daemon.status()["peer"].get("protocol_version", 0) for daemon in pair.daemons.values()} - {0}
    if len(said) > 1:
        raise Wrong(f"the nodes disagree: {said}")
    return said.pop() if said else 0


def settle(pair, primary, secondary, what):
    switchover.await_roles(pair, primary, secondary)
    await_audited(primary)
    await_steps(pair, primary)
    print(f"ok   {what}: {primary.node} -> {secondary.node}, protocol {protocol(pair) or 'not told'}", flush=True)


def roll(pair, primary, secondary, build, name):
    """Both nodes to `build`. Returns (primary, secondary, what was spoken between the two releases)."""
    secondary = restart_as(pair, secondary, build)
    settle(pair, primary, secondary, f"the secondary is {name}")
    mixed = protocol(pair)
    answer = primary.ctl("switchover")
    if answer["new_primary"] != secondary.node:
        raise Wrong(f"handed over to {answer['new_primary']}")
    primary, secondary = secondary, primary
    settle(pair, primary, secondary, f"the guest runs on {name}, pause {int(answer['pause_ns']) / 1e6:.1f} ms")
    secondary = restart_as(pair, secondary, build)
    settle(pair, primary, secondary, f"both are {name}")
    return primary, secondary, mixed


def judge(pair, primary, secondary):
    primary.ctl("pause")  # what it says would move while two files are read
    whole, wrong = switchover.said_once(primary.settled_console(), secondary.settled_console())
    verdict = pairlib.judge_console(whole)
    if wrong or not verdict["good"]:
        raise Wrong(f"console: {wrong} {verdict}")
    print(f"ok   {len(whole)} bytes of console, said once; {verdict.get('last')} steps", flush=True)


def upgrade_and_back(old, new):
    with pairlib.Pair(new, failover=switchover.MANUAL, audit=AUDIT, disks={"root": 4},
                      devices="virtio_console: true rng: true", limits="reconnect_max_ms: 300",
                      command_line="workload=uniform pages=64 report_ms=5 clock=1") as pair:
        pair.builds = {node: old for node in pairlib.NODES}
        primary, secondary = pair.start_protected()
        settle(pair, primary, secondary, "both are the previous release")
        primary, secondary, up = roll(pair, primary, secondary, new, "this release")
        alone = protocol(pair)
        primary, secondary, down = roll(pair, primary, secondary, old, "the previous release again")
        judge(pair, primary, secondary)
        if up != down or not 0 < up <= alone:
            raise Wrong(f"protocol {up} on the way up, {alone} there, {down} on the way down")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True, help="of this release")
    parser.add_argument("--previous", help="a build folder of the previous one, if there is one; else it is built")
    arguments = parser.parse_args()
    if not os.path.exists("/dev/kvm"):
        print("skipped: no /dev/kvm")
        return 77
    new = pathlib.Path(arguments.build).resolve()
    try:
        old = pathlib.Path(arguments.previous).resolve() if arguments.previous else \
            previous.build(new / "skew", "romulusd", "romulusctl")
    except previous.NoHistory as error:
        print(f"skipped: {error}")
        return 77
    try:
        upgrade_and_back(old, new)
    except (Wrong, pairlib.PairError) as error:
        print(f"FAIL {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
