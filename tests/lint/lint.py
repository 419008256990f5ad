#!/usr/bin/env python3
"""Rules that no compiler checks. Prints FILE:LINE: RULE: why, one per line; exit code 1 if there is any.

  includes     a folder of lib/ includes only what the table in lib/README.md allows
  kvm          <linux/kvm.h> only in lib/kvm
  grpc         gRPC headers only in lib/wire/grpc_*, lib/arbiter/etcd_grpc*, daemon/ and bench/bare_stream*
  prometheus   prometheus-cpp only in lib/metrics
  ioctl        ioctl( only where file descriptors of KVM and taps are set up
  safety       a reinterpret_cast has a // SAFETY: line close above
  length       no source file beyond 600 lines
  format       clang-format 14 would change nothing
"""

import argparse
import pathlib
import re
import subprocess
import sys

SOURCES = (".h", ".cc", ".c", ".py", ".proto")
CXX = (".h", ".cc")
MAX_LINES = 600
# A SAFETY comment may cover a few casts below it.
SAFETY_REACH = 10
# Folders of lib/, and file descriptors of taps and disks that they set up.
IOCTL_FOLDERS = ("lib/kvm/", "lib/devices/tap")
GRPC_FOLDERS = ("lib/wire/grpc_", "lib/arbiter/etcd_grpc", "daemon/", "bench/bare_stream")
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')


def read_table(readme):
    """{folder: [allowed prefixes]} of the table in lib/README.md: a folder, or one header of it."""
    table = {}
    for line in readme.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 2 or cells[0] == "folder" or set(cells[0]) <= {"-"}:
            continue
        allowed = [word.strip() for word in cells[1].split(",")]
        for folder in cells[0].split(","):
            table[folder.strip()] = allowed
    return table


def strip_comments(text):
    """The text with comments blanked, line by line as before. String literals stay."""
    def blank(match):
        token = match.group(0)
        return token if token[0] in "\"'" else re.sub(r"[^\n]", " ", token)
    return re.sub(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/', blank, text,
                  flags=re.S)


class Lint:
    def __init__(self, root, table):
        self.root = root
        self.table = table
        self.errors = []

    def error(self, path, line, rule, why):
        self.errors.append(f"{path}:{line}: {rule}: {why}")

    def check(self, path, text):
        """`path` is relative to the root, with slashes."""
        lines = text.splitlines()
        if len(lines) > MAX_LINES:
            self.error(path, len(lines), "length", f"{len(lines)} lines, at most {MAX_LINES}")
        if not path.endswith(CXX):
            return
        code = strip_comments(text).splitlines()
        for number, line in enumerate(code, 1):
            include = INCLUDE.match(line)
            if include:
                self.check_include(path, number, include.group(2), include.group(1) == '"')
            self.check_ioctl(path, number, line)
            if "reinterpret_cast" in line:
                self.check_safety(path, number, lines)

    def check_include(self, path, number, header, quoted):
        if header == "linux/kvm.h" and not path.startswith("lib/kvm/"):
            self.error(path, number, "kvm", "<linux/kvm.h> belongs to lib/kvm; use kvm/abi.h")
        if (header.startswith(("grpcpp/", "grpc/", "grpc++/")) or header.endswith(".grpc.pb.h")) and \
                not path.startswith(GRPC_FOLDERS + ("tests/",)):
            self.error(path, number, "grpc", f"{header} outside " + ", ".join(GRPC_FOLDERS))
        if header.startswith("prometheus/") and not path.startswith("lib/metrics/"):
            self.error(path, number, "prometheus", f"{header} outside lib/metrics")
        parts = path.split("/")
        if parts[0] != "lib" or len(parts) < 3 or not quoted:
            return  # <memory> is the standard library's
        folder, first = parts[1], header.split("/")[0]
        allowed = self.table.get(folder)
        if allowed is None:
            self.error(path, number, "includes", f"lib/README.md has no row for {folder}")
        elif header.startswith(("romulus/v1/", "etcd/")):
            if "proto" not in allowed:
                self.error(path, number, "includes", f"{folder} may not include {header}: no proto")
        elif first == "daemon":
            self.error(path, number, "includes", f"the library may not include {header}")
        elif first in self.table and first != folder and first not in allowed and \
                header not in allowed:
            self.error(path, number, "includes", f"{folder} may not include {header}")

    def check_ioctl(self, path, number, line):
        if re.search(r"\bioctl\s*\(", line) and path.startswith(("lib/", "daemon/")) and \
                not path.startswith(IOCTL_FOLDERS):
            self.error(path, number, "ioctl", "ioctl( outside " + ", ".join(IOCTL_FOLDERS))

    def check_safety(self, path, number, lines):
        if not path.startswith(("lib/", "daemon/")):
            return
        near = lines[max(0, number - 1 - SAFETY_REACH):number]
        if not any("SAFETY:" in line for line in near):
            self.error(path, number, "safety", "reinterpret_cast without // SAFETY: close above")


def tracked_files(root):
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"],
                            capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        return [name for name in listed.stdout.splitlines() if (root / name).is_file()]
    skipped = {"build", ".git", "out"}  # an unpacked archive
    return [str(path.relative_to(root)) for path in sorted(root.rglob("*"))
            if path.is_file() and not skipped & set(path.relative_to(root).parts)]


def check_format(root, names, clang_format, lint):
    if not clang_format:
        lint.error(".clang-format", 1, "format", "clang-format 14 is not installed")
        return
    version = subprocess.run([clang_format, "--version"], capture_output=True, text=True).stdout
    if " 14." not in version:
        print(f"format: skipped, wants clang-format 14, found: {version.strip()}")
        return
    for start in range(0, len(names), 50):
        done = subprocess.run([clang_format, "--dry-run", "--ferror-limit=1", "-Werror",
                               *names[start:start + 50]], cwd=root, capture_output=True, text=True)
        for line in done.stderr.splitlines():
            found = re.match(r"(.+?):(\d+):\d+: error: .*clang-format", line)
            if found:
                lint.error(found.group(1), int(found.group(2)), "format", "clang-format would change it")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--clang-format", default="clang-format-14")
    parser.add_argument("--no-format", action="store_true")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    table = read_table(root / "lib/README.md")
    if "base" not in table or "failover" not in table:
        print("lib/README.md: the table of includes is not where it was", file=sys.stderr)
        return 1
    lint = Lint(root, table)
    names = [name for name in tracked_files(root) if name.endswith(SOURCES)]
    for name in names:
        lint.check(name, (root / name).read_text(errors="replace"))
    if not arguments.no_format:
        check_format(root, [name for name in names if name.endswith(CXX)], arguments.clang_format,
                     lint)
    print("\n".join(lint.errors) if lint.errors else f"{len(names)} files, no errors")
    return 1 if lint.errors else 0


if __name__ == "__main__":
    sys.exit(main())
