#!/usr/bin/env python3
"""A guest with a disk on two daemons: what it reported is on the disk that survives, whoever dies.

The guest (tests/guests/disk) writes numbered records, flushes, and only then says a step; it reads back
what it wrote and says so if that is not what it finds: a promoted guest whose disk is of another moment
than its memory does not stay silent. Images are judged from outside as well (check_disk.py).
"""

import pathlib
import resource
import signal
import subprocess
import sys
import unittest

import pair as pairlib
import slow_link

BUILD = None
CHECK = pathlib.Path(__file__).parent.parent / "guests/disk/check_disk.py"
DISK_MIB = 16


def disk_of(status, name="root"):
    return next(d for d in status["disks"] if d["name"] == name)


class Disks(unittest.TestCase):
    def pair(self, options="", **changes):
        settings = dict(
            command_line=f"blocks=2048 block=4096 flush=8 sweep=16 rate=2000 {options}".strip(),
            kernel=BUILD / "guests/disk.elf", memory_mib=16, disks={"root": DISK_MIB},
            limits="reconnect_max_ms: 300")
        pair = pairlib.Pair(BUILD, **{**settings, **changes})
        self.enterContext(pair)
        return pair

    def steps_beyond(self, daemon, step, what="more steps"):
        return daemon.await_console(what, lambda said: pairlib.last_step(said) > step)

    def judge(self, pair, node, console, *options):
        said = pair.folder / "said"
        said.write_bytes(console)
        done = subprocess.run([sys.executable, CHECK, pair.image(node, "root"), said, *options],
                              capture_output=True, text=True, timeout=pairlib.PATIENCE_S)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def assert_healthy(self, console):
        for bad in (b"DISK CORRUPT", b"DISK ERROR"):
            self.assertNotIn(bad, console)

    # --- P1, P2: the primary dies

    def test_P2_a_promoted_guest_finds_the_disk_that_its_memory_knows(self):
        pair = self.pair("zeroes=7 discard=11")
        primary, secondary = pair.start_protected()
        said = self.steps_beyond(primary, 30)
        primary.kill()
        said = primary.console()
        secondary.await_status("a promotion", lambda s: "last_failover" in s)
        step = pairlib.last_step(said)
        # It sweeps over all it ever wrote every 16 steps.
        secondary.await_console("a sweep", lambda after: pairlib.last_step(
            pairlib.stream_continues(said, after)[1]) > step + 40)
        secondary.signal(signal.SIGTERM)
        self.assertEqual(secondary.process.wait(timeout=pairlib.PATIENCE_S), 0)
        joined, whole, explanation = pairlib.stream_continues(said, secondary.console())
        self.assertTrue(joined, explanation)
        self.assert_healthy(whole)
        self.judge(pair, "beta", whole, "--loose")

    def test_P1_P2_the_secondarys_copy_is_one_epoch_and_has_all_that_was_said(self):
        pair = self.pair(failover="heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000 "
                                  "on_secondary_lost: ON_SECONDARY_LOST_HOLD")
        primary, secondary = pair.start_protected()
        self.steps_beyond(primary, 20)
        primary.kill()
        secondary.await_status("the loss", lambda s: not s["peer"].get("connected"))
        status = secondary.status()
        self.assertGreater(int(status["epoch_acked"]), 0)
        secondary.signal(signal.SIGTERM)
        secondary.process.wait(timeout=pairlib.PATIENCE_S)
        # Nothing was promoted: this is the last acked epoch, byte for byte.
        self.judge(pair, "beta", primary.console())

    def test_the_primarys_own_copy_survives_its_death(self):
        pair = self.pair()
        primary, secondary = pair.start_protected()
        self.steps_beyond(primary, 20)
        primary.kill()
        self.judge(pair, "alpha", primary.console(), "--loose")
        secondary.await_status("a promotion", lambda s: "last_failover" in s)

    # --- the secondary dies, and comes again

    def test_a_secondary_that_comes_again_gets_what_differs(self):
        pair = self.pair(failover="heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000")
        primary, secondary = pair.start_protected()
        self.steps_beyond(primary, 20)
        first = int(primary.status()["sync"].get("disk_bytes_sent", 0))
        secondary.kill()
        primary.await_mode("solo")
        self.steps_beyond(primary, pairlib.last_step(primary.console()) + 5)
        secondary = pair.start_node("beta", "secondary")
        status = primary.await_mode("protected")
        sync = status["sync"]
        self.assertEqual(int(sync["disk_bytes_total"]), DISK_MIB << 20)
        self.assertEqual(int(sync["disk_bytes_done"]), DISK_MIB << 20)
        self.assertGreater(int(sync["disk_bytes_equal"]), 0, f"first sync sent {first}")
        step = pairlib.last_step(primary.console())
        self.steps_beyond(primary, step + 5)
        primary.kill()
        # No automatic failover: the operator's word.
        secondary.await_status("the loss", lambda s: not s["peer"].get("connected"))
        secondary.ctl("failover")
        said = primary.console()
        secondary.await_console("steps of the promoted guest", lambda after: pairlib.last_step(
            pairlib.stream_continues(said, after)[1]) > pairlib.last_step(said) + 20)
        self.assert_healthy(secondary.console())

    # --- bad input

    def test_a_full_disk_of_the_secondary_is_told_and_the_guest_goes_on(self):
        # A secondary that a sanitizer slows down takes longer than a second for an epoch of such writes.
        timeout_ms = 1000 if not pairlib.sanitizer(BUILD) else 10_000
        pair = self.pair(disks={"root": 8}, memory_mib=8,
                         command_line="blocks=128 block=32768 flush=4 verify=1",
                         failover=f"auto_failover: true heartbeat_timeout_ms: {timeout_ms}")
        # Of every file: image and guest memory fit, the journal soon does not.
        limit = (8 << 20) + (64 << 10)

        def small():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        journal = pair.folder / "beta/root.img.journal"
        secondary = pair.start_node("beta", "secondary", before_exec=small)
        secondary.await_status("an answer", lambda s: True)
        primary = pair.start_node("alpha", "primary")
        status = primary.await_status(
            "the word of the full disk",
            lambda s: s.get("mode") == "MODE_SOLO" and "gave its replica up" in s.get("reason", ""))
        self.assertIn(str(pair.folder / "beta/root.img"), status["reason"])
        held = secondary.await_mode("standby")
        self.assertIn(str(pair.folder / "beta/root.img"), held["reason"])
        # Not by force: the primary tries again, so there may be a new replica by now.
        self.assertNotEqual(secondary.ctl("failover", check=False).returncode, 0)
        self.steps_beyond(primary, pairlib.last_step(primary.console()) + 20)
        # Somebody makes room.
        resource.prlimit(secondary.pid, resource.RLIMIT_FSIZE,
                         (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        primary.await_mode("protected")
        self.steps_beyond(primary, pairlib.last_step(primary.console()) + 5)
        self.assert_healthy(primary.console())
        self.assertTrue(journal.exists())

    def test_disks_of_other_sizes_are_refused_by_name(self):
        for mib in (DISK_MIB - 1, DISK_MIB + 1):
            pair = self.pair()
            with open(pair.image("beta", "root"), "r+b") as image:
                image.truncate(mib << 20)
            primary, secondary = pair.start()
            status = primary.await_status(
                "the refusal", lambda s: "bytes on the primary" in s["peer"].get("detail", ""))
            for said in (str(DISK_MIB << 20), str(mib << 20), "'root'",
                         str(pair.image("beta", "root"))):
                self.assertIn(said, status["peer"]["detail"])
            self.assertEqual(status["mode"], "MODE_SOLO")
            self.steps_beyond(primary, 3)
            self.assertEqual(pair.image("beta", "root").stat().st_size, mib << 20)
            secondary.kill()
            primary.kill()

    # --- stale copies, and terms that survive

    def test_a_newer_copy_is_not_overwritten(self):
        pair = self.pair()
        primary, secondary = pair.start_protected()
        self.steps_beyond(primary, 10)
        primary.kill()
        term = int(secondary.await_status("a promotion", lambda s: "last_failover" in s)["term"])
        said = primary.console()
        secondary.await_console("steps of the promoted guest", lambda after: pairlib.last_step(
            pairlib.stream_continues(said, after)[1]) > pairlib.last_step(said) + 10)
        secondary.kill()
        content = pair.image("beta", "root").read_bytes()
        # The old primary's disk, although beta's has all that came after.
        primary = pair.start_node("alpha", "primary")
        secondary = pair.start_node("beta", "secondary")
        status = primary.await_status("the refusal",
                                      lambda s: "newer" in s["peer"].get("detail", ""))
        for said in ("'root'", str(term), "--role primary", "--overwrite-peer"):
            self.assertIn(said, status["peer"]["detail"])
        # Nor is anything of it heard beside that copy.
        self.assertEqual(status["mode"], "MODE_DEGRADED")
        self.assertIn("start it as the primary instead", status["reason"])
        self.assertEqual(pair.image("beta", "root").read_bytes(), content)
        # As often as one likes: its terms rise, and still prove nothing.
        for _ in range(5):
            primary.kill()
            primary = pair.start_node("alpha", "primary")
            primary.await_status("the refusal", lambda s: "newer" in s["peer"].get("detail", ""))
        self.assertEqual(pair.image("beta", "root").read_bytes(), content)
        # The remedies: the operator says that it is not wanted.
        primary.kill()
        primary = pair.start_node("alpha", "primary", "--overwrite-peer")
        status = primary.await_mode("protected")
        self.assertGreater(int(status["term"]), term)

    def test_a_replica_without_its_journal_is_not_overwritten_by_a_stranger(self):
        pair = self.pair(failover="heartbeat_interval_ms: 20 heartbeat_timeout_ms: 400")
        primary, secondary = pair.start_protected()
        self.steps_beyond(primary, 10)
        secondary.kill()
        primary.kill()
        journal = pair.folder / "beta/root.img.journal"
        journal.unlink()
        # The primary's host got a new disk: nothing of what was acked is on it.
        pair.image("alpha", "root").write_bytes(bytes(DISK_MIB << 20))
        (pair.folder / "alpha/root.img.romulus").unlink()
        content = pair.image("beta", "root").read_bytes()
        secondary = pair.start_node("beta", "secondary")
        copy = disk_of(secondary.await_status("an answer", lambda s: True))
        self.assertEqual(copy["role"], "secondary")
        self.assertIn(str(journal), copy["unusable"])
        primary = pair.start_node("alpha", "primary")
        status = primary.await_status(
            "the refusal", lambda s: "cannot be used as it is" in s["peer"].get("detail", ""))
        for said in ("'root'", str(journal), "--overwrite-peer"):
            self.assertIn(said, status["peer"]["detail"])
        self.assertEqual(pair.image("beta", "root").read_bytes(), content)
        primary.kill()
        primary = pair.start_node("alpha", "primary", "--overwrite-peer")
        primary.await_mode("protected")
        secondary.await_status("a good copy", lambda s: not disk_of(s).get("unusable"))

    def test_P8_the_secondarys_copy_is_said_to_be_at_the_epoch_that_it_holds(self):
        pair = self.pair()
        _, secondary = pair.start_protected()
        epoch = int(secondary.await_mode("protected")["epoch_acked"])
        # Many commits after the first.
        status = secondary.await_status(
            "the copy's epoch", lambda s: int(disk_of(s).get("epoch", 0)) > epoch + 20)
        self.assertEqual(disk_of(status)["role"], "secondary")

    def test_terms_survive_restarts(self):
        pair = self.pair()
        term = 0
        for _ in range(3):
            primary = pair.start_node("alpha", "primary")
            status = primary.await_mode("solo")
            self.assertGreater(int(status["term"]), term)
            term = int(status["term"])
            self.assertEqual(disk_of(status)["role"], "primary")
            self.assertEqual(int(disk_of(status)["term"]), term)
            primary.kill()

    def test_an_unfinished_copy_is_no_disk_for_a_primary(self):
        pair = self.pair()
        # Much to copy, over a link on which that takes seconds.
        with open(pair.image("alpha", "root"), "r+b") as image:
            for _ in range(DISK_MIB):
                image.write(bytes(range(256)) * 4096)
        secondary = pair.start_node("beta", "secondary")
        secondary.await_status("an answer", lambda s: True)
        link = self.enterContext(slow_link.SlowLink(pair.ports[1]))
        link.rate = 2 << 20
        direct = f'"127.0.0.1:{pair.ports[1]}"'
        pair.config.write_text(pair.config.read_text().replace(direct, f'"127.0.0.1:{link.port}"'))
        primary = pair.start_node("alpha", "primary")
        secondary.await_status("the copying", lambda s: disk_of(s)["role"] == "syncing")
        secondary.kill()
        primary.kill()
        failed = pair.start_node("beta", "primary")
        self.assertNotEqual(failed.process.wait(timeout=pairlib.PATIENCE_S), 0)
        log = failed.log_tail()
        self.assertIn(str(pair.image("beta", "root")), log)
        self.assertIn("start the other node as the primary", log)

    def test_a_disk_in_use_is_refused(self):
        pair = self.pair()
        primary = pair.start_node("alpha", "primary")
        primary.await_mode("solo")
        other = pair.folder / "other.textproto"
        pair.write_config(other)
        text = other.read_text().replace("alpha.sock", "gamma.sock").replace("}.console", "}.other")
        for port in pair.ports:
            text = text.replace(f":{port}\"", f":{pairlib.free_ports(1)[0]}\"")
        other.write_text(text)
        done = subprocess.run([BUILD / "daemon/romulusd", "run", "--config", other, "--node",
                               "alpha", "--role", "primary"], capture_output=True, text=True,
                              timeout=pairlib.PATIENCE_S)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(str(pair.image("alpha", "root")), done.stderr + done.stdout)


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
