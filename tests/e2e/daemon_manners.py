#!/usr/bin/env python3
"""What romulusd and romulusctl say when something is wrong, and what they leave when told to stop."""

import os
import pathlib
import resource
import signal
import subprocess
import unittest

import pair as pairlib

BUILD = None


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          timeout=pairlib.PATIENCE_S)


class WithPair(unittest.TestCase):
    vcpus = 1
    failover = "auto_failover: false heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000"

    def setUp(self):
        self.pair = pairlib.Pair(BUILD, failover=self.failover, vcpus=self.vcpus)
        self.pair.__enter__()
        self.addCleanup(lambda: self.pair.__exit__(None, None, None))
        self.romulusd = BUILD / "daemon/romulusd"
        self.romulusctl = BUILD / "daemon/romulusctl"

    def refused(self, code, *words, config=None, arguments=()):
        done = run(self.romulusd, "run", "--config", config or self.pair.config, *arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)


class Refusals(WithPair):
    def test_a_bad_configuration_names_line_and_field(self):
        config = self.pair.folder / "bad.textproto"
        self.pair.write_config(config, checkpoint="max_dirty_pages: 0", tracking="BITMAP")
        self.refused(2, "checkpoint.max_dirty_pages", "out of range", f"{config}:", config=config,
                     arguments=("--node", "alpha"))

    def test_an_unknown_node(self):
        self.refused(2, "'gamma' is none of the nodes", arguments=("--node", "gamma"))

    def test_a_missing_kernel(self):
        config = self.pair.folder / "bad.textproto"
        self.pair.write_config(config, kernel="/no/such/kernel")
        self.refused(2, "guest.kernel", "/no/such/kernel", "No such file", config=config,
                     arguments=("--node", "alpha"))

    def test_a_kernel_that_is_none(self):
        config = self.pair.folder / "bad.textproto"
        self.pair.write_config(config, kernel=__file__)
        self.refused(1, pathlib.Path(__file__).name, config=config,
                     arguments=("--node", "alpha", "--role", "primary"))

    def test_a_kernel_that_ends_early(self):
        kernel = self.pair.folder / "short.elf"
        whole = pathlib.Path(self.pair.options["kernel"]).read_bytes()
        kernel.write_bytes(whole[:len(whole) // 2])
        config = self.pair.folder / "bad.textproto"
        self.pair.write_config(config, kernel=kernel)
        self.refused(1, "short.elf", config=config,
                     arguments=("--node", "alpha", "--role", "primary"))

    def test_an_initrd_that_does_not_fit(self):
        initrd = self.pair.folder / "large.cpio"
        with open(initrd, "wb") as file:
            file.truncate(64 << 20)  # the guest has 32 MiB
        config = self.pair.folder / "bad.textproto"
        self.pair.write_config(config, initrd=initrd)
        self.refused(1, "initrd", config=config,
                     arguments=("--node", "alpha", "--role", "primary"))

    def test_no_permission_for_kvm(self):
        if os.getuid() != 0:
            self.skipTest("only root can become somebody without permission")
        device = self.pair.folder / "kvm"
        device.touch(mode=0o600)
        # The programs may be where only root may look: they are opened before root is given up.
        with open(self.romulusd, "rb") as program:
            self.pair.folder.chmod(0o755)
            done = subprocess.run([f"/proc/self/fd/{program.fileno()}", "probe", "--kvm-device", device],
                                  capture_output=True, text=True, timeout=pairlib.PATIENCE_S,
                                  pass_fds=[program.fileno()], user=65534, group=65534,
                                  extra_groups=[])
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("no permission to open", done.stderr)
        self.assertIn("usermod -aG kvm", done.stderr)

    def test_no_kvm(self):
        self.refused(1, "/no/such/kvm", "modprobe",
                     arguments=("--node", "alpha", "--kvm-device", "/no/such/kvm"))
        self.assertEqual(run(self.romulusd, "probe", "--kvm-device", "/no/such/kvm").returncode, 1)

    def test_addresses_in_use(self):
        alpha = self.pair.start_node("alpha", "secondary")
        alpha.await_status("an answer", lambda s: True)
        text = self.pair.config.read_text()
        self.refused(1, "alpha.sock", "in use", arguments=("--node", "alpha"))
        config = self.pair.folder / "second.textproto"
        config.write_text(text.replace("alpha.sock", "second.sock").replace("{node}.console", "second.console"))
        self.refused(1, f":{self.pair.ports[0]}", "in use", config=config,
                     arguments=("--node", "alpha"))
        (free,) = pairlib.free_ports(1)
        config.write_text(config.read_text().replace(f'"127.0.0.1:{self.pair.ports[0]}"',
                                                     f'"127.0.0.1:{free}"'))
        self.refused(1, f":{self.pair.ports[2]} is in use", config=config, arguments=("--node", "alpha"))
        self.assertTrue(alpha.alive())
        alpha.status()

    def test_a_missing_folder_of_the_control_socket(self):
        config = self.pair.folder / "bad.textproto"
        config.write_text(self.pair.config.read_text().replace("alpha.sock", "none/alpha.sock"))
        done = run(self.romulusd, "run", "--config", config, "--node", "alpha")
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"there is no folder {self.pair.folder}/none; make it", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_no_daemon(self):
        done = run(self.romulusctl, "--address", f"unix://{self.pair.folder}/none.sock", "status")
        self.assertEqual(done.returncode, 3)
        self.assertIn("no romulusd answers", done.stderr)

    def test_nothing_to_promote(self):
        beta = self.pair.start_node("beta", "secondary")
        beta.await_status("an answer", lambda s: True)
        refused = beta.ctl("failover", check=False)
        self.assertEqual(refused.returncode, 4)
        self.assertIn("nothing to promote", refused.stderr)


class PeersThatDiffer(WithPair):
    # Field of the secondary's configuration, its value there, and what the refusal names.
    differences = (({"name": "other"}, "vm name:"),
                   ({"uuid": "00000000-0000-4000-8000-000000000000"}, "vm uuid:"),
                   ({"memory_mib": 48}, "memory:"),
                   ({"vcpus": 2}, "vcpus:"))

    def test_are_refused_by_name_and_the_guest_goes_on(self):
        primary = self.pair.start_node("alpha", "primary")
        original = self.pair.config
        for change, named in self.differences:
            with self.subTest(named):
                self.pair.config = self.pair.folder / "differs.textproto"
                self.pair.write_config(self.pair.config, **change)
                secondary = self.pair.start_node("beta", "secondary")
                refused = primary.await_status(
                    f"a refusal of {named}", lambda s: named in s["peer"].get("detail", ""))
                self.assertEqual(refused["mode"], "MODE_SOLO")
                self.assertEqual(secondary.status()["mode"], "MODE_STANDBY")
                said = len(primary.console())
                primary.await_status("more output", lambda _: len(primary.console()) > said + 500)
                secondary.kill()
        self.pair.config = original
        self.pair.start_node("beta", "secondary")
        primary.await_mode("protected")


class TwoPrimaries(WithPair):
    def test_P3_of_two_that_were_booted_neither_yields_and_both_say_so(self):
        """alpha's terms are the higher ones: beta's guest, which was first, must outlive its coming."""
        first = self.pair.start_node("beta", "primary")
        first.await_status("output", lambda _: len(first.console()) > 500)
        second = self.pair.start_node("alpha", "primary")
        for node in (first, second):
            status = node.await_status("a word of two primaries",
                                       lambda s: "two primaries" in s["reason"])
            self.assertEqual(status["mode"], "MODE_SOLO")
            self.assertIn("event=two_primaries", node.log_path.read_text())
        # Both were refused by now, and asked again.
        for node in (first, second):
            refusals = node.log_path.read_text().count("event=peer_refused")
            node.await_status("another refusal", lambda _: node.log_path.read_text().count(
                "event=peer_refused") > refusals)
            said = len(node.console())
            node.await_status("more output", lambda _: len(node.console()) > said + 500)
            self.assertEqual(node.status()["mode"], "MODE_SOLO")
        # The operator decides.
        second.signal(signal.SIGTERM)
        self.assertEqual(second.process.wait(timeout=pairlib.PATIENCE_S), 0)
        self.pair.start_node("alpha", "secondary")
        first.await_mode("protected")

    def test_P3_a_guest_booted_beside_a_promoted_one_is_fenced(self):
        primary, secondary = self.pair.start_protected()
        primary.kill()
        secondary.await_mode("degraded")
        secondary.ctl("failover")
        self.pair.start_node("alpha", "primary").await_mode("fenced")
        self.assertEqual(secondary.status()["mode"], "MODE_SOLO")


class Namesakes(WithPair):
    failover = "auto_failover: true heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000"

    def other_alpha(self):
        """The configuration of a host that was given alpha's name by mistake; its status by this address."""
        text = self.pair.config.read_text().replace("alpha.sock", "other.sock").replace(
            "{node}.console", "other.console")
        taken = set(self.pair.ports)
        free = [port for port in pairlib.free_ports(6) if port not in taken]
        for port, other in zip((self.pair.ports[0], self.pair.ports[2]), free):
            text = text.replace(f':{port}"', f':{other}"')  # they would be free there
        (self.pair.folder / "other.textproto").write_text(text)
        return self.pair.folder / "other.textproto"

    def test_P3_a_second_primary_of_that_name_does_not_take_the_secondary(self):
        primary, secondary = self.pair.start_protected()
        term = primary.status()["term"]
        own, self.pair.config = self.pair.config, self.other_alpha()
        other = self.pair.start_node("alpha", "primary")
        self.pair.daemons["other"], self.pair.daemons["alpha"] = other, primary
        self.pair.config = own
        other.address = other.address.replace("alpha.sock", "other.sock")
        refused = other.await_status("a refusal", lambda s: "another daemon" in s.get("reason", ""))
        self.assertIn("stop the one that is not wanted", refused["reason"])
        said = len(primary.console())
        primary.await_status("more output", lambda _: len(primary.console()) > said + 500)
        for node in primary, secondary:
            status = node.status()
            self.assertEqual((status["mode"], status["term"]), ("MODE_PROTECTED", term))
        # One that is gone is nobody's reason to wait.
        primary.kill()
        other.await_status("protection, or a promotion", lambda s: s["mode"] == "MODE_PROTECTED"
                           or secondary.status()["role"] == "ROLE_PRIMARY")

    def test_a_second_daemon_does_not_write_over_the_consoles_file(self):
        primary, _ = self.pair.start_protected()
        config = self.other_alpha()
        config.write_text(config.read_text().replace("other.console", "{node}.console"))
        self.refused(1, "console file", "alpha.console", "fuser -v", config=config,
                     arguments=("--node", "alpha", "--role", "primary"))
        self.assertEqual(primary.status()["mode"], "MODE_PROTECTED")


class Unprotect(WithPair):
    failover = "auto_failover: true heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000"

    def test_the_secondary_gives_its_replica_up_first(self):
        primary, secondary = self.pair.start_protected()
        primary.ctl("unprotect")
        self.assertEqual(primary.status()["mode"], "MODE_SOLO")
        secondary.await_mode("standby")
        self.assertEqual(secondary.ctl("failover", "--force", check=False).returncode, 4)
        said = len(primary.console())
        primary.await_status("more output", lambda _: len(primary.console()) > said + 500)
        primary.ctl("protect")
        primary.await_mode("protected")

    def test_a_held_guest_takes_force(self):
        primary, secondary = self.pair.start_protected()
        # It may live behind a dead link for all that the primary knows.
        secondary.kill()
        primary.await_mode("degraded")
        refused = primary.ctl("unprotect", check=False)
        self.assertEqual(refused.returncode, 4)
        self.assertIn("--force", refused.stderr)
        self.assertEqual(primary.status()["mode"], "MODE_DEGRADED")
        primary.ctl("unprotect", "--force")
        self.assertEqual(primary.status()["mode"], "MODE_SOLO")


class CannotPromote(WithPair):
    vcpus = 4

    def test_P8_a_secondary_that_cannot_make_the_machine_does_not_protect(self):
        secondary = self.pair.start_node("beta", "secondary")
        secondary.await_status("an answer", lambda s: True)
        limits = resource.prlimit(secondary.pid, resource.RLIMIT_NOFILE)
        opened = len(os.listdir(f"/proc/{secondary.pid}/fd"))
        # A connection fits in, which never gets the last 4; a VM and its 4 vCPUs do not.
        resource.prlimit(secondary.pid, resource.RLIMIT_NOFILE, (opened + 1 + 4, limits[1]))
        primary = self.pair.start_node("alpha", "primary")
        refused = primary.await_status("a refusal", lambda s: "cannot make the guest's machine"
                                       in s["peer"].get("detail", ""))
        self.assertNotEqual(refused["mode"], "MODE_PROTECTED")
        resource.prlimit(secondary.pid, resource.RLIMIT_NOFILE, limits)
        primary.await_mode("protected")
        primary.kill()
        secondary.await_mode("degraded")
        secondary.ctl("failover")


class Stopping(WithPair):
    def stop(self, daemon):
        daemon.signal(signal.SIGTERM)
        self.assertEqual(daemon.process.wait(timeout=pairlib.PATIENCE_S), 0, daemon.log_tail())
        left = [line for line in daemon.log_path.read_text().splitlines() if "event=left" in line]
        self.assertEqual(len(left), 1, daemon.log_tail())
        return left[0]

    def test_a_primary_leaves_its_last_epoch(self):
        primary, secondary = self.pair.start_protected()
        left = self.stop(primary)
        held = secondary.await_mode("degraded")
        self.assertIn(f"the secondary holds epoch {held['epoch_acked']}", left)
        self.assertIn(f"guest stopped at epoch {held['epoch_acked']} ", left)
        answer = secondary.ctl("failover")
        self.assertEqual(answer["epoch"], held["epoch_acked"])
        self.goes_on(primary, secondary)

    def goes_on(self, primary, secondary):
        before = primary.console()
        secondary.await_status("more output", lambda _: len(secondary.console()) > len(before) + 500)
        joined, whole, explanation = pairlib.stream_continues(before, secondary.console())
        self.assertTrue(joined, explanation)
        self.assertTrue(pairlib.judge_console(whole)["good"])

    def test_a_signal_that_comes_before_the_node_is_told_to_it(self):
        """The configuration is a FIFO: main() has begun when it is opened, and waits for it."""
        fifo = self.pair.folder / "fifo.textproto"
        os.mkfifo(fifo)
        config, self.pair.config = self.pair.config, fifo
        daemon = self.pair.start_node("alpha", "secondary")
        self.pair.config = config
        with open(fifo, "w") as writer:
            daemon.signal(signal.SIGTERM)
            # It is read again when the host is known: then as a file.
            plain = self.pair.folder / "plain.textproto"
            plain.write_text(config.read_text())
            plain.rename(fifo)
            writer.write(config.read_text())
        self.assertEqual(daemon.process.wait(timeout=pairlib.PATIENCE_S), 0, daemon.log_tail())
        self.assertIn("event=left", daemon.log_path.read_text())

    def test_a_secondary_says_what_is_gone(self):
        primary, secondary = self.pair.start_protected()
        left = self.stop(secondary)
        self.assertIn("held epoch", left)
        said = len(primary.console())
        primary.await_mode("solo")
        primary.await_status("more output", lambda _: len(primary.console()) > said + 500)

    def test_pause_stops_the_guest_and_resume_lets_it_go_on(self):
        primary, _ = self.pair.start_protected()
        paused = primary.ctl("pause")
        self.assertGreater(int(paused["epoch"]), 0)
        said = primary.settled_console()
        epoch = int(primary.status()["epoch_acked"])
        # Epochs go on, but the guest says nothing in them.
        primary.await_status("more epochs", lambda s: int(s["epoch_acked"]) > epoch + 20)
        self.assertEqual(primary.console(), said)
        primary.ctl("resume")
        primary.await_status("output", lambda _: len(primary.console()) > len(said))


class CleanStopWithAutoFailover(Stopping):
    failover = "auto_failover: true heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000"

    def test_a_primary_leaves_its_last_epoch(self):
        """A clean stop is an operator's wish: the secondary does not promote itself."""
        super().test_a_primary_leaves_its_last_epoch()

    def test_an_old_primary_is_fenced(self):
        primary, secondary = self.pair.start_protected()
        primary.signal(signal.SIGSTOP)
        secondary.await_status("a promotion", lambda s: "last_failover" in s)
        primary.signal(signal.SIGCONT)
        fenced = primary.await_mode("fenced")
        self.assertLess(int(fenced["term"]), int(secondary.status()["term"]))
        # Acks that lay in its socket may still have let output out, but only of epochs that the
        # promoted guest has as well, which says the same bytes again (goes_on).
        self.assertLessEqual(int(fenced["epoch_acked"]),
                             int(secondary.status()["last_failover"]["epoch"]))
        self.goes_on(primary, secondary)
        said = primary.settled_console()
        secondary.await_status("more output", lambda _: len(secondary.console()) > len(said) + 1000)
        self.assertEqual(primary.console(), said)


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
