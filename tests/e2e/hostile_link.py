#!/usr/bin/env python3
"""A pair of daemons whose link lies, is cut without a word, or is crowded by strangers."""

import contextlib
import socket
import struct
import threading
import time
import unittest

import mangled_link
import pair as pairlib
from mangled_link import DOWN, UP

BUILD = None


class MangledPair(pairlib.Pair):
    """alpha reaches beta through `link`; beta reaches alpha directly."""

    def __init__(self, *args, **options):
        super().__init__(BUILD, *args, **options)
        self.link = mangled_link.MangledLink(self.ports[1])
        text = self.config.read_text()
        self.alphas_config = self.folder / "alpha.textproto"
        self.alphas_config.write_text(text.replace(f'"127.0.0.1:{self.ports[1]}"',
                                                   f'"127.0.0.1:{self.link.port}"'))

    def start_node(self, node, role):
        own, self.config = self.config, self.alphas_config if node == "alpha" else self.config
        try:
            return super().start_node(node, role)
        finally:
            self.config = own

    def __exit__(self, *what):
        super().__exit__(*what)
        self.link.close()


def frame_errors(daemon):
    return {kind: int(count) for kind, count in
            daemon.status()["counters"].get("frame_errors", {}).items()}


class HostileLink(unittest.TestCase):
    failover = "auto_failover: true heartbeat_interval_ms: 20 heartbeat_timeout_ms: {timeout_ms}"

    def open(self, timeout_ms=2000, **options):
        pair = MangledPair(failover=self.failover.format(timeout_ms=timeout_ms), **options)
        pair.__enter__()
        self.addCleanup(lambda: pair.__exit__(None, None, None))
        return pair

    def after_a_flipped_bit(self, direction):
        """The stream starts over in a new term; nobody is promoted, nothing is lost."""
        pair = self.open()
        primary, secondary = pair.start_protected()
        before = int(primary.status()["term"])
        pair.link.flip_a_bit(direction)
        primary.await_status("protection in a new term", lambda s: int(s["term"]) > before
                             and s["mode"] == "MODE_PROTECTED")
        held = secondary.await_mode("protected")
        self.assertEqual(held["role"], "ROLE_SECONDARY")
        self.assertNotIn("last_failover", held)
        said = len(primary.console())
        primary.await_status("more output", lambda _: len(primary.console()) > said + 500)
        self.assertTrue(pairlib.judge_console(primary.console())["good"])
        return primary, secondary

    def test_a_frame_damaged_on_its_way_to_the_secondary(self):
        primary, secondary = self.after_a_flipped_bit(UP)
        self.assertEqual(frame_errors(secondary), {"checksum": 1})
        self.assertEqual(frame_errors(primary), {})

    def test_a_frame_damaged_on_its_way_to_the_primary(self):
        primary, secondary = self.after_a_flipped_bit(DOWN)
        self.assertEqual(frame_errors(primary), {"checksum": 1})
        self.assertEqual(frame_errors(secondary), {})

    def test_P1_a_guest_that_ends_behind_a_dead_link_says_nothing_unacked(self):
        # Caps so wide that the guest comes to its end before anybody misses the other.
        pair = self.open(timeout_ms=8000, command_line="workload=uniform pages=4 report_ms=10 steps=300",
                         checkpoint="max_interval_us: 20000 min_interval_us: 10000 "
                                    "max_unacked_epochs: 4000 staging_mib: 256")
        primary, secondary = pair.start_protected()
        pair.link.stall(UP)
        self.assertNotIn("event=guest_stopped", primary.log_path.read_text(), "it ended too early to show anything")
        deadline = time.monotonic() + pairlib.PATIENCE_S
        while "event=guest_stopped" not in primary.log_path.read_text():
            self.assertTrue(primary.alive() and time.monotonic() < deadline, primary.log_tail())
            time.sleep(0.01)
        self.assertNotIn(b"done steps", primary.console())
        # It promotes itself, and the guest ends there once more; what was said before still holds.
        self.assertEqual(secondary.process.wait(timeout=pairlib.PATIENCE_S), 0, secondary.log_tail())
        self.assertIn("event=promoted", secondary.log_path.read_text())
        joined, whole, explanation = pairlib.stream_continues(primary.console(), secondary.console())
        self.assertTrue(joined, explanation)
        self.assertTrue(pairlib.judge_console(whole)["good"])
        self.assertIn(b"done steps 300", whole)

    def test_P1_unprotect_behind_a_dead_link_opens_nothing(self):
        pair = self.open(timeout_ms=8000)
        primary, secondary = pair.start_protected()
        pair.link.stall(UP)
        refused = primary.ctl("unprotect", check=False)
        self.assertEqual(refused.returncode, 4, refused)
        self.assertIn("--force", refused.stderr)
        # What it said until it was refused is what was acked: the promoted one says it as well.
        before = primary.console()
        primary.await_status("a hold", lambda s: s["mode"] in ("MODE_DEGRADED", "MODE_FENCED"))
        secondary.await_status("a promotion", lambda s: "last_failover" in s)
        secondary.await_status("more output", lambda _: len(secondary.console()) > len(before) + 500)
        joined, whole, explanation = pairlib.stream_continues(primary.console(),
                                                              secondary.console())
        self.assertTrue(joined, explanation)
        self.assertTrue(pairlib.judge_console(whole)["good"])

    def test_a_guest_that_ends_says_all_and_both_nodes_know(self):
        pair = self.open(command_line="workload=uniform pages=64 report_ms=10 steps=300")
        primary, secondary = pair.start_protected()
        self.assertEqual(primary.process.wait(timeout=pairlib.PATIENCE_S), 0, primary.log_tail())
        self.assertIn(b"done steps 300", primary.console())
        self.assertTrue(pairlib.judge_console(primary.console())["good"])
        finished = secondary.await_mode("finished")
        self.assertNotIn("last_failover", finished)

    def test_strangers_who_say_nothing_do_not_keep_the_primary_out(self):
        pair = self.open()
        secondary = pair.start_node("beta", "secondary")
        secondary.await_status("an answer", lambda s: True)
        strangers = [silent_stream(pair.ports[1]) for _ in range(16)]
        pair.start_node("alpha", "primary").await_mode("protected")
        for stranger in strangers:
            stranger.close()


def silent_stream(port):
    """An open gRPC call of Replicate on which nothing is said: HTTP/2, RFC 9113 and 7541."""
    def frame(kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(
            ">I", stream) + payload

    def literal(name, value):  # a field without indexing, not Huffman-coded
        return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value

    headers = b"".join(literal(*field) for field in (
        (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"stranger"),
        (b":path", b"/romulus.v1.Replication/Replicate"), (b"te", b"trailers"),
        (b"content-type", b"application/grpc")))
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
                       + frame(4, 1, 0, b"") + frame(1, 4, 1, headers))
    taken_in = threading.Event()

    def answer_pings():
        with contextlib.suppress(OSError, struct.error), connection.makefile("rb") as received:
            while head := received.read(9):
                kind, flags = head[3], head[4]
                payload = received.read(int.from_bytes(head[:3], "big"))
                taken_in.set()
                if kind == 6 and not flags & 1:
                    connection.sendall(frame(6, 1, 0, payload))

    threading.Thread(target=answer_pings, daemon=True).start()
    taken_in.wait(pairlib.PATIENCE_S)
    return connection


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
