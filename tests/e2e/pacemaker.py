#!/usr/bin/env python3
"""The OCF agent deploy/pacemaker/romulus over two nodes on loopback: this test asks of it what a cluster would.

What the guest says goes on over moves and failovers; a replica that the guest went on without is never promoted; output
that is held without a secondary is let out only when the cluster knows that the other node is gone. With --tester
Debian's ocf-tester judges it. Needs /dev/kvm and Debian's resource-agents.
"""

import argparse
import contextlib
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pair as pairlib
import switchover
from cluster_stub import Cluster

AGENT = pathlib.Path(__file__).resolve().parents[2] / "deploy/pacemaker/romulus"
OCF_ROOT = pathlib.Path("/usr/lib/ocf")
LET_CLUSTER_DECIDE = ("auto_failover: false on_secondary_lost: ON_SECONDARY_LOST_HOLD heartbeat_interval_ms: 20 "
                      "heartbeat_timeout_ms: 1000")
SUCCESS, GENERIC, INSTALLED, CONFIGURED, NOT_RUNNING, RUNNING_MASTER, FAILED_MASTER = 0, 1, 5, 6, 7, 8, 9


class Node(pairlib.Daemon):
    """One node, whose daemon the agent starts and stops."""

    def __init__(self, pair, cluster, node):
        self.pair, self.cluster, self.node, self.build = pair, cluster, node, pair.build
        self.log_path = pair.folder / f"{node}.log"
        self.console_path = pair.folder / f"{node}.console"
        self.address = f"unix://{pair.folder}/{node}.sock"
        self.process = None
        self._temporary = pair.folder / f"{node}.tmp"
        self.pid_file = self._temporary / "romulus-ledger.pid"

    def environment(self, first="alpha", **more):
        parameters = {
            "vm": "ledger", "config": self.pair.config, "first": first, "use_systemd": "no", "log": self.log_path,
            "user": "root", "romulusd": self.pair.build / "daemon/romulusd",
            "romulusctl": self.pair.build / "daemon/romulusctl", "crm_feature_set": "3.16.2",
            "CRM_meta_clone_max": 2, "CRM_meta_notify": "true", "CRM_meta_timeout": 60000,
            "CRM_meta_interval": 10000}
        return {**os.environ, "OCF_ROOT": str(OCF_ROOT), "OCF_RESOURCE_INSTANCE": "web",
                "HA_SBIN_DIR": str(self.cluster.folder), "HA_RSCTMP": str(self._temporary),
                "ROMULUS_STUB_CLUSTER": str(self.cluster.folder), "ROMULUS_STUB_NODE": self.node,
                **{f"OCF_RESKEY_{k}": str(v) for k, v in {**parameters, **more}.items()}}

    def act(self, action, **more):
        """Exit code of one action."""
        done = subprocess.run([str(AGENT), action], env=self.environment(**more), capture_output=True, text=True,
                              timeout=pairlib.PATIENCE_S, stdin=subprocess.DEVNULL)
        self.said = done.stderr
        return done.returncode

    def expect(self, action, code, **more):
        got = self.act(action, **more)
        if got != code:
            raise pairlib.PairError(f"{self.node}: {action} gave {got}, not {code}\n{self.said}\n{self.log_tail()}")

    def monitor_until(self, what, condition):
        """As a cluster's recurring monitors do."""
        deadline = time.monotonic() + pairlib.PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise pairlib.PairError(f"{self.node}: waited in vain for: {what}; the cluster: {self.cluster.get()}")
            self.act("monitor")

    @property
    def pid(self):
        with contextlib.suppress(OSError, ValueError):
            return int(self.pid_file.read_text())
        return None

    def alive(self):
        return self.pid is not None and os.path.exists(f"/proc/{self.pid}/exe")

    def send(self, number):
        os.kill(self.pid, number)

    def kill(self):
        """And waits until it has gone."""
        if not self.alive():
            return
        daemon = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(daemon, signal.SIGKILL)
        if not select.select([daemon], [], [], pairlib.PATIENCE_S)[0]:
            raise pairlib.PairError(f"{self.node} does not end")
        os.close(daemon)

    @property
    def score(self):
        return self.cluster.get("scores", self.node)


class Rig:
    """with Rig(build) as rig: the pair's folder and configuration, two nodes, the cluster that they ask."""

    def __init__(self, build, **options):
        self.pair = pairlib.Pair(build, failover=LET_CLUSTER_DECIDE, limits="reconnect_max_ms: 300",
                                 command_line="workload=uniform pages=64 report_ms=5 clock=1", **options)
        self.cluster = Cluster(self.pair.folder / "cluster", pairlib.NODES)
        self.nodes = [Node(self.pair, self.cluster, name) for name in pairlib.NODES]
        self.pair.daemons = {node.node: node for node in self.nodes}  # which it kills at the end
        # These daemons are nobody's children. When this process is killed the pipe closes.
        files = " ".join(str(node.pid_file) for node in self.nodes)
        self._undertaker = subprocess.Popen(["sh", "-c", f"read _ || kill -KILL $(cat {files})"],
                                            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self):
        return self.pair.__enter__() and self

    def __exit__(self, *exception):
        self._undertaker.communicate(b"no need\n")
        return self.pair.__exit__(*exception)

    def record(self):
        return self.cluster.get("properties", "romulus-guest-ledger")

    def await_steps(self, node):
        """By what this node says: after a failover it may say again what the other one had said."""
        step = pairlib.last_step(node.console())
        node.await_status("steps", lambda s: pairlib.last_step(node.console()) >= step + 5)

    def set_up(self):
        """Both started, alpha promoted, beta in step, and the cluster knows."""
        alpha, beta = self.nodes
        for node in self.nodes:
            node.expect("start", SUCCESS)
            node.expect("monitor", SUCCESS)
        alpha.expect("promote", SUCCESS)
        self.await_protected(alpha, beta)
        return alpha, beta

    def await_protected(self, primary, secondary):
        switchover.await_roles(self.pair, primary, secondary)
        primary.monitor_until("the record of protection", lambda: self.record() == f"{primary.node}:protected")
        secondary.monitor_until("a score", lambda: secondary.score == 1000)


def equal(got, wanted, what):
    if got != wanted:
        raise pairlib.PairError(f"{what}: {got}, not {wanted}")


def waits_for_a_slow_start(build):
    """What is started becomes romulusd only after a while, as setpriv does on a busy machine."""
    with Rig(build) as rig:
        alpha = rig.nodes[0]
        slow = rig.pair.folder / "slow"
        slow.write_text(f'#!/bin/sh\nsleep 1\nexec {rig.pair.build}/daemon/romulusd "$@"\n')
        slow.chmod(0o755)
        alpha.expect("start", SUCCESS, romulusd=slow)
        alpha.expect("monitor", SUCCESS)
        alpha.expect("stop", SUCCESS)


def judges_configurations(build):
    with Rig(build) as rig:
        alpha, beta = rig.nodes
        for node in rig.nodes:
            node.expect("validate-all", SUCCESS)
        alpha.expect("validate-all", CONFIGURED, CRM_meta_notify="false")
        alpha.expect("validate-all", CONFIGURED, vm="../etc")
        alpha.expect("validate-all", CONFIGURED, vm="")
        alpha.expect("validate-all", INSTALLED, config="/nonexistent")
        alpha.expect("monitor", NOT_RUNNING, config="/nonexistent", CRM_meta_interval=0)
        alpha.expect("stop", SUCCESS, config="/nonexistent")
        alpha.expect("validate-all", INSTALLED, romulusd="/nonexistent")
        beat = "heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000"
        fence = 'arbiter { command { argv: "/bin/true" } }'
        for failover, code in ((beat, CONFIGURED),
                               (f"{beat} auto_failover: true", CONFIGURED),
                               (f"{beat} on_secondary_lost: ON_SECONDARY_LOST_SOLO", CONFIGURED),
                               (f'{beat} arbiter {{ etcd {{ endpoints: "127.0.0.1:2379" }} }}', CONFIGURED),
                               (f"{beat} {fence}", SUCCESS),
                               (f"{beat} auto_failover: true {fence}", CONFIGURED),
                               ("nonsense: 1", CONFIGURED)):
            rig.pair.write_config(failover=failover)
            alpha.expect("validate-all", code)


def moves_and_fails_over(build):
    with Rig(build) as rig:
        alpha, beta = rig.nodes
        for node in rig.nodes:
            node.expect("monitor", NOT_RUNNING, CRM_meta_interval=0)
            node.expect("start", SUCCESS)
            node.expect("start", SUCCESS)  # what runs is left alone
        equal((alpha.score, beta.score), (100, None), "scores of two that hold nothing")
        beta.expect("promote", GENERIC)  # the guest is to be booted on alpha
        alpha.expect("promote", SUCCESS)
        alpha.expect("promote", SUCCESS)
        alpha.expect("monitor", RUNNING_MASTER)
        rig.await_protected(alpha, beta)
        equal((alpha.score, beta.score), (10000, 1000), "scores of two in step")

        here, there = alpha, beta
        for _ in range(2):
            rig.await_steps(here)
            here.expect("demote", SUCCESS, CRM_meta_notify_promote_uname=there.node)
            here.expect("monitor", SUCCESS)
            there.expect("promote", SUCCESS)
            there.expect("monitor", RUNNING_MASTER)
            rig.await_protected(there, here)
            here, there = there, here
        rig.await_steps(here)
        here.ctl("pause")
        whole, wrong = switchover.said_once(here.settled_console(), there.settled_console())
        equal(wrong, "", "what both said")
        equal(pairlib.judge_console(whole)["good"], True, "the console after two moves")
        here.ctl("resume")

        rig.await_steps(here)
        here.kill()
        here.expect("monitor", NOT_RUNNING)
        equal(here.score, None, "score of a node that is dead")
        there.expect("promote", SUCCESS)
        equal(rig.record(), f"{there.node}:alone", "the record")
        rig.await_steps(there)
        here.expect("start", SUCCESS)
        rig.await_protected(there, here)
        rig.await_steps(there)
        there.ctl("pause")
        after = there.settled_console()
        before = bytes(ours or theirs for ours, theirs in zip(here.console(), after))  # each has what it said
        joined, whole, why = pairlib.stream_continues(before, after)
        equal((joined, pairlib.judge_console(whole)["good"]), (True, True), f"the console after a failover ({why})")


def never_promotes_what_is_old(build):
    with Rig(build) as rig:
        alpha, beta = rig.set_up()
        beta.kill()
        alpha.await_mode("degraded")
        for what, state in (("the other node is silent, and not fenced yet", {"online": False, "unclean": True}),
                            ("it was not heard to be silent", {"online": True, "unclean": False})):
            rig.cluster.put({**state, "runs": True}, "nodes", "beta")
            alpha.expect("monitor", RUNNING_MASTER)
            equal((alpha.status()["mode"], rig.record()), ("MODE_DEGRADED", "alpha:protected"), what)
        rig.cluster.put({"online": False, "unclean": False, "runs": False}, "nodes", "beta")
        for flag in "quorum", "stonith":
            rig.cluster.put(False, flag)
            alpha.expect("notify", SUCCESS)
            equal(alpha.status()["mode"], "MODE_DEGRADED", f"without {flag}")
            rig.cluster.put(True, flag)
        alpha.expect("notify", SUCCESS)
        alpha.await_mode("solo")
        equal(rig.record(), "alpha:alone", "the record of a guest that goes on alone")
        rig.await_steps(alpha)

        # In step again, but the cluster does not know yet: what the guest said alone would be unsaid.
        rig.cluster.put({"online": True, "unclean": False, "runs": True}, "nodes", "beta")
        beta.expect("start", SUCCESS)
        switchover.await_roles(rig.pair, alpha, beta)
        alpha.kill()
        beta.await_mode("degraded")
        beta.expect("monitor", SUCCESS)
        equal(beta.score, None, "score of a replica that the cluster does not know")
        beta.expect("promote", GENERIC)
        equal(beta.status()["role"], "ROLE_SECONDARY", "its role")
        alpha.expect("start", SUCCESS)
        alpha.expect("promote", SUCCESS)  # had it last, so boots it
        rig.await_protected(alpha, beta)

        # A daemon that was ended on a node that is well.
        beta.kill()
        rig.cluster.put({"online": True, "unclean": False, "runs": False}, "nodes", "beta")
        alpha.await_mode("degraded")
        alpha.expect("monitor", RUNNING_MASTER)
        alpha.await_mode("solo")


def ends_the_guest_for_good(build):
    with Rig(build) as rig:
        alpha, beta = rig.set_up()
        alpha.expect("demote", SUCCESS)  # and nobody is to be promoted
        equal(alpha.status()["role"], "ROLE_SECONDARY", "its role")
        beta.expect("monitor", SUCCESS)
        equal((beta.score, rig.record()), (None, "alpha:alone"), "after the guest was ended")
        alpha.expect("promote", SUCCESS)
        rig.await_protected(alpha, beta)
        alpha.expect("stop", SUCCESS)  # of a node that is still promoted
        alpha.expect("monitor", NOT_RUNNING)
        alpha.expect("stop", SUCCESS)
        beta.expect("promote", GENERIC)
        beta.expect("stop", SUCCESS)


def survives_a_frozen_daemon(build):
    with Rig(build) as rig:
        alpha, beta = rig.set_up()
        rig.await_steps(alpha)
        alpha.send(signal.SIGSTOP)
        alpha.expect("monitor", GENERIC)
        alpha.expect("demote", SUCCESS, CRM_meta_notify_promote_uname="beta")
        beta.expect("promote", SUCCESS)
        rig.await_steps(beta)
        rig.await_protected(beta, alpha)
        beta.send(signal.SIGSTOP)
        beta.expect("stop", SUCCESS, CRM_meta_timeout=12000)
        alpha.expect("promote", SUCCESS)
        rig.await_steps(alpha)


TESTS = (waits_for_a_slow_start, judges_configurations, moves_and_fails_over, never_promotes_what_is_old,
         ends_the_guest_for_good, survives_a_frozen_daemon)


def ocf_tester(build):
    with Rig(build) as rig, tempfile.TemporaryDirectory() as folder:
        node = rig.nodes[0]
        os.chmod(folder, 0o755)  # it wants to read the agent as nobody
        agent = shutil.copy(AGENT, folder)
        environment = node.environment()
        options = []
        for name in ("vm", "config", "first", "use_systemd", "log", "user", "romulusd", "romulusctl"):
            options += ["-o", f"{name}={environment.pop(f'OCF_RESKEY_{name}')}"]
        done = subprocess.run(["/usr/sbin/ocf-tester", "-n", "web", *options, agent], env=environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10 * pairlib.PATIENCE_S)
        print(done.stdout, end="")
        equal(done.returncode, 0, "ocf-tester")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--tester", action="store_true", help="let ocf-tester judge")
    parser.add_argument("--only", nargs="*", help="these tests, by the names of their functions")
    arguments = parser.parse_args()
    needed = {"/dev/kvm": "KVM", OCF_ROOT / "lib/heartbeat/ocf-shellfuncs": "Debian's resource-agents"}
    if arguments.tester:
        needed.update({"/usr/sbin/ocf-tester": "Debian's resource-agents", "/usr/bin/xmllint": "Debian's libxml2-utils"})
    for path, what in needed.items():
        if not os.path.exists(path):
            print(f"skipped: no {path} ({what})")
            return 77
    failed = 0
    for test in (ocf_tester,) if arguments.tester else TESTS:
        if arguments.only and test.__name__ not in arguments.only:
            continue
        try:
            test(arguments.build)
            print(f"ok   {test.__name__.replace('_', ' ')}", flush=True)
        except pairlib.PairError as error:
            failed += 1
            print(f"FAIL {test.__name__.replace('_', ' ')}: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
