#!/usr/bin/env python3
"""What becomes of the guest when its daemon is told to stop: handed over, asked to power off, or ended.

Needs /dev/kvm.
"""

import json
import resource
import signal
import threading
import time
import unittest

import pair as pairlib
import switchover

BUILD = None
# A secondary that is frozen for a while is not lost.
PATIENT = "auto_failover: false heartbeat_interval_ms: 20 heartbeat_timeout_ms: 60000"
LISTENS = "workload=uniform pages=64 report_ms=5 power_button=1"


class Stopping(unittest.TestCase):
    def make(self, stop, **options):
        options.setdefault("failover", switchover.MANUAL)
        pair = pairlib.Pair(BUILD, stop=stop, limits="reconnect_max_ms: 300", **options)
        pair.__enter__()
        self.addCleanup(lambda: pair.__exit__(None, None, None))
        return pair

    def ended(self, daemon, code=0):
        self.assertEqual(daemon.process.wait(timeout=pairlib.PATIENCE_S), code, daemon.log_tail())
        return daemon.log_path.read_text()

    def stop(self, daemon, code=0):
        daemon.signal(signal.SIGTERM)
        return self.ended(daemon, code)

    def test_P2_a_protected_guest_is_handed_over(self):
        """By the default, back and forth: whoever was stopped is started as the secondary again."""
        pair = self.make("")
        here, there = pair.start_protected()
        for _ in range(2):
            step = switchover.last_step(pair)
            here.await_status("steps", lambda s: switchover.last_step(pair) >= step + 5)
            log = self.stop(here)
            self.assertIn('what="the guest was handed over', log)
            self.assertNotIn("event=begins_anew", log.rpartition("event=signal")[2])
            status = there.await_status("the guest", lambda s: s["role"] == "ROLE_PRIMARY")
            self.assertEqual(status["last_switchover"]["result"], "taken_over")
            self.assertNotIn("last_failover", status)
            pair.start_node(here.node, "secondary")
            here, there = there, pair.daemons[here.node]
            switchover.await_roles(pair, here, there)
        step = switchover.last_step(pair)
        here.await_status("the guest to go on", lambda s: switchover.last_step(pair) >= step + 5)
        here.ctl("pause")
        whole, wrong = switchover.said_once(here.settled_console(), there.console())
        self.assertEqual(wrong, "")
        self.assertTrue(pairlib.judge_console(whole)["good"])

    def test_a_lone_guest_is_asked_to_power_off(self):
        pair = self.make("", command_line=LISTENS, vcpus=2)
        alpha = pair.start_node("alpha", "primary")
        alpha.await_console("steps", lambda said: said.count(b"step ") > 3)
        log = self.stop(alpha)
        self.assertIn("event=guest_asked_to_power_off", log)
        self.assertIn("event=guest_stopped vm=ledger node=alpha reason=power_off", log)
        self.assertIn(b"ledger: done", alpha.console())

    def test_a_protected_guest_is_shut_down_if_that_is_wanted(self):
        pair = self.make("on_stop: ON_STOP_SHUT_DOWN", command_line=LISTENS)
        alpha, beta = pair.start_protected()
        self.assertIn("reason=power_off", self.stop(alpha))
        # Its last words were acked, as all others.
        self.assertIn(b"ledger: done", alpha.console())
        beta.await_mode("finished")

    def test_a_guest_that_cannot_hear_is_ended_at_once(self):
        pair = self.make("shut_down_seconds: 3600")
        alpha = pair.start_node("alpha", "primary")
        alpha.await_console("steps", lambda said: said.count(b"step ") > 3)
        log = self.stop(alpha)
        self.assertIn('event=guest_not_asked vm=ledger node=alpha why="it does not listen to ACPI"', log)
        self.assertIn("event=left", log)

    def test_a_guest_that_does_not_go_is_ended_and_a_second_signal_does_not_wait(self):
        # It listens, and its next step, which is when it looks, is a day away.
        deaf = "workload=uniform pages=64 report_ms=86400000 power_button=1"
        for seconds, again in (1, False), (3600, True):
            with self.subTest(seconds):
                pair = self.make(f"shut_down_seconds: {seconds}", command_line=deaf)
                alpha = pair.start_node("alpha", "primary")
                alpha.await_console("the guest, which listens before it speaks", lambda said: b"\n" in said)
                alpha.signal(signal.SIGTERM)
                self.await_log(alpha, "event=guest_asked_to_power_off")
                self.assertEqual(alpha.status()["mode"], "MODE_SOLO")
                if again:
                    alpha.signal(signal.SIGTERM)
                log = self.ended(alpha)
                self.assertIn("event=shutdown_forced" if again else "event=guest_stays", log)

    def test_what_cannot_be_handed_over_is_shut_down(self):
        pair = self.make("", command_line=LISTENS)
        alpha, beta = pair.start_protected()
        alpha.ctl("unprotect")
        self.assertIn("reason=power_off", self.stop(alpha))
        self.assertTrue(beta.alive())

    def test_a_secondary_that_dies_meanwhile_does_not_keep_the_daemon(self):
        pair = self.make("hand_over_ms: 1000", command_line=LISTENS)
        alpha, beta = pair.start_protected()
        beta.signal(signal.SIGSTOP)
        log = self.stop(alpha)
        self.assertIn("event=hand_over_failed", log)
        self.assertIn("reason=power_off" if "event=guest_asked_to_power_off" in log else "event=left", log)

    def test_a_paused_guest_is_left_with_its_last_epoch(self):
        pair = self.make("")
        alpha, beta = pair.start_protected()
        alpha.ctl("pause")
        log = self.stop(alpha)
        held = beta.await_mode("degraded")
        self.assertIn(f"the secondary holds epoch {held['epoch_acked']}", log)

    def switchover_under_way(self, **options):
        """Of an operator: the guest stands still, and its last epoch is not acked, as beta is frozen."""
        pair = self.make("", failover=PATIENT, **options)
        alpha, beta = pair.start_protected()
        beta.signal(signal.SIGSTOP)
        asked = []
        operator = threading.Thread(target=lambda: asked.append(alpha.ctl("switchover", check=False)))
        operator.start()
        alpha.await_status("a switchover under way", lambda s: "hands over" in s["reason"])
        alpha.signal(signal.SIGTERM)
        self.await_log(alpha, "event=signal")

        def answer():
            operator.join()
            return asked[0]

        return alpha, beta, answer

    def await_log(self, daemon, words):
        deadline = time.monotonic() + pairlib.PATIENCE_S
        while words not in daemon.log_path.read_text():
            self.assertLess(time.monotonic(), deadline, daemon.log_tail())
            time.sleep(0.01)

    def test_a_stop_during_an_operators_switchover_waits_for_it(self):
        alpha, beta, answer = self.switchover_under_way()
        beta.signal(signal.SIGCONT)
        log = self.ended(alpha)
        self.assertIn('what="the guest was handed over', log)
        self.assertEqual(log.count("event=switchover_begins"), 1, log)
        self.assertNotIn("event=begins_anew", log)
        said = answer()
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertEqual(json.loads(said.stdout)["new_primary"], "beta")
        beta.await_status("the guest", lambda s: s["role"] == "ROLE_PRIMARY")
        # One of the two said each byte.
        said = len(beta.console())
        beta.await_status("the guest to go on", lambda s: len(beta.console()) > said + 500)
        beta.ctl("pause")
        whole, wrong = switchover.said_once(alpha.console(), beta.settled_console())
        self.assertEqual(wrong, "")
        self.assertTrue(pairlib.judge_console(whole)["good"])

    def test_a_stop_during_a_switchover_that_fails_asks_the_guest(self):
        alpha, beta, answer = self.switchover_under_way(command_line=LISTENS)
        beta.kill()
        log = self.ended(alpha)
        self.assertIn("event=hand_over_failed", log)
        self.assertEqual(log.count("event=guest_asked_to_power_off"), 1, log)
        self.assertIn("event=guest_stopped vm=ledger node=alpha reason=power_off", log)
        said = answer()
        self.assertNotEqual(said.returncode, 0)
        self.assertIn("secondary", said.stderr)

    def test_a_hand_over_that_an_operator_gives_up_does_not_keep_the_guest(self):
        """Its console stands still, so its last words do not leave this node; it is asked to power off, and hears it
        before the time for the hand-over is over."""
        pair = self.make("hand_over_ms: 25000 shut_down_seconds: 10", command_line=LISTENS, failover=PATIENT)
        alpha, _ = pair.start_protected()
        alpha.await_console("steps", lambda said: said.count(b"step ") > 3)
        # Long before that the console is larger; the log goes on for a while.
        size = max(len(alpha.console()) + 1000, 4 * alpha.log_path.stat().st_size)
        _, hard = resource.prlimit(alpha.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(alpha.pid, resource.RLIMIT_FSIZE, (size, hard))
        alpha.await_status("a console that fails", lambda s: s.get("console", {}).get("failure"))
        alpha.signal(signal.SIGTERM)
        alpha.await_status("a hand-over", lambda s: "hands over" in s["reason"])
        alpha.ctl("unprotect", "--force")
        log = self.ended(alpha)
        self.assertIn("event=guest_asked_to_power_off", log)
        self.assertNotIn("event=guest_stays", log)
        self.assertIn("reason=power_off", log)

    def test_a_stop_right_after_an_operators_switchover_leaves_the_guest_where_it_went(self):
        pair = self.make("")
        alpha, beta = pair.start_protected()
        asked = alpha.ctl("switchover")
        self.assertEqual(asked["new_primary"], "beta")
        beta.await_status("the guest", lambda s: s["role"] == "ROLE_PRIMARY")
        # alpha is the secondary by now, or about to be: a stop just ends it.
        self.stop(alpha)
        self.assertTrue(beta.alive())


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
