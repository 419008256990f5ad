#!/usr/bin/env python3
"""A fence command decides, while the daemon that runs it, and so the command, has a system call filter.

Needs /dev/kvm.
"""

import signal
import unittest

import pair as pairlib

BUILD = None

# What it was asked, and what it may; by a program, a pipe and a child of its own.
SAYS_YES = """\
#!/bin/sh
{ env | grep ^ROMULUS_ | sort; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; } | cat >FOLDER/asked
echo "the peer is off" &
wait
exit 0
"""


class FenceCommands(unittest.TestCase):
    failover = "auto_failover: true heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000 " \
               'arbiter { command { argv: "FENCE" timeout_ms: TIMEOUT delay_ms: 0 } }'

    def pair(self, script, timeout_ms=20_000):
        pair = pairlib.Pair(BUILD, failover=self.failover.replace("TIMEOUT", str(timeout_ms)),
                            limits="reconnect_max_ms: 300")
        pair.__enter__()
        self.addCleanup(lambda: pair.__exit__(None, None, None))
        self.fence = pair.folder / "fence"
        self.fence.write_text(script.replace("FOLDER", str(pair.folder)))
        self.fence.chmod(0o755)
        pair.config.write_text(pair.config.read_text().replace("FENCE", str(self.fence)))
        return pair

    def await_refusal(self, daemon, *words):
        """It promotes nobody; the status says why, an operator hears the same, and his force goes on."""
        status = daemon.await_status(f"a refusal: {words}", lambda s: all(word in s["reason"] for word in words))
        self.assertEqual(status["mode"], "MODE_DEGRADED")
        self.assertIn("`romulusctl failover --force` promotes without its word", status["reason"])
        asked = daemon.ctl("failover", check=False)
        self.assertEqual(asked.returncode, 1, asked.stderr)
        for word in words:
            self.assertIn(word, asked.stderr)
        self.assertNotIn("no romulusd answers", asked.stderr)
        daemon.ctl("failover", "--force")
        self.assertEqual(daemon.status()["mode"], "MODE_SOLO")

    def test_its_yes_promotes_and_it_has_the_daemons_filter(self):
        pair = self.pair(SAYS_YES)
        primary, secondary = pair.start_protected()
        primary.kill()
        status = secondary.await_status("a promotion", lambda s: "last_failover" in s)
        self.assertEqual((status["arbiter"]["kind"], status["arbiter"]["last_verdict"]), ("command", "yes"))
        asked = (pair.folder / "asked").read_text()
        for line in ("ROMULUS_ACTION=promote", "ROMULUS_NODE=beta", "ROMULUS_PEER=alpha", "ROMULUS_VM=ledger"):
            self.assertIn(f"{line}\n", asked)
        log = secondary.log_path.read_text()
        self.assertIn("the peer is off", log)
        if not pairlib.sanitizer(BUILD):
            self.assertIn("event=syscall_filter vm=ledger node=beta is=wide", log)
            self.assertIn("Seccomp:\t2\n", asked)
            self.assertIn("NoNewPrivs:\t1\n", asked)
        said = len(secondary.console())
        secondary.await_status("more output", lambda _: len(secondary.console()) > said + 500)
        # The next one is run by a daemon that has had its filter for long, and was fenced meanwhile.
        alpha = pair.start_node("alpha", "secondary")
        secondary.await_mode("protected")
        secondary.signal(signal.SIGSTOP)
        alpha.await_status("a promotion", lambda s: "last_failover" in s)
        self.assertIn("ROMULUS_NODE=alpha\n", (pair.folder / "asked").read_text())

    def test_what_the_filter_keeps_from_it_is_named(self):
        if pairlib.sanitizer(BUILD):
            self.skipTest("a build with sanitizers has no filter")
        pair = self.pair("#!/bin/sh\nexec unshare --net true\n")
        primary, secondary = pair.start_protected()
        primary.kill()
        self.await_refusal(secondary, "ended with 1; it said: unshare: ", "Operation not permitted")

    def test_one_that_is_gone_or_cannot_be_run_is_named(self):
        for how, word in (self.take_away, "No such file or directory"), (self.forbid, "Permission denied"):
            with self.subTest(word):
                pair = self.pair(SAYS_YES)
                primary, secondary = pair.start_protected()
                how()
                primary.kill()
                self.await_refusal(secondary, f"cannot run {self.fence}", word, "mend the arbiter's command")

    def take_away(self):
        self.fence.unlink()

    def forbid(self):
        self.fence.chmod(0o644)

    def test_one_that_fails_or_never_returns_decides_nothing_and_says_what_to_do(self):
        for script, end in (("exit 1", "ended with 1"), ("kill -9 $$", "ended by signal 9"),
                            ("exec sleep 1000", "did not end in time")):
            with self.subTest(script):
                pair = self.pair(f"#!/bin/sh\n{script}\n", timeout_ms=1000)
                primary, secondary = pair.start_protected()
                primary.kill()
                self.await_refusal(secondary, end)


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
