"""One lab host: a QEMU that emulates a machine with SVM, and the commands that run inside it."""

import base64
import dataclasses
import itertools
import os
import shlex
import signal
import socket
import threading
import time

import images
import process
from lines import END_MARK, LineTimeout, Lines
from qmp import Qmp

STREAMS = 8  # jobs in one host whose output can be followed at the same time


class LabError(Exception):
    """Something in the lab failed or took too long. The text names the host and ends with its console."""


@dataclasses.dataclass
class Result:
    """What a finished command left: exit status (128 + signal), and its output as text."""
    status: int
    out: str
    err: str


class Job:
    """A command under way in a host. Made by Host.start."""

    def __init__(self, host, number, command, stream):
        self._host = host
        self._number = number
        self._stream = stream
        self.command = command
        self.lines = None  # Lines of its output if it was started with follow=True
        self.done = threading.Event()
        self.result = None  # set before done; None means that the host died first

    def wait(self, timeout):
        """Its Result. LabError when it is late (it is killed then) or when the host died."""
        if not self.done.wait(timeout * self._host.slowness):
            self.kill()
            raise self._host.error(f"{self.command!r} took more than {timeout:g} s", self)
        if self.result is None:
            raise self._host.error(f"the host ended while {self.command!r} ran", self)
        if self.lines:
            try:
                self.lines.wait_for(f"^{END_MARK}{self._number}$", 5 * self._host.slowness)
                self._host.release_stream(self._stream)
            except (LineTimeout, EOFError):
                pass  # a child of the job still writes to the stream, which so stays in use
        return self.result

    def wait_for(self, pattern, timeout, since=0):
        """The first re.Match in its output (follow=True); LabError if late or ended without it."""
        try:
            return self.lines.wait_for(f"{pattern}|^{END_MARK}{self._number}$",
                                       timeout * self._host.slowness,
                                       since) if not self.done.is_set() else self._in_rest(pattern, since)
        except (LineTimeout, EOFError) as late:
            raise self._host.error(f"{self.command!r}: {late}", self) from None

    def kill(self, number=signal.SIGKILL):
        """Signals its process group."""
        self._host.send(f"kill {self._number} {int(number)}")


class Host:
    """Owns one QEMU process at a time. Call from one thread, or lock outside."""

    def __init__(self, name, address, memory_mib, cpus, scratch, initramfs, slowness):
        self.name = name
        self.address = address
        self.memory_mib = memory_mib
        self.cpus = cpus
        self.scratch = scratch
        self.slowness = slowness
        self.nics = {}  # peer's name -> (socket, MAC address, peer's IP address)
        self.console = None
        self._initramfs = initramfs
        self._qemu = None
        self._qmp = None
        self._control = None
        self._streams = {}
        self._free_streams = []
        self._jobs = {}
        self._numbers = itertools.count(1)
        self._hello = threading.Event()
        self._frozen = False
