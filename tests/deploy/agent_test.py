#!/usr/bin/env python3
"""The text of the agent for Pacemaker: portable shell, a description that tools can read. Needs shellcheck, xmllint."""

import pathlib
import re
import shutil
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ElementTree

AGENT = pathlib.Path(__file__).resolve().parents[2] / "deploy/pacemaker/romulus"
OCF_ROOT = pathlib.Path("/usr/lib/ocf")


def run(*command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, **options)


def describe():
    return run(AGENT, "meta-data", env={"OCF_ROOT": str(OCF_ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


class Agent(unittest.TestCase):
    def test_shellcheck_has_no_complaint(self):
        done = run("shellcheck", "--shell=sh", AGENT)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_the_description_is_one(self):
        done = run("xmllint", "--noout", "--valid", "-", input=describe().stdout, cwd="/usr/share/resource-agents")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_every_parameter_is_described_and_no_other(self):
        described = {found.get("name") for found in ElementTree.fromstring(describe().stdout).iter("parameter")}
        used = set(re.findall(r"\$\{OCF_RESKEY_([a-z_]+)[=}]", AGENT.read_text()))
        used = {name for name in used if not name.endswith("_default")}
        self.assertEqual(described, used)


if __name__ == "__main__":
    missing = [name for name in ("shellcheck", "xmllint") if not shutil.which(name)]
    if not (OCF_ROOT / "lib/heartbeat/ocf-shellfuncs").exists():
        missing.append("resource-agents")
    if missing:
        print(f"skipped: {', '.join(missing)} missing")
        sys.exit(77)
    unittest.main()
