"""QEMU as a peer: one guest under its own VMM, its QMP monitor, and two of them as a COLO pair.

The guest is a PVH kernel (tests/guests) whose console goes to a file. Every process is started by this module,
ends by its own pid, and dies with its parent.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

import pair as pairlib

PATIENCE_S = float(os.environ.get("ROMULUS_PATIENCE_S", "60"))
PROGRAM = "qemu-system-x86_64"
STATE_FOLDER_PREFIX = "romulus-qemu-"


class QemuError(Exception):
    pass


def version():
    """First line of what QEMU says of itself; None if there is none."""
    if not shutil.which(PROGRAM):
        return None
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=PATIENCE_S)
    return done.stdout.splitlines()[0] if done.stdout else None


class Monitor:
    """QMP (QEMU docs/interop/qmp-spec) that keeps the events. They are read only when something is asked: QEMU
    keeps what nobody reads, so a bench that sleeps costs the machine nothing."""

    def __init__(self, path):
        deadline = time.monotonic() + PATIENCE_S
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise QemuError(f"no monitor at {path}") from None
                time.sleep(0.01)  # between two tries: it is not there yet
        # Only to read from: a text file that is also written to forgets, at a write, what it has read ahead.
        self._file = self._socket.makefile("r", encoding="utf-8", newline="\n")
        self.events = []
        try:
            self._read()  # the greeting
        except OSError as error:
            raise QemuError(f"no greeting: {error}") from error
        self.command("qmp_capabilities")

    def command(self, name, /, **arguments):
        """The value that the command returns; events in between are kept."""
        try:
            self._socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
            while True:
                answer = self._read()
                if "error" in answer:
                    raise QemuError(f"{name}: {answer['error'].get('desc')}")
                if "return" in answer:
                    return answer["return"]
                self.events.append(answer)
        except OSError as error:
            raise QemuError(f"{name}: {error}") from error

    def await_event(self, name):
        """The first event of this name that has not been taken."""
        while True:
            for at, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(at)
            try:
                self.events.append(self._read())
            except OSError as error:
                raise QemuError(f"no {name}: {error}") from error

    def take_events(self):
        """All that were sent until now."""
        self.command("query-status")
        taken, self.events = self.events, []
        return taken

    def _read(self):
        line = self._file.readline()
        if not line:
            raise QemuError("QEMU closed its monitor")
        try:
            return json.loads(line)
        except ValueError as error:
            raise QemuError(f"the monitor said what is not JSON: {line[:200]!r}") from error

    def close(self):
        self._file.close()
        self._socket.close()


class Qemu:
    """One QEMU with one guest of a vCPU, without a disk or a card."""

    def __init__(self, folder, name, kernel, command_line, memory_mib, incoming=None, prealloc=False):
        self.console_path = folder / f"{name}.console"
        self.log_path = folder / f"{name}.log"
        monitor_path = folder / f"{name}.qmp"
        # qboot instead of SeaBIOS: where CPL0 is emulated the latter takes a minute to get to the kernel.
        # Some hosts offer IA32_ARCH_CAPABILITIES (MSR 0x10a) and refuse its value, which ends QEMU.
        command = [PROGRAM, "-accel", "kvm", "-machine", "pc", "-bios", "qboot.rom",
                   "-cpu", "host,arch-capabilities=off", "-m", str(memory_mib), "-smp", "1",
                   "-name", f"{name},debug-threads=on", "-nodefaults", "-no-user-config", "-vga", "none", "-nic", "none", "-display", "none",
                   "-serial", f"file:{self.console_path}", "-qmp", f"unix:{monitor_path},server=on,wait=off",
                   "-kernel", str(kernel), "-append", command_line,
                   *(["-incoming", incoming] if incoming else []), *(["-mem-prealloc"] if prealloc else [])]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=pairlib.die_with_parent)
        try:
            self.monitor = Monitor(monitor_path)
        except QemuError as error:
            self.end()
            raise QemuError(f"{error}; {self.last_words()}") from error

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def console(self):
        try:
            return self.console_path.read_bytes()
        except FileNotFoundError:
            return b""

    def await_console(self, what, predicate):
        """Asks until the console's bytes are as wanted."""
        deadline = time.monotonic() + PATIENCE_S
        while not predicate(self.console()):
            if not self.alive() or time.monotonic() > deadline:
                raise QemuError(f"waited in vain for {what}; {self.last_words()}")
            time.sleep(0.02)  # between two looks

    def last_words(self):
        return self.log_path.read_text(errors="replace")[-500:].strip()

    def end(self):
        """By SIGKILL; returns the wall clock right before it, as QMP's events tell the time."""
        now = time.time()
        self.process.kill()
        self.process.wait(timeout=PATIENCE_S)
        return now


def migrate_settings(xbzrle_cache_mib=0, **parameters):
    """(capabilities, parameters) for migrate-set-*."""
    on = ["xbzrle"] if xbzrle_cache_mib else []
    if xbzrle_cache_mib:
        parameters["xbzrle-cache-size"] = xbzrle_cache_mib << 20
    return on, parameters


class Couple:
    """Two QEMUs, source and destination of a migration, that ends or (COLO) goes on for ever.

    with Couple(kernel, words, memory_mib, "unix") as couple: ...
    """

    def __init__(self, kernel, command_line, memory_mib, transport):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=STATE_FOLDER_PREFIX))
        self._exit = contextlib.ExitStack()
        self._exit.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._guest = (kernel, command_line, memory_mib)
        self.uri = (f"unix:{self.folder}/stream" if transport == "unix"
                    else f"tcp:127.0.0.1:{pairlib.free_ports(1)[0]}")
        self.target = None
        self._others = []
        with self._exit:
            self.source = self._start("source")
            self._exit = self._exit.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._exit.close()

    def _start(self, name, **more):
        qemu = Qemu(self.folder, name, *self._guest, **more)
        self._exit.callback(qemu.end)
        return qemu

    def begin(self, capabilities, parameters, prealloc=False):
        """The destination starts, and the migration. prealloc: its memory is there before."""
        self.target = self._start("target", incoming=self.uri, prealloc=prealloc)
        if self._others:
            for task in pathlib.Path(f"/proc/{self.target.pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), self._others)
        for qemu in (self.source, self.target):
            qemu.monitor.command("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True} for name in capabilities])
        self.set(**parameters)
        self.source.monitor.command("migrate", uri=self.uri)

    def set(self, **parameters):
        self.source.monitor.command("migrate-set-parameters", **parameters)

    def state(self):
        return self.source.monitor.command("query-migrate")

    def await_state(self, wanted):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            now = self.state()
            if now.get("status") == wanted:
                return now
            if now.get("status") in ("failed", "cancelled") or time.monotonic() > deadline:
                raise QemuError(f"migration is {now.get('status')}, not {wanted}: {now.get('error-desc', '')} "
                                f"{self.source.last_words()} {self.target.last_words()}")
            time.sleep(0.02)  # between two questions

    def divide(self, vcpu_cpus, other_cpus):
        """The source's vCPU gets CPUs of its own; all else, whatever starts later too, the others."""
        if not vcpu_cpus:
            return
        self._others = other_cpus
        for task in pathlib.Path(f"/proc/{self.source.pid}/task").iterdir():
            is_vcpu = (task / "comm").read_text().startswith("CPU ")
            os.sched_setaffinity(int(task.name), vcpu_cpus if is_vcpu else other_cpus)

    def pids(self):
        return [qemu.pid for qemu in (self.source, self.target) if qemu]


def begin_colo(couple, delay_ms, xbzrle_cache_mib=0):
    """Until the first checkpoint is under way. No bound on its bandwidth: a Unix socket has none of its own."""
    on, parameters = migrate_settings(xbzrle_cache_mib, **{
        "x-checkpoint-delay": delay_ms, "max-bandwidth": 10 << 30})
    couple.begin(["x-colo", *on], parameters)
    couple.await_state("colo")


def when(event):
    """An event's wall clock in seconds."""
    return event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6


def pauses_of(events):
    """Of a list of events: milliseconds from each STOP to its RESUME."""
    found, stopped = [], None
    for event in events:
        if event["event"] == "STOP":
            stopped = when(event)
        elif event["event"] == "RESUME" and stopped is not None:
            found.append((when(event) - stopped) * 1e3)
            stopped = None
    return found


def fail_over(couple):
    """The source dies, the target is told so (COLO has no detector): milliseconds until its guest runs."""
    target = couple.target.monitor
    died = time.time()
    couple.source.process.kill()  # reaped with the couple: to wait for its end here would count
    told = time.time()
    target.command("x-colo-lost-heartbeat")
    target.await_event("COLO_EXIT")
    while True:  # the target's guest was stopped and resumed before, by checkpoints
        resumed = when(target.await_event("RESUME"))
        if resumed >= told:
            return (resumed - died) * 1e3
