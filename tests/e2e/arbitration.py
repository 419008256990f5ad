#!/usr/bin/env python3
"""P3 with a real etcd between two daemons: nobody is heard without its yes, and the loser ends.

Needs /dev/kvm and Debian's etcd-server.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import tempfile
import unittest
import uuid

import pair as pairlib

BUILD = None


def another_host():
    """For what this process becomes: a mount namespace of its own, where another host's machine-id is."""
    pairlib.die_with_parent()
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private, recursive, bind = 0x20000, 1 << 18, 1 << 14, 1 << 12
    own = tempfile.NamedTemporaryFile("w", prefix="machine-id-", delete=False)
    own.write(uuid.uuid4().hex + "\n")
    own.close()
    if (libc.unshare(new_namespace) or libc.mount(None, b"/", None, private | recursive, None)
            or libc.mount(own.name.encode(), b"/etc/machine-id", None, bind, None)):
        raise OSError(ctypes.get_errno(), "cannot be another host")
    os.unlink(own.name)


class Etcd:
    """One member on loopback, ended by its own pid."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="romulus-etcd-")
        client, peer = pairlib.free_ports(2)
        self.endpoint = f"127.0.0.1:{client}"
        self._log = open(f"{self.folder}/log", "wb")
        self.process = subprocess.Popen(
            ["etcd", "--data-dir", f"{self.folder}/data", "--name", "one",
             "--listen-client-urls", f"http://{self.endpoint}",
             "--advertise-client-urls", f"http://{self.endpoint}",
             "--listen-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-cluster", f"one=http://127.0.0.1:{peer}"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            preexec_fn=pairlib.die_with_parent)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def ctl(self, *arguments, value=None):
        """etcdctl's output, in bytes; `value` is what is put."""
        return subprocess.run(["etcdctl", f"--endpoints={self.endpoint}", *arguments], check=True, input=value,
                              stdout=subprocess.PIPE, env={**os.environ, "ETCDCTL_API": "3"},
                              timeout=pairlib.PATIENCE_S).stdout

    def end(self):
        self.process.kill()
        self.process.wait()
        self._log.close()
        shutil.rmtree(self.folder)


class Arbitration(unittest.TestCase):
    def setUp(self):
        self.etcd = Etcd()
        self.addCleanup(self.etcd.end)
        self.pair = pairlib.Pair(
            BUILD,
            failover="auto_failover: true heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000 "
                     f'arbiter {{ etcd {{ endpoints: "{self.etcd.endpoint}" timeout_ms: 1000 }} }}',
            limits="reconnect_max_ms: 300")
        self.enterContext(self.pair)

    def start(self):
        beta = self.pair.start_node("beta", None)
        beta.await_mode("standby")
        alpha = self.pair.start_node("alpha", "primary")
        alpha.await_mode("protected")
        return alpha, beta

    def await_steps(self, daemon, more=3):
        """The guest goes on, and is heard."""
        said = len(daemon.console())
        daemon.await_console("more steps", lambda data: data[said:].count(b"\nstep ") >= more)

    def test_the_first_start_of_all_is_an_operators(self):
        alpha = self.pair.start_node("alpha", None)
        beta = self.pair.start_node("beta", None)
        for node in alpha, beta:
            status = node.await_mode("standby")
            self.assertEqual(status["arbiter"]["kind"], "etcd")
            self.assertIn("started with `--role primary`, once", status["reason"])

    def test_killed_promoted_and_protected_again_without_a_word(self):
        alpha, beta = self.start()
        before = alpha.settled_console()
        alpha.kill()
        status = beta.await_status("a promotion", lambda s: "last_failover" in s)
        self.assertEqual(status["arbiter"]["last_verdict"], "yes")
        self.assertEqual(status["arbiter"]["holder"], "beta")
        # Whose the guest is nobody has to say: not to the one that was killed, ...
        alpha = self.pair.start_node("alpha", None)
        beta.await_mode("protected")
        alpha.await_mode("protected")
        self.assertEqual(alpha.status()["role"], "ROLE_SECONDARY")
        # ... nor to one that would begin again.
        alpha.kill()
        beta.await_status("the loss", lambda s: s["mode"] != "MODE_PROTECTED")
        stubborn = self.pair.start_node("alpha", "primary")
        self.assertEqual(stubborn.process.wait(timeout=pairlib.PATIENCE_S), 1)
        self.assertIn("node 'beta' holds term", stubborn.log_tail())
        # The guest is the one that it always was.
        self.await_steps(beta)
        good, whole, why = pairlib.stream_continues(before, beta.settled_console())
        self.assertTrue(good, why)
        self.assertTrue(pairlib.judge_console(whole)["good"])

    def test_both_killed_and_booted_in_either_order(self):
        for first, second in (("alpha", "beta"), ("beta", "alpha")):
            with self.subTest(first=first):
                if not self.pair.daemons:
                    self.start()
                for daemon in self.pair.daemons.values():
                    daemon.kill()
                nodes = {name: self.pair.start_node(name, None) for name in (first, second)}
                # Of whom the arbiter has heard last: alpha, or beta if it was quick.
                roles = {}
                for name, node in nodes.items():
                    roles[node.await_mode("protected")["role"]] = node
                self.assertEqual(set(roles), {"ROLE_PRIMARY", "ROLE_SECONDARY"})
                self.await_steps(roles["ROLE_PRIMARY"])

    def other_alpha(self):
        """How another host, which has its own machine-id and all else of alpha, starts its daemon."""
        other = self.pair.folder / "other.textproto"
        self.pair.write_config(other)
        text = other.read_text().replace("alpha.sock", "other.sock").replace("{node}.console", "other.console")
        for port, other_port in zip(self.pair.ports, pairlib.free_ports(4)):
            text = text.replace(f":{port}", f":{other_port}")  # they would be free there
        other.write_text(text)
        return [BUILD / "daemon/romulusd", "run", "--config", other, "--node", "alpha"]

    def take_over(self, command):
        """Returns when the other host has the record, and its guest is heard."""
        other_log = self.pair.folder / "other.log"
        with open(other_log, "wb") as log:
            replaced = subprocess.Popen([*command, "--role", "primary", "--take-over"], stdout=log, stderr=log,
                                        preexec_fn=another_host)
        self.addCleanup(replaced.wait)
        self.addCleanup(replaced.kill)
        self.pair.daemons["alpha"].await_status("the other to have the record",
                                                lambda _: b"mode=solo" in other_log.read_bytes())

    @unittest.skipUnless(os.path.exists("/etc/machine-id"), "no /etc/machine-id to put another one over")
    def test_P3_two_hosts_under_one_node_name(self):
        alpha, beta = self.start()
        beta.signal(signal.SIGTERM)
        beta.process.wait(timeout=pairlib.PATIENCE_S)
        alpha.await_mode("solo")
        command = self.other_alpha()
        for role in [], ["--role", "primary"]:
            ended = subprocess.run([*command, *role], capture_output=True, text=True,
                                   timeout=pairlib.PATIENCE_S, preexec_fn=another_host)
            self.assertEqual(ended.returncode, 1, ended.stderr)
            self.assertIn("two hosts are called node 'alpha'", ended.stderr)
            self.assertIn("--take-over", ended.stderr)
        self.await_steps(alpha)
        # It replaces the first, which was not gone: that one hears so, and does not follow under this name.
        self.take_over(command)
        self.pair.start_node("beta", "secondary")
        self.assertEqual(alpha.process.wait(timeout=pairlib.PATIENCE_S), 1)
        self.assertIn("two hosts are called node", alpha.log_tail())

    @unittest.skipUnless(os.path.exists("/etc/machine-id"), "no /etc/machine-id to put another one over")
    def test_P3_a_take_over_ends_one_that_is_in_step(self):
        alpha, _ = self.start()
        self.take_over(self.other_alpha())
        # It has no reason to ask, but looks at the record now and then.
        self.assertEqual(alpha.process.wait(timeout=pairlib.PATIENCE_S), 1)
        self.assertIn("two hosts are called node", alpha.log_tail())

    def test_P3_a_frozen_primary_that_returns_lets_nothing_out(self):
        text = self.pair.config.read_text()
        self.pair.config.write_text(text.replace("arbiter {", "stay_fenced: true arbiter {"))
        alpha, beta = self.start()
        self.await_steps(alpha)
        alpha.signal(signal.SIGSTOP)
        beta.await_status("a promotion", lambda s: "last_failover" in s)
        heard = alpha.console()
        self.await_steps(beta)
        alpha.signal(signal.SIGCONT)
        alpha.await_mode("fenced")
        late = alpha.settled_console()
        # What it had been acked before may still leave; beta knows it and says the same.
        self.assertTrue(late.startswith(heard))
        good, whole, why = pairlib.stream_continues(late, beta.settled_console())
        self.assertTrue(good, why)
        self.assertTrue(pairlib.judge_console(whole)["good"])

    def test_the_loser_follows_the_winner_without_a_word(self):
        alpha, beta = self.start()
        alpha.signal(signal.SIGSTOP)
        beta.await_status("a promotion", lambda s: "last_failover" in s)
        alpha.signal(signal.SIGCONT)
        status = alpha.await_mode("protected")
        self.assertEqual(status["role"], "ROLE_SECONDARY")
        self.await_steps(beta)
        # And back: the same two processes, in each other's place.
        beta.signal(signal.SIGSTOP)
        alpha.await_status("a promotion", lambda s: "last_failover" in s)
        beta.signal(signal.SIGCONT)
        beta.await_mode("protected")
        self.await_steps(alpha)

    def test_an_arbiter_that_is_away_disturbs_nobody_until_it_is_needed(self):
        alpha, beta = self.start()
        self.etcd.freeze()
        self.await_steps(alpha, more=200)
        self.assertEqual(alpha.status()["mode"], "MODE_PROTECTED")
        beta.kill()
        status = alpha.await_status("no answer",
                                    lambda s: "does not answer" in s.get("reason", ""))
        self.assertEqual(status["mode"], "MODE_DEGRADED")
        held = alpha.settled_console()
        alpha.await_status("another question",
                           lambda s: s["arbiter"]["last_unix_ms"] != status["arbiter"]["last_unix_ms"])
        self.assertEqual(alpha.console(), held)
        self.etcd.thaw()
        alpha.await_mode("solo")
        self.await_steps(alpha)

    def test_a_primary_that_is_heard_again_is_not_promoted_over_later(self):
        text = self.pair.config.read_text()
        self.pair.config.write_text(text.replace("heartbeat_timeout_ms: 1000", "heartbeat_timeout_ms: 300"))
        alpha, beta = self.start()
        self.etcd.freeze()
        alpha.signal(signal.SIGSTOP)
        beta.await_status("a claim", lambda s: s["arbiter"].get("asked") == "promote")
        alpha.signal(signal.SIGCONT)
        # Whichever of the two has given the stream up by then, neither of them is heard in vain.
        beta.await_status("a word of alpha's", lambda s: "asks the arbiter" not in s.get("reason", "")
                          or not s["peer"].get("connected"))
        still_in_step = beta.status()["peer"].get("connected")
        self.etcd.thaw()
        roles = [node.await_mode("protected")["role"] for node in (alpha, beta)]
        if still_in_step:
            self.assertEqual(roles, ["ROLE_PRIMARY", "ROLE_SECONDARY"])
            self.assertNotIn("last_failover", beta.status())
        self.await_steps(alpha if roles[0] == "ROLE_PRIMARY" else beta)

    def test_a_node_that_stops_takes_its_claim_back_or_says_so(self):
        alpha, beta = self.start()
        self.etcd.freeze()
        alpha.signal(signal.SIGSTOP)
        beta.await_status("a claim", lambda s: s["arbiter"].get("asked") == "promote")
        beta.signal(signal.SIGTERM)
        beta.process.wait(timeout=pairlib.PATIENCE_S)
        self.assertIn("claim_left_behind", beta.log_tail())
        # It had asked what the record says, and no more: the one that is left goes on.
        self.etcd.thaw()
        alpha.signal(signal.SIGCONT)
        alpha.await_mode("solo")
        self.await_steps(alpha)

    def test_a_secondary_touches_the_record_before_it_waits_for_a_primary(self):
        alpha = self.pair.start_node("alpha", "primary")
        alpha.await_mode("solo")
        alpha.signal(signal.SIGSTOP)  # what is written now is not its
        key = self.etcd.ctl("get", "--prefix", "/romulus/", "--keys-only").strip().decode()

        def entry():
            (found,) = json.loads(self.etcd.ctl("get", key, "-w", "json"))["kvs"]
            return found["mod_revision"], found["value"]

        for role in None, "secondary":
            revision, value = entry()
            beta = self.pair.start_node("beta", role)
            beta.await_mode("standby")
            self.assertEqual(entry(), (revision + 1, value), role)
            beta.kill()

    def test_a_record_that_is_deleted_is_written_again(self):
        alpha, beta = self.start()
        key = self.etcd.ctl("get", "--prefix", "/romulus/", "--keys-only").strip().decode()
        first = self.etcd.ctl("get", "--print-value-only", key)[:-1]  # without the newline behind it

        def await_record(node):
            def is_there(status):
                return self.etcd.ctl("get", "--keys-only", key).strip().decode() == key
            node.await_status("a record", is_there)

        self.etcd.ctl("del", key)  # while the two are in step
        await_record(alpha)
        beta.kill()
        alpha.await_mode("solo")
        self.etcd.ctl("del", key)  # while it is alone
        await_record(alpha)
        self.etcd.ctl("put", key, value=first)  # as from a backup
        beta = self.pair.start_node("beta", None)
        beta.await_mode("protected")
        self.await_steps(alpha)
        # And it decides, as before.
        alpha.kill()
        beta.await_status("a promotion", lambda s: "last_failover" in s)
        self.await_steps(beta)

    def test_without_an_answer_nobody_promotes_unless_forced(self):
        alpha, beta = self.start()
        self.etcd.freeze()
        alpha.kill()
        status = beta.await_status("no answer", lambda s: "does not answer" in s.get("reason", ""))
        self.assertEqual(status["mode"], "MODE_DEGRADED")
        asked = beta.ctl("failover", check=False)
        self.assertNotEqual(asked.returncode, 0)
        self.assertIn("arbiter", asked.stderr)
        beta.ctl("failover", "--force")
        self.await_steps(beta)
        # It is told of it once it is there again.
        self.etcd.thaw()
        beta.await_status("the record", lambda s: s["arbiter"].get("holder") == "beta")
        self.assertEqual(beta.status()["mode"], "MODE_SOLO")


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
