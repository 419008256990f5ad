#!/usr/bin/env python3
"""A secondary to which more strangers connect than it can take still hears its primary."""

import os
import resource
import socket
import time
import unittest

import pair as pairlib

BUILD = None
MOST = 64  # connections that a server has at once
# A connection without a call: the preface and empty settings (RFC 9113, 3.4 and 6.5).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4" + bytes(5)


class Crowded(unittest.TestCase):
    def setUp(self):
        self.pair = pairlib.Pair(BUILD)
        self.pair.__enter__()
        self.addCleanup(lambda: self.pair.__exit__(None, None, None))
        self.secondary = self.pair.start_node("beta", "secondary")
        self.secondary.await_status("an answer", lambda s: True)

    def strangers(self, count, says=b""):
        found = []
        for _ in range(count):
            found.append(socket.create_connection(("127.0.0.1", self.pair.ports[1]),
                                                  timeout=pairlib.PATIENCE_S))
            self.addCleanup(found[-1].close)
            found[-1].sendall(says)
        return found

    def descriptors(self):
        return os.listdir(f"/proc/{self.secondary.pid}/fd")

    def lowest_free(self):
        """The number that its next descriptor has."""
        used = {int(number) for number in self.descriptors()}
        return next(number for number in range(len(used) + 1) if number not in used)

    def await_that(self, what, holds):
        deadline = time.monotonic() + pairlib.PATIENCE_S
        while not holds():
            self.assertTrue(self.secondary.alive() and time.monotonic() < deadline,
                            f"{what}: {self.secondary.log_tail()}")
            time.sleep(0.01)

    def await_log(self, text):
        self.await_that(text, lambda: text in self.secondary.log_path.read_text())

    def await_ended(self, strangers):
        for stranger in strangers:
            stranger.settimeout(pairlib.PATIENCE_S)
            try:
                while stranger.recv(4096):
                    pass
            except ConnectionResetError:
                pass

    def crowded_lines(self):
        return self.secondary.log_path.read_text().count("event=connections_crowded")

    def test_P7_out_of_descriptors_for_a_moment(self):
        usual = resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE, (self.lowest_free(), usual[1]))
        strangers = self.strangers(24)
        self.await_log("Too many open files")
        resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE, usual)
        for stranger in strangers:
            stranger.close()
        self.pair.start_node("alpha", "primary").await_mode("protected")
        self.assertEqual(self.crowded_lines(), 1)

    def test_P7_no_connection_gets_the_last_descriptors(self):
        usual = resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE, (self.lowest_free() + 3, usual[1]))
        self.await_ended(self.strangers(1))
        self.await_log("few descriptors are left")
        resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE, usual)
        self.pair.start_node("alpha", "primary").await_mode("protected")

    def test_P7_nor_does_one_that_takes_anothers_place(self):
        usual = resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE)
        used, kept = {int(number) for number in self.descriptors()}, 4
        limit = max(used) + 4 + kept
        places = limit - kept - len(used)
        resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE, (limit, usual[1]))
        oldest = self.strangers(places)[0]
        newest = self.strangers(1)[0]
        self.await_ended([oldest])
        self.await_that("the last are free", lambda: max(map(int, self.descriptors())) < limit - kept)
        newest.setblocking(False)
        with self.assertRaises(BlockingIOError, msg="it had one of the last until it was ended"):
            newest.recv(1)
        resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE, usual)
        self.pair.start_node("alpha", "primary").await_mode("protected")

    def test_P7_the_limit_on_descriptors_falls_below_the_connections(self):
        usual = resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE)
        few = len(self.descriptors())
        self.strangers(MOST)
        resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE, (few, usual[1]))
        self.strangers(MOST)
        self.await_log("connections_crowded")
        resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE, usual)
        self.pair.start_node("alpha", "primary").await_mode("protected")

    def test_silent_strangers_make_room_for_the_primary(self):
        before = len(self.descriptors())
        strangers = self.strangers(4 * MOST)
        self.await_log("connections_crowded")
        self.pair.start_node("alpha", "primary").await_mode("protected")
        self.assertEqual(self.crowded_lines(), 1)
        self.await_ended(strangers)
        # What a prepared machine holds is less than the strangers would.
        self.assertLess(len(self.descriptors()), before + MOST)

    def test_strangers_without_a_call_are_ended(self):
        strangers = self.strangers(MOST, says=PREFACE)
        self.strangers(MOST, says=PREFACE)
        self.pair.start_node("alpha", "primary").await_mode("protected")
        self.await_ended(strangers)

    def test_the_limit_is_the_hard_one(self):
        soft, hard = resource.prlimit(self.secondary.pid, resource.RLIMIT_NOFILE)
        self.assertEqual(soft, hard)


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
