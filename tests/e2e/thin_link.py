#!/usr/bin/env python3
"""Compression that pays: on loopback nothing is compressed, on a thin link it is, and the guest gets on faster for it.

The ledger writes a little into each of many pages, as fast as it can; whole pages are sent, which compress well. The link to the
secondary is throttled to a rate of which nobody is told; afterwards a failover shows that nothing was lost.
"""

import re
import sys
import time
import unittest
import urllib.request

import pair as pairlib
import slow_link

BUILD = None
RATE = 5_000_000  # bytes per second


class ThinLink(unittest.TestCase):
    def start(self, compression, rate=None):
        """A pair whose primary finds its secondary behind a link; (pair, link, primary, secondary)."""
        pair = pairlib.Pair(
            BUILD, command_line="workload=uniform pages=8000 bytes=128 report_ms=20", memory_mib=64,
            checkpoint="max_dirty_pages: 64 max_interval_us: 5000 min_interval_us: 1000 previous_cache_mib: 0"
                       f" compression: COMPRESSION_{compression}",
            failover="auto_failover: false heartbeat_interval_ms: 50 heartbeat_timeout_ms: 20000")
        pair.__enter__()
        self.addCleanup(lambda: pair.__exit__(None, None, None))
        secondary = pair.start_node("beta", "secondary")
        secondary.await_status("an answer", lambda s: True)
        link = slow_link.SlowLink(pair.ports[1])
        link.__enter__()
        self.addCleanup(lambda: link.__exit__(None, None, None))
        link.rate = rate
        text = pair.config.read_text()
        direct = f'"127.0.0.1:{pair.ports[1]}"'
        self.assertIn(direct, text)
        pair.config.write_text(text.replace(direct, f'"127.0.0.1:{link.port}"'))
        primary = pair.start_node("alpha", "primary")
        primary.await_mode("protected")
        return pair, link, primary, secondary

    def compressed(self, pair):
        """{method: (bytes before, after)}"""
        text = urllib.request.urlopen(f"http://127.0.0.1:{pair.ports[2]}/metrics",
                                      timeout=pairlib.PATIENCE_S).read().decode()
        counts = {}
        for side in ("in", "out"):
            for match in re.finditer(rf'^romulus_compression_{side}_bytes_total\{{(.*)\}} (\S+)$', text, re.M):
                method = re.search(r'method="(\w+)"', match[1])[1]
                counts.setdefault(method, []).append(float(match[2]))
        return counts

    def write_rate(self, daemon, link, window_bytes):
        """Page writes per second while so many bytes went."""
        def writes():
            return pairlib.judge_console(daemon.console()).get("writes") or 0
        before = writes()
        took_s = link.await_forwarded(window_bytes, pairlib.PATIENCE_S)
        return (writes() - before) / took_s

    def test_loopback_is_not_compressed_for(self):
        pair, link, primary, _ = self.start("AUTO")
        link.await_forwarded(64 << 20, pairlib.PATIENCE_S)
        for _ in range(10):
            link.await_forwarded(4 << 20, pairlib.PATIENCE_S)
            self.assertEqual(primary.status()["peer"]["compression"], "none")
        counts = self.compressed(pair)
        self.assertIn("lz4", counts)
        self.assertEqual([count for count in counts.values() if any(count)], [], "not even to try")

    def test_a_thin_link_is(self):
        _, link, plain, _ = self.start("OFF", RATE)
        link.await_forwarded(8 << 20, pairlib.PATIENCE_S)
        slow = self.write_rate(plain, link, 15 << 20)
        self.assertEqual(plain.status()["peer"]["compression"], "none")

        pair, link, primary, secondary = self.start("AUTO", RATE)
        began = time.monotonic()
        status = primary.await_status("a method", lambda s: s["peer"].get("compression", "none") != "none")
        took_s = time.monotonic() - began
        peer = status["peer"]
        # By what the proxy forwards; its sleeps are longer than asked.
        self.assertLess(int(peer["link_bytes_per_second"]), 3 * RATE)
        self.assertGreater(int(peer["link_bytes_per_second"]), RATE / 5)
        link.await_forwarded(8 << 20, pairlib.PATIENCE_S)
        fast = self.write_rate(primary, link, 15 << 20)
        counts = self.compressed(pair)
        print(f"{peer['compression']} after {took_s:.1f} s at {int(peer['link_bytes_per_second']) / 1e6:.1f} MB/s;"
              f" page writes/s {slow:.0f} as they are, {fast:.0f} compressed; {counts}", file=sys.stderr)
        self.assertGreater(fast, 1.3 * slow)
        before, after = counts[peer["compression"]]
        self.assertLess(after, 0.875 * before)

        pairlib.assert_guest_goes_on(self, primary, secondary)


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
