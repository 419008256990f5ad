#!/usr/bin/env python3
"""What the three shells offer, with the scripts that the programs print. A shell that is not installed is left out."""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = None
PROGRAMS = ("romulusd", "romulusctl")
# (line, what must be offered, what must not)
LINES = (
    ("romulusctl sw", {"switchover"}, {"status", "--json"}),
    ("romulusctl status --w", {"--watch"}, {"--wait"}),
    ("romulusctl status --js", {"--json"}, {"--watch"}),
    ("romulusctl switchover --w", {"--wait"}, {"--watch"}),
    ("romulusd run --role ", {"primary", "secondary"}, {"--node"}),
    ("romulusd check --n", {"--node", "--no-files"}, {"--role"}),
    ("romulusctl --tls-ca FOLDER/c", {"FOLDER/ca.pem"}, {"FOLDER/other"}),
)

BASH = """
. /usr/share/bash-completion/bash_completion
for program in romulusd romulusctl; do . "$1/$program.bash"; done
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=($2)
case $2 in *' ') COMP_WORDS+=('') ;; esac
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; }  # speaks to the completion that is under way, and there is none
_${COMP_WORDS[0]}
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = 'for p in romulusd romulusctl; source $argv[1]/$p.fish; end; complete -C "$argv[2]" | string split -f 1 \\t; true'
# zsh completes only in its line editor, so it has one, on a terminal of its own; nothing is typed before it reads keys.
ZSH = r"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PS1= ; stty -echo; unset zle_bracketed_paste; autoload -Uz compinit; compinit -D -u"
zpty -w z "for p in romulusd romulusctl; do . $1/\$p.zsh; done; zstyle ':completion:*' list-separator ''"
zpty -w z "setopt no_list_beep; LISTMAX=10000; bindkey '^I' list-choices"
zpty -w z "zle-line-init() { print -r READ''Y; }; zle -N zle-line-init"
zpty -r -m z line '*READY*' || exit 1
zpty -w -n z "$2"$'\t'
zpty -w -n z $'\025print -r DON\'\'E\n'
zpty -r -m z line '*DONE*'
print -r -- "$line"
zpty -d z
"""


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, (command[0], done.stdout, done.stderr)
    return done.stdout


class Completion(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for program in PROGRAMS:
            for shell in "bash", "zsh", "fish":
                script = run(BUILD / "daemon" / program, "--completion", shell)
                (self.folder / f"{program}.{shell}").write_text(script)
        for name in "ca.pem", "other":
            (self.folder / name).write_text("")

    def check(self, shell, *command):
        if not shutil.which(shell):
            self.skipTest(f"no {shell} here")
        for program in PROGRAMS:
            run(shell, "-n", self.folder / f"{program}.{shell}")
        for line, wanted, unwanted in LINES:
            line, wanted, unwanted = (eval(repr(part).replace("FOLDER", str(self.folder)))
                                      for part in (line, wanted, unwanted))
            offered = set(run(*command, self.folder, line).split())
            self.assertEqual(wanted - offered, set(), f"{shell}: {line!r} offers {offered}")
            self.assertEqual(unwanted & offered, set(), f"{shell}: {line!r}")

    def test_bash(self):
        if not pathlib.Path("/usr/share/bash-completion/bash_completion").exists():
            self.skipTest("no bash-completion here")
        self.check("bash", "bash", "-c", BASH, "-")

    def test_fish(self):
        self.check("fish", "fish", "-c", FISH)

    def test_zsh(self):
        if not shutil.which("zsh"):
            self.skipTest("no zsh here")
        for program in PROGRAMS:
            run("zsh", "-n", self.folder / f"{program}.zsh")
        for line, wanted, unwanted in LINES[:5]:  # words; its lists of files are decorated
            said = run("zsh", "-f", "-c", ZSH, "-", self.folder, line)
            # What follows the line that was typed; each candidate begins a line, or stands behind spaces.
            offered = set(re.findall(r"[\w-]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", said)))
            self.assertEqual(wanted - offered, set(), f"zsh: {line!r} offers {said!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    BUILD, rest = (known := parser.parse_known_args())[0].build.resolve(), known[1]
    unittest.main(argv=[sys.argv[0], *rest])
