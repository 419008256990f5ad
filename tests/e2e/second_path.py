#!/usr/bin/env python3
"""Two daemons that hear each other on two paths: what is cut, and who goes on.

A stream that is cut while the second path stands promotes nobody and costs no output for longer than one
question and its answer; only what is silent on both paths is lost. Needs /dev/kvm.
"""

import contextlib
import signal
import socket
import sys
import threading
import time
import unittest
import urllib.request

import pair as pairlib

BUILD = None


class CutLink:
    """A TCP proxy that can be cut, so that both ends hear of it, or hushed, so that nobody does."""

    def __init__(self, target):
        self.target = target
        self.changed = threading.Condition()
        self.is_cut = self.is_hushed = False
        self.sockets = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        with self.changed:
            self.is_cut = True
            for one in self.sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def hush(self):
        with self.changed:
            self.is_hushed = True

    def heal(self):
        with self.changed:
            self.is_cut = self.is_hushed = False
            self.changed.notify_all()

    def close(self):
        self.cut()
        self.heal()
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                with self.changed:
                    if self.is_cut:
                        near.close()
                        continue
                    try:
                        far = socket.create_connection(("127.0.0.1", self.target))
                    except OSError:
                        near.close()
                        continue
                    self.sockets |= {near, far}
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source, sink):
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self.changed:
                    self.changed.wait_for(lambda: not self.is_hushed)
                sink.sendall(data)
        for end in (source, sink):  # whoever reads the other way hears of it
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class TwoPathPair(pairlib.Pair):
    """alpha reaches beta through `stream` and `second`, beta alpha (with its own stream) through `back`."""

    def __init__(self, **options):
        super().__init__(BUILD, **options)
        beats = [port for port in pairlib.free_ports(6) if port not in self.ports][:2]
        text = self.config.read_text()
        for port, beat in zip(self.ports[:2], beats):
            line = f'  replication_address: "127.0.0.1:{port}"\n'
            text = text.replace(line, f'{line}  heartbeat_address: "127.0.0.1:{beat}"\n')
        self.stream, self.second = CutLink(self.ports[1]), CutLink(beats[1])
        self.back = CutLink(self.ports[0])
        alphas, betas = self.folder / "alpha.textproto", self.folder / "beta.textproto"
        self.configs = {"alpha": alphas, "beta": betas}
        betas.write_text(
            text.replace(f'"127.0.0.1:{self.ports[0]}"', f'"127.0.0.1:{self.back.port}"'))
        alphas.write_text(
            text.replace(f'"127.0.0.1:{self.ports[1]}"', f'"127.0.0.1:{self.stream.port}"')
                .replace(f'"127.0.0.1:{beats[1]}"', f'"127.0.0.1:{self.second.port}"'))

    def start_node(self, node, role, *arguments, before_exec=None):
        own, self.config = self.config, self.configs[node]
        try:
            return super().start_node(node, role, *arguments, before_exec=before_exec)
        finally:
            self.config = own

    def start_on_both_paths(self):
        primary, secondary = self.start_protected()
        for node in primary, secondary:
            node.await_status("the second path", lambda s: path_of(s, "second").get("heard"))
        return primary, secondary

    def __exit__(self, *what):
        super().__exit__(*what)
        for link in (self.stream, self.second, self.back):
            link.close()


def path_of(status, name):
    return next((path for path in status.get("paths", []) if path["path"] == name), {})


class SecondPath(unittest.TestCase):
    failover = "auto_failover: true heartbeat_interval_ms: 50 heartbeat_timeout_ms: 3000"

    def open(self, failover=None):
        pair = TwoPathPair(failover=failover or self.failover,
                           limits="reconnect_min_ms: 50 reconnect_max_ms: 300")
        pair.__enter__()
        self.addCleanup(lambda: pair.__exit__(*sys.exc_info()))
        return pair

    def await_steps(self, daemon, more=3):
        said = len(daemon.console())
        daemon.await_console("more steps", lambda data: data[said:].count(b"\nstep ") >= more)

    def after_a_lost_stream(self, lose):
        pair = self.open()
        primary, secondary = pair.start_on_both_paths()
        before = int(primary.status()["term"])
        lose(pair.stream)
        alone = primary.await_mode("solo")
        self.assertIn("given its replica up", alone["reason"])
        self.assertGreater(int(alone["term"]), before)
        idle = secondary.await_mode("standby")
        self.assertIn("second path", idle["reason"])
        self.await_steps(primary)
        # Protection comes back by itself.
        pair.stream.heal()
        primary.await_mode("protected")
        held = secondary.await_mode("protected")
        self.assertEqual(held["role"], "ROLE_SECONDARY")
        self.assertNotIn("last_failover", held)
        self.await_steps(primary)
        self.assertTrue(pairlib.judge_console(primary.settled_console())["good"])

    def test_P3_a_cut_stream_promotes_nobody(self):
        self.after_a_lost_stream(CutLink.cut)

    def test_P3_a_silent_stream_promotes_nobody(self):
        self.after_a_lost_stream(CutLink.hush)

    def test_P8_a_lost_second_path_is_told_and_nothing_else(self):
        pair = self.open()
        primary, secondary = pair.start_on_both_paths()
        term = primary.status()["term"]
        pair.second.cut()
        for node in primary, secondary:
            status = node.await_status("the loss", lambda s: not path_of(s, "second").get("heard"))
            self.assertEqual(status["mode"], "MODE_PROTECTED")
            self.assertIn("the second path is silent", status["reason"])
            self.assertIn("event=second_path_silent", node.log_path.read_text())
            self.assertTrue(path_of(status, "stream")["heard"])
        url = f"http://127.0.0.1:{pair.ports[2]}/metrics"
        deadline = time.monotonic() + pairlib.PATIENCE_S

        def metric_is(value):
            with urllib.request.urlopen(url, timeout=pairlib.PATIENCE_S) as page:
                lines = page.read().decode().splitlines()
            return any(line.startswith("romulus_path_heard{") and 'path="second"' in line
                       and line.endswith(f" {value}") for line in lines)

        while not metric_is(0):
            self.assertLess(time.monotonic(), deadline)
        self.await_steps(primary)
        pair.second.heal()
        for node in primary, secondary:
            status = node.await_status(
                "the second path", lambda s: int(path_of(s, "second").get("rtt_ns", 0)) > 0)
            self.assertEqual((status["mode"], status["term"]), ("MODE_PROTECTED", term))
        self.assertIn("path second", primary.ctl("status", json_output=False))

    def test_P3_both_cut_is_a_loss_and_the_old_primary_ends(self):
        pair = self.open()
        primary, secondary = pair.start_on_both_paths()
        self.await_steps(primary)
        pair.back.cut()  # the promoted one cannot say so on a stream of its own
        pair.second.cut()
        secondary.await_status("the loss", lambda s: not path_of(s, "second").get("heard"))
        pair.stream.cut()
        secondary.await_status("a promotion", lambda s: "last_failover" in s)
        held = primary.await_mode("degraded")
        self.assertIn("output is held", held["reason"])
        said = primary.settled_console()
        self.await_steps(secondary)
        # The second path alone is enough to hear that it is over.
        pair.second.heal()
        fenced = primary.await_mode("fenced")
        self.assertIn("promoted over this one", fenced["reason"])
        self.assertEqual(primary.settled_console(), said)
        good, whole, why = pairlib.stream_continues(said, secondary.settled_console())
        self.assertTrue(good, why)
        self.assertTrue(pairlib.judge_console(whole)["good"])

    def test_P3_the_second_path_holds_a_promotion_back_until_it_is_silent_too(self):
        pair = self.open()
        primary, secondary = pair.start_on_both_paths()
        primary.signal(signal.SIGSTOP)
        status = secondary.await_status("a promotion", lambda s: "last_failover" in s)
        detected_ms = int(status["last_failover"]["detect_ns"]) / 1e6
        print(f"stopped primary: lost {detected_ms:.0f} ms after its last word", flush=True)
        self.await_steps(secondary)
        primary.signal(signal.SIGCONT)
        primary.await_mode("fenced")

    def test_a_dead_primary_is_lost_at_once(self):
        # Sooner than any silence is noticed: both connections end with the process.
        pair = self.open("auto_failover: true heartbeat_interval_ms: 50 "
                         "heartbeat_timeout_ms: 600000")
        primary, secondary = pair.start_on_both_paths()
        primary.kill()
        secondary.await_status("a promotion", lambda s: "last_failover" in s)

    def test_an_operator_is_refused_while_the_primary_is_heard(self):
        pair = self.open("auto_failover: false on_secondary_lost: ON_SECONDARY_LOST_SOLO "
                         "heartbeat_interval_ms: 50 heartbeat_timeout_ms: 3000")
        primary, secondary = pair.start_on_both_paths()
        pair.stream.cut()
        primary.await_mode("solo")
        status = secondary.await_mode("degraded")
        self.assertIn("heard on the second path", status["reason"])
        refused = secondary.ctl("failover", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("heard on the second path", refused.stderr)
        primary.kill()
        secondary.await_status("silence", lambda s: not path_of(s, "second").get("heard"))
        secondary.ctl("failover")
        self.await_steps(secondary)


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
