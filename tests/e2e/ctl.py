#!/usr/bin/env python3
"""What romulusctl tells: events that survive restarts, a screen that follows a failover, a page for a browser.

Needs /dev/kvm, python3-pyte (a terminal in memory) and chromium.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request

import ctl_screen
import pair as pairlib

BUILD = None
HOSTILE = '</td></table><script>document.title="owned"</script><img src="http://192.0.2.1/x.png">\x1b[2J'


class WithPair(unittest.TestCase):
    def setUp(self):
        self.pair = pairlib.Pair(BUILD)
        self.pair.__enter__()
        self.addCleanup(lambda: self.pair.__exit__(*sys.exc_info()))
        with open(self.pair.config, "a") as config:
            config.write(f'events {{ folder: "{self.pair.folder}" history_period_ms: 200 }}\n')

    def command(self, node, *arguments):
        return [str(BUILD / "daemon/romulusctl"), "--address", f"unix://{self.pair.folder}/{node}.sock",
                *map(str, arguments)]

    def run_ctl(self, node, *arguments):
        return subprocess.run(self.command(node, *arguments), capture_output=True, text=True,
                              timeout=pairlib.PATIENCE_S)

    def events(self, node, *arguments):
        done = self.run_ctl(node, "events", "--last", "0", "--json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def kinds(self, node):
        return [event["kind"] for event in self.events(node)]

    def journal(self, node):
        return self.pair.folder / f"ledger.{node}.events.jsonl"


class Events(WithPair):
    def test_tell_a_failover_and_survive_the_daemon(self):
        primary, secondary = self.pair.start_protected()
        follower = subprocess.Popen(self.command("beta", "events", "--follow", "--json"),
                                    stdout=subprocess.PIPE, text=True, preexec_fn=pairlib.die_with_parent)
        self.addCleanup(follower.stdout.close)
        self.addCleanup(follower.wait)
        self.addCleanup(follower.kill)
        primary.kill()
        for line in follower.stdout:
            if json.loads(line)["kind"] == "promoted":
                break
        secondary.await_status("a promotion", lambda s: "last_failover" in s)
        said = self.events("beta")
        self.assertEqual([e["number"] for e in said], sorted((e["number"] for e in said), key=int))
        kinds = [event["kind"] for event in said]
        steps = ["started", "hello", "full_sync_received", "stream_closed", "promoting", "promoted"]
        self.assertLessEqual(set(steps), set(kinds), kinds)
        at = [kinds.index(kind) for kind in steps]
        self.assertEqual(at, sorted(at), kinds)
        promoted = said[kinds.index("promoted")]
        self.assertEqual((promoted["vm"], promoted["node"], promoted["severity"]),
                         ("ledger", "beta", "SEVERITY_INFO"))
        self.assertRegex(promoted["time"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d")
        self.assertEqual(promoted["fields"]["term"], secondary.status()["term"])
        self.assertIn("term", kinds[kinds.index("stream_closed"):])

        # alpha was killed; what it knew is still there, and it goes on counting.
        before = [json.loads(line) for line in self.journal("alpha").read_text().splitlines()]
        synced = next(event for event in before if event["kind"] == "full_sync_done")
        self.assertGreaterEqual(int(synced["fields"]["pages"]), 32 << 8)  # of 32 MiB, not the last round's
        self.pair.start_node("alpha", "secondary")
        secondary.await_mode("protected")
        after = self.events("alpha")
        self.assertEqual([e["number"] for e in after[:len(before)]], [e["number"] for e in before])
        self.assertEqual(after[len(before)]["kind"], "started")
        # The one who follows is not lost when its daemon is restarted.
        secondary.signal(signal.SIGTERM)
        self.assertEqual(secondary.process.wait(timeout=pairlib.PATIENCE_S), 0)
        self.pair.start_node("beta", "secondary")
        seen = []
        for line in follower.stdout:
            seen.append(json.loads(line)["kind"])
            if seen[-1] == "started":
                break
        self.assertIn("signal", seen)
        self.assertIn("left", seen)

        people = self.run_ctl("alpha", "events", "--since", "1h").stdout
        self.assertRegex(people, r"(?m)^time +number +term +level +event +what$")
        self.assertRegex(people, r"(?m)^20\S+Z +\d+ +\d+ info +started +the daemon started, romulus")
        self.assertEqual(len(self.run_ctl("alpha", "events", "--last", "2").stdout.splitlines()), 3)

    def test_a_torn_and_hostile_journal_is_no_reason_not_to_start(self):
        event = {"number": "1", "time": "2026-01-01T00:00:00Z", "kind": "left", "text": HOSTILE}
        self.journal("alpha").write_bytes(json.dumps(event).encode() + b"\n\xff\x00{]\n" + b'{"number":"7","ti')
        primary = self.pair.start_node("alpha", "primary")
        primary.await_mode("solo")
        said = self.events("alpha")
        self.assertEqual(said[0]["number"], "1")
        unreadable = [e for e in said if e["kind"] == "events_unreadable"]
        self.assertEqual(unreadable[0]["fields"]["lines"], "2")
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.pair.ports[2]}/metrics",
                                      timeout=pairlib.PATIENCE_S).read().decode()
        self.assertRegex(page, r"(?m)^romulus_events_unreadable_lines\{.*\} 2$")
        self.assertNotIn("\x1b", self.run_ctl("alpha", "events").stdout)

    def test_a_configuration_that_was_refused_is_told_later(self):
        good = self.pair.config.read_text()
        out_of_range = good.replace("checkpoint {", "checkpoint { max_dirty_pages: 0", 1)
        for text in out_of_range, good + "guest { vcpus: many }":
            self.pair.config.write_text(text)
            refused = self.pair.start_node("alpha", "primary")
            self.assertEqual(refused.process.wait(timeout=pairlib.PATIENCE_S), 2)
        self.pair.config.write_text(good)
        primary = self.pair.start_node("alpha", "primary")
        primary.await_mode("solo")
        said = self.events("alpha")
        self.assertEqual([event["kind"] for event in said[:3]], ["config_refused", "config_refused", "started"])
        self.assertIn("max_dirty_pages", said[0]["text"])
        self.assertIn(f"{self.pair.config}:", said[1]["text"])
        # A second daemon with a bad one does not write to the journal of the first, which runs.
        self.pair.config.write_text(out_of_range)
        second = self.pair.start_node("alpha", "primary")
        self.assertEqual(second.process.wait(timeout=pairlib.PATIENCE_S), 2)
        self.assertEqual(self.kinds("alpha").count("config_refused"), 2)
        self.assertTrue(primary.alive())
        primary.kill()

    def test_a_journal_that_is_another_daemons_is_left_alone(self):
        self.journal("alpha").mkdir()
        primary = self.pair.start_node("alpha", "primary")
        primary.await_mode("solo")
        primary.await_status("a word", lambda _: "events_not_written" in self.kinds("alpha"))
        self.assertIn("started", self.kinds("alpha"))

    def test_what_cannot_be_is_refused(self):
        for arguments, code, words in ((("events", "--since", "soon"), 2, "neither a time ago"),
                                       (("events",), 3, "no romulusd answers"),
                                       (("report", "--since", "x", "--out", "-"), 2, "--since"),
                                       (("report",), 2, "--out is required")):
            done = self.run_ctl("alpha", *arguments)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(words, done.stderr)


class Screen(WithPair):
    def test_follows_a_failover_and_leaves_the_terminal_as_it_was(self):
        primary, secondary = self.pair.start_protected()
        watch = self.command("beta", "watch", "--interval", "0.2")
        with ctl_screen.Terminal(watch) as terminal:
            terminal.await_text(r"^secondary, protected since .*^epochs +[1-9][\d.]* /s .*[▂-█]")
            terminal.await_text(r"hello: 'alpha' at ")
            primary.kill()
            shown = terminal.await_text(r"^primary, solo since .*^pause p99 .*promoted: the guest runs here")
            self.assertNotRegex(shown, r"(?m)^secondary, protected")
            # A smaller terminal: nothing goes on in the next line.
            terminal.resize(12, 40)
            shown = terminal.await_text(r"^ledger on beta .*^primary, solo since .*^epochs ")
            self.assertLessEqual(len(shown.splitlines()), 12)
            # A daemon that is gone is told, and the screen stays.
            secondary.kill()
            terminal.await_text(r"^NO ANSWER: ")
            self.assertEqual(terminal.end(b"\x03"), (0, ctl_screen.AS_IT_WAS))

    def test_every_ending_leaves_the_terminal_as_it_was(self):
        self.pair.start_node("alpha", "primary").await_mode("solo")
        for name, how in ctl_screen.ENDINGS.items():
            with self.subTest(name), ctl_screen.Terminal(self.command("alpha", "watch")) as terminal:
                terminal.await_text(r"^primary, solo since ")
                self.assertEqual(terminal.end(how), (0, ctl_screen.AS_IT_WAS))

    def test_needs_a_terminal_and_a_daemon(self):
        self.pair.start_node("alpha", "primary").await_mode("solo")
        done = self.run_ctl("alpha", "watch")
        self.assertEqual(done.returncode, 2)
        self.assertIn("draws on a terminal", done.stderr)
        with ctl_screen.Terminal(self.command("beta", "watch")) as terminal:
            terminal.process.wait(timeout=pairlib.PATIENCE_S)
            terminal.read(1)
            self.assertIn(b"no romulusd answers", terminal.raw)
            self.assertNotIn(b"\x1b", terminal.raw)
            self.assertEqual(terminal.process.returncode, 3)


class Page(WithPair):
    def in_browser(self, page):
        """(DOM as text, what the page said on its console, the URLs that it asked for)."""
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder, "net.json")
            # As root there is no sandbox; what is not the page's is switched off.
            done = subprocess.run(
                ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 "--no-first-run", "--enable-logging=stderr", f"--log-net-log={log}",
                 "--net-log-capture-mode=Everything",
                 "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}/profile",
                 "--virtual-time-budget=2000", "--dump-dom", f"file://{page}"],
                capture_output=True, text=True, timeout=pairlib.PATIENCE_S,
                env={**os.environ, "HOME": folder}, preexec_fn=pairlib.die_with_parent)
            self.assertEqual(done.returncode, 0, done.stderr)
            asked = set(re.findall(r'"url":"([^"]+)"', log.read_text()))
        # What the browser asks for itself, in vain as all else, is not the page's doing.
        asked = {url for url in asked if not re.match(r"https?://\w+\.(google|googleapis)\.com/", url)}
        said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        return done.stdout, said, asked

    def test_is_whole_and_asks_nobody(self):
        event = {"number": "1", "time": "2026-01-01T00:00:00Z", "kind": "left", "text": HOSTILE}
        self.journal("beta").write_text(json.dumps(event) + "\n")
        primary, secondary = self.pair.start_protected()

        def has_samples_of(*modes):
            done = self.run_ctl("beta", "report", "--json", "--out", "-")
            return set(modes) <= {sample["mode"] for sample in json.loads(done.stdout).get("samples", [])}

        secondary.await_status("samples", lambda _: has_samples_of("MODE_PROTECTED"))
        primary.kill()
        secondary.await_mode("solo")
        secondary.await_status("samples", lambda _: has_samples_of("MODE_PROTECTED", "MODE_SOLO"))

        page = self.pair.folder / "page.html"
        done = self.run_ctl("beta", "report", "--since", "9999d", "--out", page)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(list(self.pair.folder.glob("*.part")), [])
        dom, said, asked = self.in_browser(page)
        self.assertEqual(said, [])
        self.assertEqual(asked, set())
        self.assertIn("<title>Romulus: ledger on beta</title>", dom)
        self.assertEqual(dom.count("<figure>"), 7)
        self.assertGreaterEqual(dom.count("<polyline"), 8)
        self.assertIn('class="mode-protected"', dom)
        self.assertIn('class="mode-solo"', dom)
        self.assertRegex(dom, r"<td>promoted</td><td>the guest runs here in term")
        # Text stays text.
        self.assertIn('&lt;script&gt;document.title="owned"&lt;/script&gt;', dom)
        self.assertNotIn("<script", dom)
        self.assertNotIn("<img", dom)

        # The browser would have told.
        spoilt = self.pair.folder / "spoilt.html"
        spoilt.write_text('<script>console.error("loud")</script><img src="http://192.0.2.1/x.png">')
        _, said, asked = self.in_browser(spoilt)
        self.assertTrue(any("loud" in line for line in said), said)
        self.assertTrue(any("192.0.2.1" in url for url in asked), asked)

    def test_a_file_that_cannot_be_written_is_said(self):
        self.pair.start_node("alpha", "primary").await_mode("solo")
        done = self.run_ctl("alpha", "report", "--out", "/nonexistent/page.html")
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nonexistent/page.html", done.stderr)


class Help(unittest.TestCase):
    def test_every_command_has_an_example_and_the_exit_codes_are_told(self):
        def help_of(*command):
            done = subprocess.run([str(BUILD / "daemon/romulusctl"), *command, "--help"], capture_output=True,
                                  text=True, timeout=pairlib.PATIENCE_S)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout

        top = help_of()
        self.assertRegex(top, r"Exit codes: 0 .*1 .*2 .*3 .*4 ")
        commands = re.findall(r"(?m)^  ([a-z]+) {2,}", top.split("Subcommands:")[1])
        self.assertLessEqual({"status", "watch", "events", "report", "failover", "switchover"}, set(commands))
        for command in commands:
            with self.subTest(command):
                self.assertRegex(help_of(command), rf"Example:\n +romulusctl .*\b{command}\b")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    arguments, rest = parser.parse_known_args()
    BUILD = arguments.build.resolve()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
