#!/usr/bin/env python3
"""The .deb: made, judged by lintian, and installed, upgraded, removed and purged on a copy of this machine.

The copy is an overlay in a mount namespace, so that dpkg works with the machine's own database and libraries. All that
is written is in a tmpfs of that namespace, which ends with it: nothing is ever deleted file by file where mounts
are. systemctl is a stand-in there that notes what it is asked. Needs root.
"""

import argparse
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = None
IN_NAMESPACE = "ROMULUS_PACKAGE_NAMESPACE"
SKIPPED = 77
STATE = "var/lib/romulus"
SYSTEMCTL = """#!/bin/sh
echo "$@" >> /run/asked
case "$*" in *list-units*) cat /run/units 2> /dev/null ;; esac
exit 0
"""


def run(*command, check=True, cwd=None):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=800, cwd=cwd,
                          stdin=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    if check and done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def built_package(folder):
    """Packs what is built; builds nothing."""
    run("cpack", "-G", "DEB", "--config", BUILD / "CPackConfig.cmake", "-B", folder, cwd=BUILD)
    found = list(folder.glob("*.deb"))
    assert len(found) == 1, found
    return found[0]


def with_version(package, version, folder):
    """The same package as another version, with a daemon of other bytes."""
    tree = folder / version
    run("dpkg-deb", "-R", package, tree)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
    with open(tree / "usr/bin/romulusd", "ab") as daemon:
        daemon.write(b"newer")
    (tree / "DEBIAN/md5sums").unlink()
    changed = folder / f"romulus_{version}_amd64.deb"
    run("dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, changed)
    return changed


class Copy:
    """This machine, as far as it may be written to."""

    def __init__(self, folder):
        self.root = folder / "root"
        layers = folder / "layers"
        for path in self.root, layers / "upper", layers / "work":
            path.mkdir(parents=True)
        run("mount", "-t", "overlay", "none", "-o", f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work", self.root)
        for path in "run", "tmp", "var/tmp", "dev":
            run("mount", "-t", "tmpfs", "none", self.root / path)
        run("mount", "-t", "proc", "-o", "ro", "none", self.root / "proc")
        for name, minor in ("null", 3), ("zero", 5), ("random", 8), ("urandom", 9):
            os.mknod(self.root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
            (self.root / "dev" / name).chmod(0o666)
        (self.root / "run/systemd/system").mkdir(parents=True)
        systemctl = self.root / "usr/bin/systemctl"
        systemctl.unlink(missing_ok=True)
        systemctl.write_text(SYSTEMCTL)
        systemctl.chmod(0o755)

    def run(self, *command, check=True):
        return run("chroot", self.root, *command, check=check)

    def install(self, package):
        shutil.copy(package, self.root / "tmp/romulus.deb")
        return self.run("dpkg", "-i", "/tmp/romulus.deb")

    def asked(self):
        """What systemctl was asked since the last time."""
        path = self.root / "run/asked"
        said = path.read_text() if path.exists() else ""
        path.unlink(missing_ok=True)
        return said

    def running(self, *units):
        (self.root / "run/units").write_text("".join(f"{unit} loaded active running Romulus VM\n" for unit in units))

    def left_over(self):
        """Files that have our name, where a package may have put them."""
        folders = ("/etc", "/run", "/usr/bin", "/usr/lib/systemd", "/usr/lib/sysusers.d", "/usr/lib/tmpfiles.d",
                   "/usr/share/bash-completion", "/usr/share/doc", "/usr/share/fish", "/usr/share/lintian",
                   "/usr/share/man", "/usr/share/romulus", "/usr/share/zsh", "/var/lib", "/var/log")
        return sorted(self.run("find", *(folder for folder in folders if (self.root / folder[1:]).exists()),
                               "-xdev", "-iname", "*romulus*").stdout.splitlines())


class Package(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())  # in the namespace's tmpfs

    def test_lintian_finds_no_error(self):
        said = run("lintian", "--allow-root", "--fail-on", "error", "--info", PACKAGE, check=False)
        self.assertEqual(said.returncode, 0, said.stdout + said.stderr)
        warnings = [line for line in said.stdout.splitlines() if line.startswith("W:")]
        self.assertEqual(warnings, [], said.stdout)

    def test_the_version_is_that_of_the_program(self):
        said = run(BUILD / "daemon/romulusd", "version").stdout.split()[1]
        self.assertEqual(run("dpkg-deb", "-f", PACKAGE, "Version").stdout.strip().rpartition("-")[0], said)

    def test_libraries_are_named(self):
        depends = run("dpkg-deb", "-f", PACKAGE, "Depends").stdout
        for library in "libgrpc++", "libprotobuf", "libc6", "libspdlog":
            self.assertIn(library, depends)

    def test_install_upgrade_remove_and_purge(self):
        copy = Copy(self.folder)
        baseline = copy.left_over()
        copy.install(PACKAGE)
        self.assertIn("daemon-reload", copy.asked())
        self.assertIn("uid=", copy.run("id", "romulus").stdout)
        self.assertIn("(kvm)", copy.run("id", "romulus").stdout)
        for path in "etc/romulus", STATE, "run/romulus":
            self.assertEqual((copy.root / path).stat().st_mode & 0o777, 0o750, path)
        self.assertRegex(copy.run("romulusctl", "version").stdout, r"romulusctl \d")
        for page in "romulusd.8", "romulusctl.1", "romulus-certs.1", "romulus.conf.5":
            self.assertTrue((copy.root / f"usr/share/man/man{page[-1]}/{page}.gz").exists(), page)
        copy.run("romulus-certs", "/etc/romulus/tls", "host-a")
        kept = {"etc/romulus/web1.textproto": "name", "etc/romulus/web1.env": "ROMULUS_ARGS=",
                f"{STATE}/web1/root.img": "image", f"{STATE}/host-id": "me"}
        for path, text in kept.items():
            (copy.root / path).parent.mkdir(exist_ok=True)
            (copy.root / path).write_text(text)

        # While a VM runs: it is not touched by an upgrade, and nothing can be removed.
        copy.running("romulus@web1.service")
        before = (copy.root / "usr/bin/romulusd").stat().st_ino
        copy.install(with_version(PACKAGE, "99.0-1", self.folder))
        self.assertEqual(set(copy.asked().splitlines()), {"--system daemon-reload"})
        self.assertNotEqual((copy.root / "usr/bin/romulusd").stat().st_ino, before)  # what runs keeps its own
        refused = copy.run("dpkg", "-r", "romulus", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("romulus@web1.service", refused.stderr)
        self.assertTrue((copy.root / "usr/bin/romulusd").exists())
        self.assertEqual(copy.run("dpkg-query", "-W", "-f", "${db:Status-Status}", "romulus").stdout, "installed")

        copy.running()
        copy.run("dpkg", "-r", "romulus")
        self.assertFalse((copy.root / "usr/bin/romulusd").exists())
        copy.run("dpkg", "-P", "romulus")
        for path, text in kept.items():
            self.assertEqual((copy.root / path).read_text(), text)
        left = [path for path in copy.left_over() if not path.startswith(("/etc/romulus", f"/{STATE}"))]
        self.assertEqual(left, baseline)
        self.assertIn("uid=", copy.run("id", "romulus").stdout)  # whose files these are

        # And with nothing of anybody's, nothing stays.
        shutil.rmtree(copy.root / "etc/romulus")
        shutil.rmtree(copy.root / STATE / "web1")
        copy.install(PACKAGE)
        copy.run("dpkg", "-P", "romulus")
        self.assertEqual(copy.left_over(), baseline)


def enter():
    """Runs all of it again in a mount namespace of its own."""
    missing = [name for name in ("lintian", "dpkg-deb", "cpack", "unshare") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        print("skipped: needs root and " + ", ".join(missing or ["what is here"]))
        sys.exit(SKIPPED)
    folder = tempfile.mkdtemp()
    wrap = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*wrap, "mount", "-t", "tmpfs", "none", folder], capture_output=True).returncode != 0:
        os.rmdir(folder)
        print("skipped: no mount namespaces here")
        sys.exit(SKIPPED)
    code = subprocess.run([*wrap, sys.executable, *sys.argv], env={**os.environ, IN_NAMESPACE: folder}).returncode
    os.rmdir(folder)  # what was mounted on it went with the namespace
    sys.exit(code)


if __name__ == "__main__":
    if not os.environ.get(IN_NAMESPACE):
        enter()
    if os.readlink("/proc/self/ns/mnt") == os.readlink(f"/proc/{os.getppid()}/ns/mnt"):
        sys.exit(f"{IN_NAMESPACE} is set, and this is no mount namespace of its own")
    tempfile.tempdir = os.environ[IN_NAMESPACE]
    run("mount", "-t", "tmpfs", "none", tempfile.tempdir)
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--package", type=pathlib.Path, help="instead of one that is packed now")
    known, rest = parser.parse_known_args()
    BUILD = known.build.resolve()
    PACKAGE = known.package or built_package(pathlib.Path(tempfile.mkdtemp()))
    unittest.main(argv=[sys.argv[0], *rest])
