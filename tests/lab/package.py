"""The .deb of a build folder, and one that is newer."""

import pathlib
import re
import shutil
import subprocess

NAME = "romulus"


class PackageError(AssertionError):
    """There is no package to be had."""


def of_build(build, folder):
    """The package of what is built there (target deb), copied to `folder`."""
    done = subprocess.run(["cmake", "--build", build, "--target", "deb"], capture_output=True, text=True, timeout=1200)
    found = sorted(pathlib.Path(build).glob(f"{NAME}_*.deb"), key=lambda path: path.stat().st_mtime)
    if done.returncode != 0 or not found:
        raise PackageError(f"no package from {build}: {done.stdout[-2000:]}{done.stderr}")
    return copy_of(found[-1], folder)


def copy_of(deb, folder):
    return pathlib.Path(shutil.copyfile(deb, pathlib.Path(folder, f"{NAME}_first.deb")))


def next_version(folder):
    """The package in `folder` again, as a higher version."""
    deb = pathlib.Path(folder, f"{NAME}_first.deb")
    tree = pathlib.Path(folder, "tree")
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True, timeout=120)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+next1", control.read_text()))
    newer = pathlib.Path(folder, f"{NAME}-next.deb")
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", "-Zgzip", tree, newer], check=True, timeout=120,
                   stdout=subprocess.DEVNULL)
    return newer
