#!/usr/bin/env python3
"""Disks that cannot be the guest's, and side files that cannot be written: `romulusd check`, `run` and `disks`
refuse them by name and say what to do; a guest that runs already says nothing that its disks do not know.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import unittest

import pair as pairlib

BUILD = None
DISK_BYTES = 4 << 20
NOBODY = 65534
CLONE_NEWNS = 0x20000


def can_mount():
    """Root in a container need not."""
    return os.getuid() == 0 and subprocess.run(["unshare", "--mount", "mount", "--bind", "/tmp", "/tmp"],
                                               capture_output=True).returncode == 0


class WithPair(unittest.TestCase):
    def setUp(self):
        self.pair = self.enterContext(pairlib.Pair(
            BUILD, kernel=BUILD / "guests/disk.elf", memory_mib=16,
            command_line="blocks=512 block=4096 flush=8 sweep=16 rate=1000",
            failover="heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000",
            limits="reconnect_max_ms: 300"))
        self.folder = self.pair.folder
        self.romulusd = BUILD / "daemon/romulusd"
        self.image = self.make("root.img", DISK_BYTES)

    def make(self, name, size):
        with open(self.folder / name, "wb") as file:
            file.truncate(size)
        return self.folder / name

    def configure(self, *disks, more=""):
        """Each of `disks`: a path, or the fields of a disk as text."""
        lines = [disk if str(disk).startswith("name:") else f'name: "root" path: "{disk}"'
                 for disk in disks]
        self.pair.write_config(devices=" ".join(f"disks {{ {line} {more} }}" for line in lines))
        with open(self.pair.config, "a") as config:  # not in a folder that is to be read-only
            config.write(f'events {{ folder: "{self.folder}" }}\n')

    def ask(self, command, *words, **options):
        return subprocess.run([str(w) for w in (self.romulusd, command, "--config", self.pair.config,
                                                "--node", "alpha", *words)],
                              capture_output=True, text=True, timeout=pairlib.PATIENCE_S, **options)

    def expect_refused(self, *words, by=("check", "run")):
        for command in by:
            done = self.ask(command, *(["--role", "primary"] if command == "run" else []))
            said = done.stderr + (done.stdout if command == "disks" else "")
            with self.subTest(command=command, words=words):
                self.assertIn(done.returncode, (1, 2), said)
                for word in words:
                    self.assertIn(str(word), said)


class Images(WithPair):
    """What is no disk."""

    def test_a_good_one(self):
        self.configure(self.image)
        self.assertEqual(self.ask("check").returncode, 0, self.ask("check").stderr)

    def test_none_there(self):
        self.configure(self.folder / "none.img")
        self.expect_refused(self.folder / "none.img", "No such file", "truncate -s SIZE")

    def test_of_another_kind(self):
        os.mkfifo(self.folder / "fifo")
        for path, what in ((self.folder, "is a folder"), ("/dev/null", "is neither a file nor"),
                           (self.folder / "fifo", "is neither a file nor")):
            self.configure(path)
            self.expect_refused(f"'{path}'", what, "truncate -s SIZE")

    def test_of_a_size_that_no_disk_has(self):
        self.configure(self.make("odd.img", DISK_BYTES + 1))
        self.expect_refused("odd.img", f"{DISK_BYTES + 1} bytes", "qemu-img convert")
        self.configure(self.make("empty.img", 0))
        self.expect_refused("empty.img", "is empty", "truncate -s SIZE")

    def test_one_twice(self):
        (self.folder / "link.img").symlink_to(self.image)
        self.configure(self.image, f'name: "data" path: "{self.folder}/link.img"')
        self.expect_refused("link.img", "is disk 'root' already", "a file of its own")

    def test_names_that_are_no_serial_numbers(self):
        for name, what in (("a" * 21, "has 21 characters"), ("a b", "must be a letter or digit"),
                           ("", "must be a letter or digit")):
            self.configure(f'name: "{name}" path: "{self.image}"')
            self.expect_refused("guest.disks[0].name", what)

    def test_without_permission(self):
        if os.getuid() != 0:
            self.skipTest("only root can become somebody without permission")
        self.folder.chmod(0o755)
        self.image.chmod(0o444)

        def as_nobody():
            # The programs may be where only root may look: they are opened before root is given up.
            with open(self.romulusd, "rb") as program:
                said = [subprocess.run(
                    [f"/proc/self/fd/{program.fileno()}", *words, "--config", self.pair.config,
                     "--node", "alpha"], capture_output=True, text=True, user=NOBODY, group=NOBODY,
                    extra_groups=[], pass_fds=[program.fileno()], timeout=pairlib.PATIENCE_S).stderr
                        for words in (["check"], ["run", "--kvm-device", "/no/such/kvm"])]
            disks = [[line for line in text.splitlines() if "disks[0]" in line] for text in said]
            self.assertEqual(*disks)  # whoever asks gets the same answer
            return "\n".join(disks[0])

        self.configure(self.image)
        self.pair.config.chmod(0o644)
        said = as_nobody()
        for word in (self.image, "read and written: Permission denied", "give the daemon's user",
                     "read_only: true"):
            self.assertIn(str(word), said)
        self.configure(self.image, more="read_only: true")
        self.assertNotIn("disks[0]", as_nobody())
        # The image may be written, the folder not.
        self.image.chmod(0o666)
        self.configure(self.image)
        said = as_nobody()
        for word in (f"no file can be made in '{self.folder}'", f"{self.image}.romulus",
                     "Permission denied", "state_dir"):
            self.assertIn(str(word), said)
        self.configure(self.image, more=f'state_dir: "{self.folder}/state"')
        (self.folder / "state").mkdir()
        os.chown(self.folder / "state", NOBODY, NOBODY)
        self.assertNotIn("disks[0]", as_nobody())

    def test_on_a_file_system_that_is_read_only(self):
        if not can_mount():
            self.skipTest("only root can mount")
        self.configure(self.image)
        script = ('mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && '
                  'exec "$2" check --config "$3" --node alpha')

        def said():
            return subprocess.run(
                ["unshare", "--mount", "sh", "-c", script, "sh", self.folder, self.romulusd,
                 self.pair.config], capture_output=True, text=True,
                timeout=pairlib.PATIENCE_S).stderr

        self.assertIn(f"'{self.image}': cannot be read and written: Read-only file system; ", said())
        self.configure(self.image, more="read_only: true")
        self.assertNotIn("disks[0]", said())

    def test_no_folder_for_side_files(self):
        self.configure(self.image, more=f'state_dir: "{self.folder}/none"')
        self.expect_refused("disks[0].state_dir", self.folder / "none", "mkdir -p")


class SideFiles(WithPair):
    """A disk that a guest has run on, and what is not that disk any more."""

    everybody = ("check", "run", "disks")

    def setUp(self):
        super().setUp()
        self.configure(self.image)
        alpha = self.pair.start_node("alpha", "primary")
        alpha.await_console("some steps", lambda said: pairlib.last_step(said) > 5)
        alpha.signal(signal.SIGTERM)
        self.assertEqual(alpha.process.wait(timeout=pairlib.PATIENCE_S), 0, alpha.log_tail())
        self.side_file = self.folder / "root.img.romulus"
        for command in ("check", "disks"):
            done = self.ask(command)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_an_image_that_somebody_wrote_to(self):
        with open(self.image, "r+b") as image:
            image.write(b"x")
        self.expect_refused(self.image, "was written to by somebody else", f"remove {self.side_file}",
                            by=self.everybody)
        # The remedy.
        self.side_file.unlink()
        self.assertEqual(self.ask("check").returncode, 0)
        self.assertEqual(self.ask("disks").returncode, 0)

    def test_an_image_that_was_exchanged(self):
        shutil.copy2(self.image, self.folder / "copy.img")
        (self.folder / "copy.img").rename(self.image)
        self.expect_refused(self.image, "is another file", f"remove {self.side_file}",
                            by=self.everybody)

    def test_an_image_of_another_size(self):
        for size in (DISK_BYTES - 512, DISK_BYTES + 512):
            os.truncate(self.image, size)
            self.expect_refused(self.image, f"has {size} bytes, and had {DISK_BYTES}",
                                "give it its size back", by=self.everybody)

    def test_the_side_file_of_another_vm_or_disk(self):
        uuid = self.pair.options["uuid"]
        self.pair.options["uuid"] = "8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11"
        self.configure(self.image)
        self.expect_refused(self.image, self.side_file, f"of the VM {uuid}", "correct the path",
                            by=self.everybody)
        self.pair.options["uuid"] = uuid
        self.configure(f'name: "data" path: "{self.image}"')
        self.expect_refused(self.image, self.side_file, 'is the disk "root", not "data"',
                            "correct the path or the name", by=self.everybody)

    def test_a_side_file_that_is_damaged(self):
        whole = self.side_file.read_text()
        named = f'disk "root" ({self.image}), its side file {self.side_file}: '
        for text, what in ((whole.replace("term: ", "term: 1"), "its checksum is wrong"),
                           (whole[:40], "it does not end with a checksum"),
                           ("#" * (16 << 10) + "#", "is larger than 16384 bytes")):
            self.side_file.write_text(text)
            self.expect_refused(named + what, "remove the side file", by=self.everybody)
        self.side_file.unlink()
        self.side_file.mkdir()
        self.expect_refused(named + "cannot read it: Is a directory", "remove the side file",
                            by=self.everybody)

    def test_looking_beside_a_daemon(self):
        alpha = self.pair.start_node("alpha", "primary")
        for _ in range(20):  # while it starts, and while its guest writes
            for command in ("check", "disks"):
                done = self.ask(command)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        alpha.await_console("some steps", lambda said: pairlib.last_step(said) > 5)
        self.assertEqual(self.ask("disks").returncode, 0)


class FolderThatCannotBeWritten:
    """Where one can mount: a mount of its own that becomes read-only, in a namespace of the daemon's; else a
    folder that is moved away."""

    def __init__(self, folder):
        self.folder = folder
        self.is_mount = can_mount()
        folder.mkdir()

    def before_exec(self):
        if not self.is_mount:
            return
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        for words in (["--make-rprivate", "/"], ["--bind", self.folder, self.folder]):
            subprocess.run(["mount", *map(str, words)], check=True, timeout=pairlib.PATIENCE_S)

    def set_writable(self, daemon, writable):
        if self.is_mount:
            subprocess.run(["nsenter", "--mount", "--target", str(daemon.pid), "mount", "-o",
                            f"remount,bind,{'rw' if writable else 'ro'}", str(self.folder)],
                           check=True, timeout=pairlib.PATIENCE_S)
        elif writable:
            self.folder.with_suffix(".away").rename(self.folder)
        else:
            self.folder.rename(self.folder.with_suffix(".away"))


class WhileTheGuestRuns(WithPair):
    def setUp(self):
        super().setUp()
        for node in pairlib.NODES:
            (self.folder / node).mkdir()
            self.make(f"{node}/root.img", DISK_BYTES)
        (self.folder / "beta/state").mkdir()
        self.state = FolderThatCannotBeWritten(self.folder / "alpha/state")
        self.configure(self.folder / "{node}/root.img",
                       more=f'state_dir: "{self.folder}/{{node}}/state"')

    def start_protected(self):
        secondary = self.pair.start_node("beta", "secondary")
        secondary.await_status("an answer", lambda s: True)
        primary = self.pair.start_node("alpha", "primary", before_exec=self.state.before_exec)
        primary.await_mode("protected")
        primary.await_console("some steps", lambda said: pairlib.last_step(said) > 5)
        return primary, secondary

    def test_P1_P8_output_waits_for_the_stamp(self):
        """That it runs alone is not on its disk: after a crash of both hosts the other copy would look like
        the newer one, so nobody may hear of what it does."""
        primary, secondary = self.start_protected()
        self.state.set_writable(primary, False)
        secondary.kill()
        status = primary.await_status("that output waits",
                                      lambda s: "output waits" in s.get("reason", ""))
        self.assertEqual(status["mode"], "MODE_SOLO")
        for word in ('disk "root"', f"{self.folder}/alpha/root.img",
                     f"{self.folder}/alpha/state/root.img.romulus"):
            self.assertIn(word, status["reason"])
        if self.state.is_mount:
            self.assertIn("Read-only file system; mount it for writing, or set `state_dir`",
                          status["reason"])
        said = primary.settled_console()

        def writes(s):
            (disk,) = [d for d in s["devices"] if d["name"] == "virtio.block.root"]
            return int(disk["counters"]["writes"])

        goal = writes(primary.status()) + 50
        primary.await_status("the guest to go on", lambda s: writes(s) >= goal)
        self.assertEqual(primary.console(), said)
        self.assertIn("stamp_failed", primary.log_tail(lines=1000))
        # Somebody mends it: nothing was lost, and the disk knows.
        self.state.set_writable(primary, True)
        after = primary.await_console("what waited", lambda now: pairlib.last_step(now) > pairlib.last_step(said))
        self.assertTrue(after.startswith(said))
        status = primary.await_status("its end", lambda s: "output waits" not in s.get("reason", ""))
        done = self.ask("disks")
        self.assertIn(f"primary_solo, term {status['term']}", done.stdout)

    def test_a_secondary_is_refused_until_the_stamp_can_be_written(self):
        """What the sync overwrites could not be told from what is newer."""
        primary, secondary = self.start_protected()
        secondary.kill()
        primary.await_mode("solo")
        self.state.set_writable(primary, False)
        secondary = self.pair.start_node("beta", "secondary")
        primary.await_status(
            "the refusal", lambda s: "root.img.romulus" in s.get("reason", "") +
            s["peer"].get("detail", ""))
        self.assertNotEqual(primary.status()["mode"], "MODE_PROTECTED")
        self.state.set_writable(primary, True)
        primary.await_mode("protected")

    def test_no_guest_starts_on_a_disk_that_cannot_be_stamped(self):
        # The folder may be written, the file not: what `check` sees is good.
        (self.folder / "alpha/state/root.img.romulus.tmp").mkdir()
        alpha = self.pair.start_node("alpha", "primary")
        self.assertEqual(alpha.process.wait(timeout=pairlib.PATIENCE_S), 1)
        self.assertIn(f'disk "root" ({self.folder}/alpha/root.img), its side file ',
                      alpha.log_tail())
        self.assertEqual(alpha.console(), b"")


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
