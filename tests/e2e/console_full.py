#!/usr/bin/env python3
"""A console file that cannot be written any more: nothing is dropped (P6), and a failover makes no gap.

The limit is RLIMIT_FSIZE of the running daemon, set from outside: to a write it is what a full disk is. It
also holds for the daemon's log, which is a file, but a shorter one.
"""

import resource
import unittest
import urllib.request

import pair as pairlib

BUILD = None
HELD_OUTPUT_BYTES = 16 << 10


def released(status):
    return int(status.get("console", {}).get("released", 0))


def queued(status):
    return int(status.get("console", {}).get("queued_bytes", 0))


class FullConsole(unittest.TestCase):
    def setUp(self):
        self.pair = pairlib.Pair(
            BUILD, command_line="workload=uniform pages=16 report_ms=1",
            checkpoint="max_interval_us: 2000 min_interval_us: 500"
                       f" held_output_kib: {HELD_OUTPUT_BYTES >> 10}")
        self.pair.__enter__()
        self.addCleanup(lambda: self.pair.__exit__(None, None, None))

    def limit(self, daemon, size_bytes):
        _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

    def fill(self, daemon):
        """Lets the console run into its limit; returns the size at which it stands."""
        daemon.await_status("output", lambda _: len(daemon.console()) > 4096)
        size = max(len(daemon.console()) + 2000, 2 * daemon.log_path.stat().st_size)
        self.limit(daemon, size)
        daemon.await_status("a failed console", lambda s: s.get("console", {}).get("failure"))
        # The guest waits: nothing is added to the queue between two looks that are many steps apart.
        daemon.await_status("a guest that waits", lambda s: queued(s) > HELD_OUTPUT_BYTES)
        status = daemon.status()
        self.assertIn("File too large", status["reason"])
        self.assertEqual(released(status), size)
        self.assertEqual(len(daemon.console()), size)
        return size

    def judge(self, before, after):
        joined, whole, explanation = pairlib.stream_continues(before, after)
        self.assertTrue(joined, explanation)
        verdict = pairlib.judge_console(whole)
        self.assertTrue(verdict["good"], verdict)

    def test_the_guest_waits_and_goes_on(self):
        primary, _ = self.pair.start_protected()
        size = self.fill(primary)
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{self.pair.ports[2]}/metrics",
                                         timeout=pairlib.PATIENCE_S).read().decode()
        lines = [line for line in metrics.splitlines() if line.startswith("romulus_console_failing{")]
        self.assertEqual([line.split()[-1] for line in lines], ["1"])
        # Epochs go on while the guest waits; the bytes that wait are bounded.
        epoch = int(primary.status()["epoch_acked"])
        later = primary.await_status("more epochs", lambda s: int(s["epoch_acked"]) > epoch + 50)
        held = int(later["counters"].get("held_output_bytes", 0))
        self.assertLess(queued(later) + held, 2 * HELD_OUTPUT_BYTES + 8192)
        self.assertEqual(len(primary.console()), size)
        self.limit(primary, resource.RLIM_INFINITY)
        primary.await_status("output", lambda _: len(primary.console()) > size + 3 * HELD_OUTPUT_BYTES)
        status = primary.status()
        self.assertFalse(status["console"].get("failure"))
        self.assertNotIn("File too large", status["reason"])
        self.judge(b"", primary.console())
        log = primary.log_path.read_text()
        self.assertEqual(log.count("event=console_failed"), 1, primary.log_tail())
        self.assertEqual(log.count("event=console_goes_on"), 1, primary.log_tail())

    def fails_over(self, primary, secondary, size):
        primary.kill()
        secondary.await_status("a promotion", lambda s: "last_failover" in s)
        secondary.await_status("more output",
                               lambda _: len(secondary.console()) > size + 3 * HELD_OUTPUT_BYTES)
        self.judge(primary.console(), secondary.console())

    def test_what_waited_is_said_by_the_survivor(self):
        primary, secondary = self.pair.start_protected()
        self.fails_over(primary, secondary, self.fill(primary))

    def test_what_was_said_solo_is_said_by_the_survivor(self):
        primary = self.pair.start_node("alpha", "primary")
        size = self.fill(primary)
        secondary = self.pair.start_node("beta", "secondary")
        primary.await_mode("protected")
        self.fails_over(primary, secondary, size)


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
