#!/usr/bin/python3
"""Looks into the disks of guests that scripts/make-guest built, from outside and without mounting.

    guest_disk.py writer IMAGE < CONSOLE    the writer's files against what it said
    guest_disk.py redis IMAGE N             the append-only file holds batches 1 to N of redis_client.py

Works on a copy of the image whose journal it replays first, as a mount would; after that the file system
must be clean. Functions raise AssertionError with what is wrong.
"""

import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import redis_client

WRITER_FILES = 64
WRITER_BYTES = 16384
_WROTE = re.compile(r"^wrote (\d{6,}) ([0-9a-f]{32}) time (\d+)\r?$")
_SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"


def _run(*command, check=True):
    done = subprocess.run([str(word) for word in command], capture_output=True, timeout=600,
                          env={"PATH": _SBIN, "LANG": "C"})
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.returncode} {done.stderr.decode()}")
    return done


class Image:
    """An ext4 image as it would be after a mount. `with`; owns a copy in `folder`."""

    def __init__(self, path, folder):
        self._work = tempfile.TemporaryDirectory(dir=folder)
        self.path = pathlib.Path(self._work.name) / "image"
        _run("cp", "--sparse=always", path, self.path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._work.cleanup()

    def recover(self):
        """Replays the journal; then nothing may be left to mend. Whether there was a journal."""
        said = _run("e2fsck", "-y", "-E", "journal_only", self.path, check=False)
        if said.returncode not in (0, 1):
            raise AssertionError(f"journal: {said.returncode} {said.stdout.decode()}")
        check = _run("e2fsck", "-f", "-n", self.path, check=False)
        if check.returncode != 0:
            raise AssertionError(f"fsck finds faults: {check.stdout.decode()[-2000:]}")
        return b"recovering journal" in said.stdout + said.stderr

    def read(self, name):
        """The content of a file; empty if there is none."""
        with tempfile.NamedTemporaryFile(dir=self._work.name) as out:
            _run("debugfs", "-R", f"dump {name} {out.name}", self.path)
            return pathlib.Path(out.name).read_bytes()

    def names(self, folder):
        out = _run("debugfs", "-R", f"ls -p {folder}", self.path).stdout.decode()
        return [line.split("/")[5] for line in out.splitlines() if line.count("/") >= 6]

    def dump(self, name, path):
        """Copies a file of it out, such as an image within an image."""
        _run("debugfs", "-R", f"dump {name} {path}", self.path)


def writer_sums(count):
    """The sums of writes 1 to count, as scripts/guest/writer computes them."""
    sums, last = [], "start"
    for n in range(count):
        last = hashlib.md5(f"{n} {last}\n".encode()).hexdigest()
        sums.append(last)
    return sums


def reported(lines):
    """How many writes a released console tells of; AssertionError if it is not as it must be."""
    wrote = [found for found in map(_WROTE.match, lines) if found]
    sums = writer_sums(len(wrote))
    last_time = 0
    for want, (found, sum_) in enumerate(zip(wrote, sums), 1):
        if int(found[1]) != want or found[2] != sum_:
            raise AssertionError(f"{found[0]!r} where write {want} with sum {sum_} belongs")
        if int(found[3]) < last_time:
            raise AssertionError(f"{found[0]!r}: the guest's clock went back from {last_time}")
        last_time = int(found[3])
    return len(wrote)


def _content(n, sum_):
    line = f"{n} {sum_}\n".encode()
    return (line * (WRITER_BYTES // len(line) + 1))[:WRITER_BYTES]


def check_writer(image, count):
    """All of writes 1 to count are in a recovered image. How many the image has: that or more."""
    folder = "/var/lib/writer"
    logged = image.read(f"{folder}/log").decode().splitlines()
    sums = writer_sums(len(logged))
    for n, (line, sum_) in enumerate(zip(logged, sums), 1):
        # The last line is written before it is made durable.
        if line != f"{n} {sum_}" and n <= max(count, len(logged) - 1):
            raise AssertionError(f"log line {n} is {line!r}, must be '{n} {sum_}'")
    if len(logged) < count:
        raise AssertionError(f"the log has {len(logged)} writes, {count} were reported")
    # Write n + 1 begins when n is durable: so its file may be half written, and that of the last line
    # of the log too unless it was reported.
    for n in range(max(1, len(logged) - WRITER_FILES + 2), len(logged) + 1):
        under_way = n == len(logged) and n > count
        if not under_way and image.read(f"{folder}/{n % WRITER_FILES}") != _content(n, sums[n - 1]):
            raise AssertionError(f"file {n % WRITER_FILES} is not what write {n} made it")
    return len(logged)


def append_only_commands(data):
    """The commands in an append-only file, whole ones only: lists of words."""
    at, commands = 0, []
    while data[at:at + 1] == b"*":
        end = data.find(b"\r\n", at)
        if end < 0:
            break
        count, cursor, words = int(data[at + 1:end]), end + 2, []
        for _ in range(count):
            end = data.find(b"\r\n", cursor)
            if end < 0:
                return commands
            size = int(data[cursor + 1:end])
            words.append(data[end + 2:end + 2 + size].decode())
            cursor = end + 2 + size + 2
            if cursor > len(data):
                return commands
        commands.append(words)
        at = cursor
    return commands


def check_redis(image, count):
    """Batches 1 to count are in the append-only files, each once. How many there are: that or more."""
    folder = "/var/lib/redis/appendonlydir"
    files = sorted(name for name in image.names(folder) if name.endswith(".incr.aof"))
    commands = [words for name in files
                for words in append_only_commands(image.read(f"{folder}/{name}"))]
    sets = [words for words in commands if words[0].upper() == "SET"]
    for n, words in enumerate(sets, 1):
        if words[1:3] != [f"key:{n % redis_client.KEYS}", str(n)]:
            raise AssertionError(f"write {n} in the append-only file is {words}")
    counted = sum(words[0].upper() == "INCR" for words in commands)
    if min(len(sets), counted) < count or len(sets) - counted not in (0, 1):
        raise AssertionError(f"{len(sets)} SETs and {counted} INCRs in the append-only file,"
                             f" {count} were acknowledged")
    return len(sets)


def main(words):
    if len(words) < 2 or words[0] not in ("writer", "redis"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with Image(words[1], tempfile.gettempdir()) as image:
            replayed = image.recover()
            if words[0] == "writer":
                count = reported(sys.stdin.read().split("\n"))
                found = check_writer(image, count)
            else:
                count = int(words[2])
                found = check_redis(image, count)
    except AssertionError as error:
        print(f"BAD: {error}")
        return 1
    print(f"ok: {count} reported, {found} found{', journal replayed' if replayed else ''}")
    return 0


if __name__ == "__main__":
    if not shutil.which("debugfs", path=_SBIN):
        sys.exit("no debugfs: as root, run: apt-get install e2fsprogs")
    sys.exit(main(sys.argv[1:]))
