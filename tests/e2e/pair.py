"""Two romulusd on loopback, for the demo and the end-to-end tests.

Every process is started by this module and ended by its own pid; a parent that dies takes its daemons with it.
Waiting is for events (a status that the daemon streams, a console line, a process's end), with a deadline
that only says when to give up.
"""

import argparse
import contextlib
import ctypes
import json
import os
import pathlib
import re
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid

import refused_calls

PATIENCE_S = float(os.environ.get("ROMULUS_PATIENCE_S", "120"))
NODES = ("alpha", "beta")
SKIPPED = 77

CONFIG = """\
name: "{name}"
uuid: "{uuid}"
nodes {{
  name: "alpha"
  replication_address: "127.0.0.1:{ports[0]}"
  control_address: "unix://{folder}/alpha.sock"
  metrics_address: "127.0.0.1:{ports[2]}"
}}
nodes {{
  name: "beta"
  replication_address: "127.0.0.1:{ports[1]}"
  control_address: "unix://{folder}/beta.sock"
  metrics_address: "127.0.0.1:{ports[3]}"
}}
guest {{
  kernel: "{kernel}"
{initrd_line}  command_line: "{command_line}"
  vcpus: {vcpus}
  memory_mib: {memory_mib}
{disk_lines}  {devices}
}}
console {{ file: "{folder}/{{node}}.console" }}
tracking {{ mode: MODE_{tracking} }}
checkpoint {{ {checkpoint} }}
failover {{ {failover} }}
limits {{ {limits} }}
audit {{ {audit} }}
stop {{ {stop} }}
{cpus}"""

# Each node's images lie in a folder of its own: FOLDER/NODE/NAME.img.
DISK_LINE = '  disks {{ name: "{name}" path: "{folder}/{{node}}/{name}.img" }}\n'


def build_argument(description):
    """--build of a test's command line, from which it is taken out. Ends the test where there is no /dev/kvm."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path)
    known, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    if not os.path.exists("/dev/kvm"):
        print("skipped: no /dev/kvm")
        sys.exit(SKIPPED)
    return known.build.resolve()


def sanitizer(build):
    """Of this build folder: "address", "thread" or ""."""
    cache = pathlib.Path(build, "CMakeCache.txt").read_text()
    return next((line.split("=")[1] for line in cache.splitlines()
                 if line.startswith("ROMULUS_SANITIZER:")), "")


class PairError(Exception):
    pass


def free_ports(count):
    """Ports that are free now; they are handed out together so that they differ. None of those that the kernel
    gives to connections: one of these could be taken before the daemon listens."""
    first_ephemeral = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = range(min(10_000, first_ephemeral // 2), first_ephemeral)
    found = []
    for port in random.sample(candidates, len(candidates)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise PairError(f"{count} free ports are not to be had")


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Daemon:
    def __init__(self, pair, node, role, *arguments, before_exec=None):
        self.pair, self.node, self.role = pair, node, role
        self.log_path = pair.folder / f"{node}.log"
        self.console_path = pair.folder / f"{node}.console"
        self.address = f"unix://{pair.folder}/{node}.sock"
        self.build = pair.builds.get(node, pair.build)
        command = [self.build / "daemon/romulusd", "run", "--config", pair.config, "--node", node,
                   *(["--role", role] if role else []), *arguments]

        def prepare():
            die_with_parent()
            if before_exec:
                before_exec()

        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, preexec_fn=prepare)

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def signal(self, number):
        """Monotonic time right before the signal was sent."""
        now = time.monotonic_ns()
        self.process.send_signal(number)
        return now

    def kill(self):
        when = self.signal(signal.SIGKILL)
        self.process.wait(timeout=PATIENCE_S)
        return when

    def ctl(self, *arguments, check=True, json_output=True):
        command = [str(self.build / "daemon/romulusctl"), "--address", self.address, *arguments]
        if json_output:
            command.append("--json")
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        if not check:
            return done
        if done.returncode != 0:
            raise PairError(f"{' '.join(command)}: {done.stderr.strip()}\n{self.log_tail()}")
        return json.loads(done.stdout) if json_output else done.stdout

    def status(self):
        return self.ctl("status")

    def await_status(self, what, predicate):
        """Asks until the status is as wanted; a daemon that has died ends the wait at once."""
        deadline = time.monotonic() + PATIENCE_S
        status = None
        while time.monotonic() < deadline:
            if not self.alive():
                raise PairError(f"{self.node} ended ({self.process.returncode}) before: {what}\n"
                                + self.log_tail())
            with contextlib.suppress(PairError):
                status = self.status()
                if predicate(status):
                    return status
            time.sleep(0.01)  # between two questions
        raise PairError(f"{self.node}: waited in vain for: {what}; last status {status}\n"
                        + self.log_tail())

    def await_mode(self, mode):
        return self.await_status(f"mode {mode}", lambda s: s.get("mode") == f"MODE_{mode.upper()}")

    def console(self):
        try:
            return self.console_path.read_bytes()
        except FileNotFoundError:
            return b""

    def await_console(self, what, predicate):
        """Asks until the console file's bytes are as wanted, and returns them."""
        said = b""

        def enough(_):
            nonlocal said
            said = self.console()
            return predicate(said)

        self.await_status(what, enough)
        return said

    def settled_console(self):
        """The console once nothing waits to be written to it: what was acked, and no more until there are
        new acks."""
        self.await_status("an empty queue of the console",
                          lambda s: int(s.get("console", {}).get("queued_bytes", 0)) == 0)
        return self.console()

    def log_tail(self, lines=25):
        with contextlib.suppress(FileNotFoundError):
            text = self.log_path.read_text(errors="replace").splitlines()[-lines:]
            said = self.console().decode(errors="replace").splitlines()[-3:]
            return f"--- {self.log_path}\n" + "\n".join([*text, "--- the guest's last words", *said])
        return ""


class Pair:
    """with Pair(build) as pair: pair.start(); ...

    A daemon of `build` that was refused a system call by its own filter fails the test, where the kernel's log can be read.
    """

    def __init__(self, build, command_line="workload=uniform pages=64 report_ms=5", vcpus=1,
                 memory_mib=32, tracking="AUTO", kernel=None, initrd="",
                 checkpoint="max_interval_us: 2000 min_interval_us: 500",
                 failover="auto_failover: true heartbeat_interval_ms: 20 heartbeat_timeout_ms: 1000",
                 devices="", limits="", audit="", disks=None, stop="on_stop: ON_STOP_END",
                 cpus=""):
        """devices: more fields of guest; FOLDER in them is the pair's folder. disks: {name: MiB}; each
        node gets empty images of its own."""
        self.build = pathlib.Path(build).resolve()
        self.builds = {}  # of nodes that are started next from another build folder
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="romulus-"))
        self.config = self.folder / "vm.textproto"
        self.daemons = {}
        self.refused_calls = refused_calls.RefusedCalls()
        self.pids = set()  # of all daemons of `build` that were started
        if kernel is None:  # the ledger wants to be told
            command_line = f"vcpus={vcpus} {command_line}"
        self.options = dict(command_line=command_line, vcpus=vcpus,
                            memory_mib=memory_mib, tracking=tracking, checkpoint=checkpoint,
                            failover=failover, initrd=initrd, limits=limits, audit=audit,
                            stop=stop, cpus=f"cpus {{ {cpus} }}\n" if cpus else "",
                            disks=disks or {},
                            devices=devices.replace("FOLDER", str(self.folder)),
                            kernel=kernel or self.build / "guests/ledger.elf",
                            name="ledger", uuid=str(uuid.uuid4()))
        for node in NODES:
            for name, mib in self.options["disks"].items():
                self.image(node, name).parent.mkdir(exist_ok=True)
                with open(self.image(node, name), "xb") as image:
                    image.truncate(mib << 20)
        self.write_config()

    def image(self, node, name):
        return self.folder / node / f"{name}.img"

    def write_config(self, path=None, **changes):
        options = {**self.options, **changes}
        initrd_line = f'  initrd: "{options["initrd"]}"\n' if options["initrd"] else ""
        disk_lines = "".join(DISK_LINE.format(name=name, folder=self.folder)
                             for name in options["disks"])
        text = CONFIG.format(folder=self.folder, ports=self._ports(), initrd_line=initrd_line,
                             disk_lines=disk_lines, **options)
        (path or self.config).write_text(text)
        return text

    def _ports(self):
        if not hasattr(self, "ports"):
            self.ports = free_ports(4)
        return self.ports

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for daemon in self.daemons.values():
            if daemon.alive():
                daemon.kill()
        refused = self.refused_calls.of(self.pids)
        self.refused_calls.close()
        if kind is None and refused:
            raise PairError("the daemons' filter refused them: " + "; ".join(refused))
        if kind is None and not os.environ.get("ROMULUS_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            print(f"kept for a look: {self.folder}")

    def start_node(self, node, role, *arguments, before_exec=None):
        self.daemons[node] = Daemon(self, node, role, *arguments, before_exec=before_exec)
        if self.daemons[node].build == self.build:
            self.pids.add(self.daemons[node].pid)
        return self.daemons[node]

    def start(self):
        """Secondary first, so that the primary finds it at once."""
        secondary = self.start_node("beta", "secondary")
        secondary.await_status("an answer", lambda s: True)
        primary = self.start_node("alpha", "primary")
        return primary, secondary

    def start_protected(self):
        primary, secondary = self.start()
        primary.await_mode("protected")
        return primary, secondary


def last_step(console):
    """Of the bytes that a node's console file ends with: the guest's last step, 0 if it told none."""
    steps = re.findall(rb"^step (\d{6,}) ", console, re.M)
    return int(steps[-1]) if steps else 0


def assert_guest_goes_on(test, primary, secondary):
    """The primary is killed; the guest goes on where it was, told to by hand, and has lost nothing."""
    primary.kill()
    secondary.await_mode("degraded")
    secondary.ctl("failover")
    said = primary.console()
    secondary.await_status("more output", lambda _: len(secondary.console()) > len(said) + 2000)
    joined, whole, explanation = stream_continues(said, secondary.console())
    test.assertTrue(joined, explanation)
    verdict = judge_console(whole)
    test.assertTrue(verdict["good"], verdict)


def judge_console(data, first=None):
    """Verdict of tests/guests/common/check_console.py on bytes of a console."""
    script = pathlib.Path(__file__).parent.parent / "guests/common/check_console.py"
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = ["python3", str(script), file.name, "--json"]
        if first is not None:
            command += ["--first", str(first)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    try:
        verdict = json.loads(done.stdout)
    except ValueError:
        verdict = {"error": done.stdout + done.stderr}
    verdict["good"] = done.returncode == 0
    return verdict


def stream_continues(before, after):
    """Whether `after` (the survivor's console by position) says what `before` had said, and goes on.

    A file console is written by position: byte k of the guest's stream is byte k of the file. Where the
    survivor was not there yet its file has a hole (zero bytes), which the dead node's file fills.
    Returns (ok, whole stream, explanation).
    """
    if len(after) < len(before):
        return False, before, f"the survivor's stream ends at {len(after)}, before {len(before)}"
    whole = bytearray(after)
    for k, byte in enumerate(before):
        if whole[k] == 0:
            whole[k] = byte
        elif whole[k] != byte:
            return False, bytes(whole), f"byte {k} was said as {byte:#x} and again as {whole[k]:#x}"
    if 0 in whole:
        return False, bytes(whole), f"gap in the stream at byte {bytes(whole).index(0)}"
    return True, bytes(whole), "continuous"
