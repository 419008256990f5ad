#!/usr/bin/env python3
"""The manual says what the programs take, no more and no less; the configuration reference is current."""

import argparse
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAN = ROOT / "docs/man"
BUILD = None
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def said_in_help(program, *command):
    """(options, subcommands) of `program command --help`, from the lists, not from the prose."""
    code, text = run(program, *command, "--help")
    assert code == 0, text
    options = {name for line in text.splitlines() if re.match(r"  -", line)
               for name in OPTION.findall(line[:30])}
    _, _, listed = text.partition("\nSubcommands:\n")
    subcommands = set(re.findall(r"^  (\w[\w-]*) ", listed.partition("\n\n")[0], re.M))
    return options, subcommands


def taken_by(program):
    options, subcommands = said_in_help(program)
    for name in subcommands:
        options |= said_in_help(program, name)[0]
    return options, subcommands


def told_in_page(text):
    """The same of a page's source: options that are listed, and .Cm items of COMMANDS."""
    options = {"--" + name for name in re.findall(r"^\.It .*?$", text, re.M)
               for name in re.findall(r"Fl \\-([a-z][a-z-]*)", name)}
    commands = text.partition("\n.Sh COMMANDS\n")[2].partition("\n.Sh ")[0]
    return options, set(re.findall(r"^\.It Cm ([\w-]+)", commands, re.M))


class Manual(unittest.TestCase):
    def check(self, program, page):
        taken = taken_by(BUILD / "daemon" / program)
        self.assertGreater(len(taken[0]), 3)
        self.assertGreater(len(taken[1]), 3)
        told = told_in_page((MAN / page).read_text())
        for what, has, says in zip(("options", "commands"), taken, told):
            self.assertEqual(has - says, set(), f"{what} of {program} that docs/man/{page} does not list")
            self.assertEqual(says - has, set(), f"{what} in docs/man/{page} that {program} does not take")

    def test_romulusd(self):
        self.check("romulusd", "romulusd.8")

    def test_romulusctl(self):
        self.check("romulusctl", "romulusctl.1")

    def test_a_page_that_lacks_something_is_found(self):
        text = (MAN / "romulusctl.1").read_text()
        whole = told_in_page(text)
        self.assertEqual(whole[0] - told_in_page(text.replace(".It Fl \\-tls-key", ".It"))[0], {"--tls-key"})
        self.assertEqual(whole[1] - told_in_page(text.replace(".It Cm pause", ".It Cm"))[1], {"pause"})

    def test_exit_codes_are_those_of_help(self):
        for program, page in ("romulusd", "romulusd.8"), ("romulusctl", "romulusctl.1"):
            footer = run(BUILD / "daemon" / program, "--help")[1].partition("Exit codes:")[2]
            listed = (MAN / page).read_text().partition(".Sh EXIT STATUS")[2].partition(".Sh ")[0]
            self.assertEqual(re.findall(r"\b\d\b", footer), re.findall(r"^\.It (\d)", listed, re.M), page)

    def test_the_configuration_reference_is_current(self):
        code, said = run(ROOT / "scripts/config-reference", "--check")
        self.assertEqual(code, 0, said)

    def test_links_of_the_documents_lead_somewhere(self):
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
            for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
                if "://" not in target:
                    self.assertTrue((page.parent / target).exists(), f"{page.name}: {target}")

    def test_tests_that_the_documents_cite_exist(self):
        cited = set()
        for page in (ROOT / "docs").glob("*.md"):
            cited |= set(re.findall(r"`(tests/[\w./-]+)`", page.read_text()))
        self.assertGreater(len(cited), 5)
        self.assertEqual({name for name in cited if not (ROOT / name).exists()}, set())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    BUILD, rest = (known := parser.parse_known_args())[0].build.resolve(), known[1]
    unittest.main(argv=[sys.argv[0], *rest])
