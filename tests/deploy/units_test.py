#!/usr/bin/env python3
"""The units in systemd/: how little a daemon may do, and that each exception is explained. Needs systemd's tools."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SYSTEMD = pathlib.Path(__file__).resolve().parents[2] / "systemd"
SERVICE = SYSTEMD / "romulus@.service"
HIGHEST_EXPOSURE = 2.5


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)


def exceptions(service):
    """Names of the settings that `systemd-analyze security` counts against a unit."""
    done = run("systemd-analyze", "security", "--offline=true", "--json=short", service)
    return {re.split("=", item["name"])[0] for item in json.loads(done.stdout) if item["exposure"] is not None}


class Units(unittest.TestCase):
    def test_the_daemon_can_do_little(self):
        done = run("systemd-analyze", "security", "--offline=true", f"--threshold={HIGHEST_EXPOSURE * 10:.0f}", SERVICE)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_unit_that_may_do_anything_does_not_pass(self):
        with tempfile.TemporaryDirectory() as folder:
            bare = pathlib.Path(folder, "romulus@.service")
            text = re.sub(r"^(Capability|SystemCall|Restrict|Protect|Private)\w+=.*\n", "", SERVICE.read_text(), flags=re.M)
            bare.write_text(text)
            done = run("systemd-analyze", "security", "--offline=true", f"--threshold={HIGHEST_EXPOSURE * 10:.0f}", bare)
            self.assertNotEqual(done.returncode, 0)
            self.assertGreater(len(exceptions(bare)), len(exceptions(SERVICE)))

    def test_each_exception_is_explained_and_no_other(self):
        _, _, listed = SERVICE.read_text().partition("\n# Exceptions:\n")
        explained = set(re.findall(r"^#   (\w+) ", listed, re.M))
        self.assertEqual(explained, exceptions(SERVICE))

    def test_systemd_takes_the_units(self):
        with tempfile.TemporaryDirectory() as root:
            units = pathlib.Path(root, "etc/systemd/system")
            units.mkdir(parents=True)
            shutil.copytree("/lib/systemd/system", f"{root}/usr/lib/systemd/system", symlinks=True)
            pathlib.Path(root, "usr/bin").mkdir(parents=True)
            for name in "romulusd", "rm":
                program = pathlib.Path(root, "usr/bin", name)
                program.write_text("#!/bin/sh\n")
                program.chmod(0o755)
            for unit in SYSTEMD.glob("romulus*.*"):
                if unit.suffix in (".service", ".slice", ".target"):
                    shutil.copy(unit, units)
            for name in "romulus@web1.service", "romulus.slice", "romulus.target":
                done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"--root={root}", name)
                self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""), name)

    def test_no_restart_can_bring_a_role_with_it(self):
        """A role comes from a file in /run, which the unit removes as soon as the daemon is ready."""
        settings = re.findall(r"^(\w+)=(.*)", SERVICE.read_text(), re.M)
        files = [value.lstrip("-") for name, value in settings if name == "EnvironmentFile"]
        (once,) = [file for file in files if file.startswith("/run/")]
        (start,) = [value for name, value in settings if name == "ExecStart"]
        self.assertNotIn("--role", start)
        self.assertIn(("ExecStartPost", f"/usr/bin/rm -f {once}"), settings)
        self.assertIn(("Type", "notify"), settings)  # else "started" would mean nothing

    def test_a_wrong_configuration_is_not_tried_again_and_again(self):
        """The status that prevents it counts for the main process alone, so nothing before that may judge."""
        settings = re.findall(r"^(\w+)=(.*)", SERVICE.read_text(), re.M)
        self.assertIn(("Restart", "on-failure"), settings)
        self.assertIn(("RestartPreventExitStatus", "2"), settings)
        self.assertNotIn("ExecStartPre", dict(settings))
        self.assertNotIn("ExecCondition", dict(settings))

    @unittest.skipUnless(os.geteuid() == 0, "owners can be given by root alone")
    def test_the_user_and_the_folders_are_made(self):
        with tempfile.TemporaryDirectory() as root:
            pathlib.Path(root, "etc").mkdir()
            done = run("systemd-sysusers", f"--root={root}", SYSTEMD / "romulus.sysusers.conf")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("\nromulus:", "\n" + pathlib.Path(root, "etc/passwd").read_text())
            self.assertRegex(pathlib.Path(root, "etc/group").read_text(), r"(?m)^kvm:.*:romulus$")
            done = run("systemd-tmpfiles", "--create", f"--root={root}", SYSTEMD / "romulus.tmpfiles.conf")
            self.assertEqual(done.returncode, 0, done.stderr)
            for folder in "etc/romulus", "var/lib/romulus", "run/romulus":
                self.assertEqual(pathlib.Path(root, folder).stat().st_mode & 0o777, 0o750)


if __name__ == "__main__":
    missing = [name for name in ("systemd-analyze", "systemd-sysusers", "systemd-tmpfiles") if not shutil.which(name)]
    if missing:
        print(f"skipped: {', '.join(missing)} missing (Debian package systemd)")
        sys.exit(77)
    unittest.main()
