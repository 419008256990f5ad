"""The previous release: the commit or tag that tests/skew/PREVIOUS names, built from the history.

Its sources are unpacked in the build folder, beside which nothing is left behind: no worktree, no branch.
"""

import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent.parent


class NoHistory(Exception):
    """Why the previous release cannot be had here."""


def commit():
    """The full name of what PREVIOUS names."""
    named = (HERE / "PREVIOUS").read_text().strip()
    done = subprocess.run(["git", "-C", str(SOURCE), "rev-parse", "--verify", "--quiet", f"{named}^{{commit}}"],
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise NoHistory(f"the history has no {named} (tests/skew/PREVIOUS): a shallow clone, or no clone at all; "
                        f"`git fetch --unshallow` brings it")
    return done.stdout.strip()


def unpack(folder):
    """The previous release's sources, in a folder of their own below `folder`; once."""
    name = commit()
    source = pathlib.Path(folder) / name[:12]
    if not (source / "CMakeLists.txt").exists():
        source.mkdir(parents=True, exist_ok=True)
        archive = subprocess.Popen(["git", "-C", str(SOURCE), "archive", name], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", str(source)], stdin=archive.stdout, check=True)
        if archive.wait() != 0:
            raise NoHistory(f"git archive {name} failed")
    return source


def build(folder, *targets):
    """Builds `targets` of the previous release and returns its build folder."""
    source = unpack(folder)
    for command in (["cmake", "--preset", "release"],
                    ["cmake", "--build", "--preset", "release", "--target", *targets]):
        done = subprocess.run(command, cwd=source, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} in {source}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return source / "build/release"
