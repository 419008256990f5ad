#!/usr/bin/env python3
"""P1 and P3 of a primary that is started again after its secondary may have been promoted.

It lets nothing out before the other node has answered, and of two that run the guest the one that the other
was promoted over is fenced, however often it was started and whatever its term is. Needs /dev/kvm.
"""

import unittest

import pair as pairlib

BUILD = None


def held_bytes(status):
    return int(status["counters"].get("held_output_bytes", 0))


class StalePrimary(unittest.TestCase):
    def setUp(self):
        self.pair = pairlib.Pair(
            BUILD, command_line="blocks=2048 block=4096 flush=8 sweep=16 rate=2000",
            kernel=BUILD / "guests/disk.elf", memory_mib=16, disks={"root": 16},
            limits="reconnect_max_ms: 300")
        self.enterContext(self.pair)
        self.joined = self.pair.config
        # The link is cut in both directions; or only on the way from alpha to beta.
        self.cut = self.config_without("cut", 0, 1)
        self.cut_one_way = self.config_without("cut_one_way", 1)

    def config_without(self, name, *ports):
        text = self.joined.read_text()
        for port in ports:
            dead = pairlib.free_ports(1)[0]
            text = text.replace(f":{self.pair.ports[port]}\"", f":{dead}\"")
        path = self.pair.folder / f"{name}.textproto"
        path.write_text(text)
        return path

    def start_alpha(self, config, role="primary"):
        self.pair.config = config
        (self.pair.folder / "alpha.console").unlink(missing_ok=True)
        return self.pair.start_node("alpha", role)

    def promoted(self):
        """beta goes on from alpha's last acked epoch, and alpha is dead."""
        alpha, beta = self.pair.start_protected()
        alpha.await_console("some steps", lambda said: pairlib.last_step(said) > 10)
        alpha.kill()
        status = beta.await_status("a promotion", lambda s: "last_failover" in s)
        return beta, int(status["term"])

    def expect_held(self, alpha):
        """The guest runs, talks, and is not heard."""
        status = alpha.await_status("held output", lambda s: held_bytes(s) > 100)
        self.assertEqual(status["mode"], "MODE_DEGRADED")
        self.assertIn("output is held", status["reason"])
        self.assertIn("unprotect --force", status["reason"])
        self.assertEqual(alpha.console(), b"")
        self.assertIn("event=output_held", alpha.log_path.read_text())

    def expect_fenced(self, alpha):
        status = alpha.await_mode("fenced")
        self.assertIn("promoted over this one", status["reason"])
        self.assertIn("start this node again as a secondary", status["reason"])
        self.assertIn("event=fenced", alpha.log_path.read_text())
        return status

    def expect_goes_on(self, beta):
        said = len(beta.console())
        status = beta.await_status("more output", lambda _: len(beta.console()) > said + 200)
        self.assertEqual(status["mode"], "MODE_SOLO")

    def test_P1_a_stale_one_says_nothing_however_often_it_is_started(self):
        beta, _ = self.promoted()
        for _ in range(4):
            alpha = self.start_alpha(self.cut)
            self.expect_held(alpha)
            alpha.kill()
            self.assertEqual(alpha.console(), b"")
        # Who asks whom makes no difference.
        for config in (self.cut_one_way, self.joined):
            alpha = self.start_alpha(config)
            self.expect_fenced(alpha)
            self.assertEqual(alpha.console(), b"")
            self.expect_goes_on(beta)
            alpha.kill()
        # What it wrote meanwhile was nobody's news: its disks are taken without an operator's word.
        alpha = self.start_alpha(self.joined, "secondary")
        beta.await_mode("protected")

    def test_P3_a_higher_term_saves_no_stale_one(self):
        beta, term = self.promoted()
        alpha = self.start_alpha(self.cut)
        self.expect_held(alpha)
        # An operator who is wrong; from then on it starts with open output.
        alpha.ctl("unprotect", "--force")
        own = 0
        for _ in range(10):
            if own > term:
                break
            alpha.kill()
            alpha = self.start_alpha(self.cut)
            own = int(alpha.await_mode("solo")["term"])
        self.assertGreater(own, term)
        alpha.await_status("output", lambda _: len(alpha.console()) > 100)
        for config in (self.joined, self.cut_one_way):
            alpha.kill()
            alpha = self.start_alpha(config)
            self.expect_fenced(alpha)
            self.expect_goes_on(beta)

    def test_P1_the_others_word_ends_the_hold(self):
        alpha, beta = self.pair.start_protected()
        alpha.await_console("some steps", lambda said: pairlib.last_step(said) > 10)
        beta.kill()
        alpha.await_mode("degraded")
        alpha.kill()
        # It refuses, and holds nothing that it could promote.
        alpha = self.start_alpha(self.joined)
        self.expect_held(alpha)
        other = self.pair.folder / "other.textproto"
        self.pair.write_config(other, memory_mib=24)
        self.pair.config = other
        beta = self.pair.start_node("beta", "secondary")
        status = alpha.await_mode("solo")
        self.assertIn("memory", status["reason"])
        alpha.await_status("output", lambda _: len(alpha.console()) > 100)
        beta.kill()
        # It accepts, and acks.
        self.pair.config = self.joined
        beta = self.pair.start_node("beta", "secondary")
        alpha.await_mode("protected")
        beta.kill()
        alpha.await_mode("degraded")
        alpha.kill()
        alpha = self.start_alpha(self.joined)
        self.expect_held(alpha)
        self.pair.start_node("beta", "secondary")
        alpha.await_mode("protected")
        alpha.await_status("output", lambda _: len(alpha.console()) > 100)


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
