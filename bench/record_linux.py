"""Records a corpus for page_codec from a stock Debian Linux: pages before and after a while of running.

    record_linux.py boot|redis --out FILE [--max-pairs 4000] [--seconds 20] [--every-ms 50] [--seed 1]

boot: from the first instruction until the guest of tests/lab has ticked a few times. redis: the guest of
scripts/make-guest, 20,000 keys of 400 bytes, while a client reads and writes them half and half, some far more often
than others.

The guest runs under QEMU without KVM, so that it is the same wherever it is recorded, also where KVM runs no stock
kernel; it is slower there, hence writes less between two looks. Each --every-ms of running it is stopped, and its
memory compared with what it was at the last look. What is kept of all pages that differ is a uniform sample: each is
as likely as any other, whenever it changed. So a page that had been zero until then is in it as often as it comes,
which in a boot is often; one that was written with what it held is not.
"""

import argparse
import contextlib
import mmap
import os
import pathlib
import random
import sys
import tempfile
import threading
import time

from common import ROOT, SKIPPED, say
import pair as pairlib
import qemu

sys.path.append(str(ROOT / "tests/lab"))
import guest_initramfs  # noqa: E402
import images  # noqa: E402
import process  # noqa: E402
from redis_client import Redis, Reply  # noqa: E402

PAGE = 4096
CHUNK = 64 * PAGE  # compared at once
MEMORY_MIB = 256
PATIENCE_S = 3 * qemu.PATIENCE_S  # emulation is slow
LAST_TICK = b"tick 000010 "
KEYS, VALUE_BYTES, BATCH = 20_000, 400, 16


def differing_pages(before, now):
    """(page before, page now) of each that differs, of two pieces of memory."""
    for at in range(0, len(now), PAGE):
        page = now[at:at + PAGE]
        if page != before[at:at + PAGE]:
            yield before[at:at + PAGE], page


class Looks:
    """Looks at memory, which begins as zeros. `memory` is anything that gives bytes when it is sliced."""

    def __init__(self, memory, size):
        self._memory = memory
        self._last = [bytes(CHUNK)] * (size // CHUNK)

    def look(self):
        """(page at the last look, page now) of each that differs. It counts as a look when it is read to its end."""
        for number, before in enumerate(self._last):
            now = self._memory[number * CHUNK:(number + 1) * CHUNK]
            if now != before:
                self._last[number] = now
                yield from differing_pages(before, now)


class Sample:
    """At most `most` pairs in a file, of all that are offered, each as likely as any other."""

    def __init__(self, file, most, seed):
        self._file, self._most, self._random = file, most, random.Random(seed)
        self.seen = 0

    @property
    def kept(self):
        return min(self.seen, self._most)

    def offer(self, before, now):
        slot = self.seen if self.seen < self._most else self._random.randrange(self.seen + 1)
        self.seen += 1
        if slot < self._most:
            self._file.seek(slot * 2 * PAGE)
            self._file.write(before + now)


class EmulatedGuest:
    """QEMU, stopped before the first instruction, with memory that can be looked at. Ends at the end of `with`."""

    def __init__(self, folder, kernel, initrd, command_line, more=()):
        size = MEMORY_MIB << 20
        self._console_path = folder / "console"
        self._log_path = folder / "log"
        self._exit = contextlib.ExitStack()
        descriptor = os.memfd_create("guest")
        self._exit.callback(os.close, descriptor)
        os.ftruncate(descriptor, size)
        memory = self._exit.enter_context(mmap.mmap(descriptor, size, prot=mmap.PROT_READ))
        words = [*images.qemu(), "-accel", "tcg,thread=single", "-machine", "pc,memory-backend=ram",
                 "-object", f"memory-backend-file,id=ram,size={size},share=on,mem-path=/proc/self/fd/{descriptor}",
                 "-m", f"{MEMORY_MIB}M", "-smp", "1", "-nodefaults", "-no-user-config", "-vga", "none",
                 "-display", "none", "-serial", f"file:{self._console_path}",
                 "-qmp", f"unix:{folder}/qmp,server=on,wait=off", "-kernel", kernel, "-initrd", initrd,
                 "-append", command_line, "-S", *more]
        with self._exit:
            with open(self._log_path, "wb") as log:
                self._process = process.launch(words, pass_fds=[descriptor], stdout=log, stderr=log)
            self._exit.callback(process.end, self._process)
            try:
                self._monitor = qemu.Monitor(folder / "qmp")
            except qemu.QemuError as error:
                raise qemu.QemuError(f"{error}; {self.last_words()}") from error
            self._exit.callback(self._monitor.close)
            self._looks = Looks(memory, size)
            self._exit = self._exit.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._exit.close()

    def run(self):
        self._monitor.command("cont")

    def stop(self):
        self._monitor.command("stop")

    def look(self):
        return self._looks.look()

    def _console(self):
        return self._console_path.read_bytes() if self._console_path.exists() else b""

    def said(self, text):
        return text in self._console()

    def await_console(self, text):
        deadline = time.monotonic() + PATIENCE_S
        while not self.said(text):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise qemu.QemuError(f"waited in vain for {text!r}; {self.last_words()}")
            time.sleep(0.05)  # between two looks

    def last_words(self):
        return (self._log_path.read_bytes() + self._console()[-500:]).decode(errors="replace")


class Load(threading.Thread):
    """A client of the guest's redis, from when the keys are there until close()."""

    def __init__(self, port, seed):
        super().__init__(daemon=True)
        self._random = random.Random(seed)
        self._redis = Redis("127.0.0.1", PATIENCE_S, port)
        self._over = threading.Event()
        self.requests = 0
        self.fault = None

    def fill(self):
        for first in range(0, KEYS, BATCH):
            self._redis.ask(*(self._set(key) for key in range(first, min(first + BATCH, KEYS))))

    def _set(self, key):
        return "SET", f"key:{key}", self._random.randbytes(VALUE_BYTES // 2).hex()

    def _request(self):
        key = int(self._random.paretovariate(0.3)) % KEYS
        return self._set(key) if self._random.random() < 0.5 else ("GET", f"key:{key}")

    def run(self):
        try:
            while not self._over.is_set():
                self._redis.ask(*(self._request() for _ in range(BATCH)))
                self.requests += BATCH
        except (OSError, ValueError, Reply) as error:
            self.fault = error

    def close(self):
        """The guest must run: what was asked is still answered."""
        self._over.set()
        self.join(PATIENCE_S)
        self._redis.close()
        if self.fault or self.is_alive():
            raise qemu.QemuError(f"redis does not answer: {self.fault}")


def record(guest, sample, options, over):
    """From a guest that is stopped to one that is stopped; the number of looks."""
    looks = 0
    every = options.every_ms / 1e3
    while looks * every < options.seconds and not over():
        guest.run()
        time.sleep(every)  # what it runs
        guest.stop()
        for pair in guest.look():
            sample.offer(*pair)
        looks += 1
    return looks


def record_boot(folder, sample, options):
    image = guest_initramfs.build(folder / "initrd")
    with EmulatedGuest(folder, images.kernel("guest"), image, "console=ttyS0 panic=-1") as guest:
        looks = record(guest, sample, options, lambda: guest.said(LAST_TICK))
        end = "to its ticks" if guest.said(LAST_TICK) else "not to its end"
    return f"{looks} looks, {end}"


def redis_guest():
    """The folder that scripts/make-guest left; ImageError if there is none."""
    found = images.cache_folder() / "guest"
    if not (found / "root.ext4").exists():
        raise images.ImageError(f"no guest in {found}: run scripts/make-guest")
    return found


def record_redis(folder, sample, options):
    built = redis_guest()
    port = pairlib.free_ports(1)[0]
    devices = ["-drive", f"file={built}/root.ext4,format=raw,if=virtio,snapshot=on",
               "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:6379",
               "-device", "virtio-net-pci,netdev=net"]
    words = "console=ttyS0 panic=-1 romulus.ip=10.0.2.15/24 romulus.service=redis"
    with EmulatedGuest(folder, built / "vmlinuz", built / "initrd.img", words, devices) as guest:
        guest.run()
        guest.await_console(b"Ready to accept connections")
        load = Load(port, options.seed)
        load.fill()
        guest.stop()
        for _ in guest.look():  # what comes before is no part of it
            pass
        load.start()
        looks = record(guest, sample, options, lambda: load.fault is not None)
        guest.run()
        load.close()
    return f"{looks} looks, {load.requests} requests"


CORPORA = {"boot": record_boot, "redis": record_redis}


def why_not(what):
    """What it lacks, as a text; None if it can be recorded."""
    try:
        images.qemu()
        _ = images.kernel("guest") if what == "boot" else redis_guest()
    except images.ImageError as error:
        return str(error)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=CORPORA)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--max-pairs", default=4000, type=int)
    parser.add_argument("--seconds", default=20, type=float, help="that the guest runs while it is recorded, at most")
    parser.add_argument("--every-ms", default=50, type=float, help="from one look at its memory to the next")
    parser.add_argument("--seed", default=1, type=int)
    options = parser.parse_args()
    if lacks := why_not(options.what):
        say(f"skipped: {lacks}")
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder, open(options.out, "wb") as file:
        sample = Sample(file, options.max_pairs, options.seed)
        try:
            told = CORPORA[options.what](pathlib.Path(folder), sample, options)
        except (qemu.QemuError, OSError) as error:
            say(f"{options.what}: {error}")
            return 1
    say(f"{options.out.name}: {sample.kept} of {sample.seen} changed pages, {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
