#!/usr/bin/env python3
"""A secondary that is slower than the primary: the guest is slowed, memory stays within the caps (P6).

The ledger writes whole pages as fast as it can. The link to the secondary is throttled, or the secondary
stopped for a moment; afterwards the pair is in step without another full sync, and a failover shows that
nothing was dropped. Rates are compared with each other, never with a number.
"""

import pathlib
import re
import signal
import sys
import time
import unittest
import urllib.request

import pair as pairlib
import slow_link

BUILD = None
STAGING_MIB = 4
HELD_OUTPUT_KIB = 64
MAX_UNACKED = 8
# Beyond the staging pool: what the link and gRPC may queue (twice 4 MiB), encoder, allocator.
RSS_SLACK_MIB = 24
# TSan's shadow is four times what it shadows, ASan's an eighth.
RSS_SHADOWED = {"thread": 5, "address": 2}


class SlowSecondary(unittest.TestCase):
    def setUp(self):
        # A step is a line of some 60 bytes, each an exit: where exits are dear, not oftener than every 20 ms, or the guest
        # does nothing else.
        self.pair = pairlib.Pair(
            BUILD, command_line="workload=uniform pages=500 bytes=4096 report_ms=20",
            memory_mib=64,
            checkpoint=f"max_dirty_pages: 64 max_interval_us: 5000 min_interval_us: 1000"
                       f" staging_mib: {STAGING_MIB} held_output_kib: {HELD_OUTPUT_KIB}"
                       f" max_unacked_epochs: {MAX_UNACKED} previous_cache_mib: 16",
            failover="auto_failover: false heartbeat_interval_ms: 50 heartbeat_timeout_ms: 20000")
        self.pair.__enter__()
        self.addCleanup(lambda: self.pair.__exit__(None, None, None))

    def start(self, link=None):
        secondary = self.pair.start_node("beta", "secondary")
        secondary.await_status("an answer", lambda s: True)
        if link is not None:  # the primary finds its secondary behind the link
            text = self.pair.config.read_text()
            direct = f'"127.0.0.1:{self.pair.ports[1]}"'
            self.assertIn(direct, text)
            self.pair.config.write_text(text.replace(direct, f'"127.0.0.1:{link.port}"'))
        primary = self.pair.start_node("alpha", "primary")
        primary.await_mode("protected")
        return primary, secondary

    def metrics(self):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.pair.ports[2]}/metrics",
                                      timeout=pairlib.PATIENCE_S).read().decode()
        return {match[1]: float(match[2])
                for match in re.finditer(r"^(romulus_\w+)\{[^}]*\} (\S+)$", text, re.M)}

    def rss_mib(self, daemon):
        """Memory of the daemon apart from the guest's, which is shared (memfd) and as large as it is."""
        fields = dict(line.split(":", 1) for line in
                      pathlib.Path(f"/proc/{daemon.pid}/status").read_text().splitlines())
        return int(fields["RssAnon"].split()[0]) / 1024

    def writes(self, daemon):
        return pairlib.judge_console(daemon.console()).get("writes") or 0

    def assert_within_caps(self, daemon, rss_before_mib):
        counters = daemon.status()["counters"]
        metrics = self.metrics()
        for name, counter, cap in (
                ("romulus_staging_used_bytes", "staging_used_bytes", STAGING_MIB << 20),
                ("romulus_held_output_bytes", "held_output_bytes", (HELD_OUTPUT_KIB << 10) + 4096),
                ("romulus_unacked_epochs", "unacked_epochs", MAX_UNACKED)):
            self.assertLessEqual(metrics[name], cap, name)
            self.assertLessEqual(int(counters.get(counter, 0)), cap, counter)
        room_mib = (STAGING_MIB + RSS_SLACK_MIB) * RSS_SHADOWED.get(pairlib.sanitizer(BUILD), 1)
        self.assertLess(self.rss_mib(daemon), rss_before_mib + room_mib)
        return metrics

    def rate_over(self, daemon, link, window_bytes):
        """The guest's page writes per second while so many bytes went over the link."""
        before = self.writes(daemon)
        took_s = link.await_forwarded(window_bytes, pairlib.PATIENCE_S)
        return (self.writes(daemon) - before) / took_s

    def assert_nothing_lost(self, primary, secondary):
        status = primary.await_mode("protected")
        self.assertEqual(int(status["sync"]["completed"]), 1, "the stream was lost on the way")
        self.assertEqual(int(status["counters"].get("epochs_aborted", 0)), 0)
        pairlib.assert_guest_goes_on(self, primary, secondary)

    def test_a_slow_link(self):
        with slow_link.SlowLink(self.pair._ports()[1]) as link:
            primary, secondary = self.start(link)
            free = self.rate_over(primary, link, 32 << 20)
            rss_mib = self.rss_mib(primary)
            # A tenth of what it just took, whatever this host manages.
            began = time.monotonic()
            link.await_forwarded(16 << 20, pairlib.PATIENCE_S)
            link.rate = (16 << 20) / (time.monotonic() - began) / 10
            # Until what lies in buffers on the way has left, the guest lives on it.
            link.await_forwarded(8 << 20, pairlib.PATIENCE_S)
            fullest = 0.0
            for _ in range(3):
                slow = self.rate_over(primary, link, 6 << 20)  # some epochs, each of at most 2 MiB
                metrics = self.assert_within_caps(primary, rss_mib)
                fullest = max(fullest, metrics["romulus_unacked_epochs"] / MAX_UNACKED,
                              metrics["romulus_staging_used_bytes"] / (STAGING_MIB << 20))
                self.assertGreater(slow, 0, "the guest stands still")
                self.assertLess(slow, free / 2, "the guest runs ahead of its secondary")
            self.assertGreater(fullest, 0.5, "no cap was ever near: this tests nothing")
            link.rate = None
            link.await_forwarded(16 << 20, pairlib.PATIENCE_S)
            for _ in range(20):  # a busy machine has slow moments of its own
                again = self.rate_over(primary, link, 16 << 20)
                if again > 2 * slow:
                    break
            self.assertGreater(again, 2 * slow, "the guest stays slow")
            print(f"page writes/s: free {free:.0f}, throttled {slow:.0f}, free again {again:.0f}",
                  file=sys.stderr)
            self.assert_nothing_lost(primary, secondary)

    def test_a_secondary_that_stands_still(self):
        primary, secondary = self.start()
        primary.await_status("output", lambda _: self.writes(primary) > 1000)
        rss_mib = self.rss_mib(primary)
        for _ in range(4):
            secondary.signal(signal.SIGSTOP)
            try:
                # A cap stops the guest: no epoch is cut any more.
                primary.await_status("a cap", lambda s: self.stands(primary, s))
                self.assert_within_caps(primary, rss_mib)
            finally:
                secondary.signal(signal.SIGCONT)
            acked = int(primary.status()["epoch_acked"])
            primary.await_status("more epochs", lambda s: int(s["epoch_acked"]) > acked + 50)
        self.assert_nothing_lost(primary, secondary)

    def stands(self, daemon, status):
        # Whichever cap comes first: large epochs fill the staging memory, small ones the slots.
        if int(status["counters"].get("unacked_epochs", 0)) == 0:
            return False
        time.sleep(0.2)  # many intervals of an epoch
        return int(daemon.status()["epoch_cut"]) == int(status["epoch_cut"])


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
