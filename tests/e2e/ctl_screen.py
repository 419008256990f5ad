"""romulusctl on a terminal of its own, whose screen can be looked at."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pyte

import pair as pairlib


class Terminal:
    """with Terminal(command) as terminal: terminal.await_text("protected"); ..."""

    def __init__(self, command, rows=30, columns=100):
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)

        def prepare():
            pairlib.die_with_parent()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        # "screen": it has another screen to return from, and says nothing that pyte does not know.
        self.process = subprocess.Popen([str(part) for part in command], stdin=self.slave, stdout=self.slave,
                                        stderr=self.slave, start_new_session=True, preexec_fn=prepare,
                                        env={**os.environ, "TERM": "screen-256color", "LC_ALL": "C.UTF-8"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows, columns):
        """The kernel tells whoever is in the foreground."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def read(self, patience_s):
        if select.select([self.master], [], [], patience_s)[0]:
            data = os.read(self.master, 1 << 16)
            self.raw += data
            self.stream.feed(data)

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def await_text(self, pattern):
        """Until the screen matches, and returns it."""
        deadline = time.monotonic() + pairlib.PATIENCE_S
        while time.monotonic() < deadline:
            if re.search(pattern, self.text(), re.M | re.S):
                return self.text()
            if self.process.poll() is not None:
                break
            self.read(0.1)
        raise pairlib.PairError(f"the screen does not have {pattern!r}:\n{self.text()}\n"
                                f"exit code {self.process.poll()}")

    def type(self, keys):
        os.write(self.master, keys)

    def end(self, how):
        """By keys, or by a signal; the exit code, and whether the terminal is as it was."""
        if isinstance(how, bytes):
            self.type(how)
        else:
            self.process.send_signal(how)
        deadline = time.monotonic() + pairlib.PATIENCE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read(0.1)
        while select.select([self.master], [], [], 0)[0]:
            self.read(0)
        left = self.raw.rfind(b"\x1b[?1049l") > self.raw.rfind(b"\x1b[?1049h") >= 0
        visible = self.raw.rfind(b"\x1b[?25h") > self.raw.rfind(b"\x1b[?25l") >= 0
        same = termios.tcgetattr(self.slave) == self.before
        return self.process.poll(), {"left": left, "cursor": visible, "modes": same}


AS_IT_WAS = {"left": True, "cursor": True, "modes": True}
ENDINGS = {"q": b"q", "^C": b"\x03", "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP}
