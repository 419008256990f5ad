"""Text that arrives line by line, with a wait for the line that matters."""

import re
import threading
import time


class LineTimeout(Exception):
    """The awaited line did not come in time."""


class Lines:
    """Lines of one output, kept in memory. Methods may be called by any thread."""

    def __init__(self):
        self._changed = threading.Condition()
        self._lines = []
        self._ended = False

    def add(self, line):
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()

    def end(self, drop_blank=False):
        """No more lines will come. drop_blank takes back an empty last line."""
        with self._changed:
            if drop_blank and self._lines and not self._lines[-1]:
                self._lines.pop()
            self._ended = True
            self._changed.notify_all()

    def count(self):
        """How many lines there are: a mark to wait `since`."""
        with self._changed:
            return len(self._lines)

    def all(self, since=0):
        with self._changed:
            return self._lines[since:]

    def wait_for(self, pattern, timeout, since=0):
        """The first re.Match after `since` lines. LineTimeout when late, EOFError at the end."""
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout
        at = since
        with self._changed:
            while True:
                while at < len(self._lines):
                    found = wanted.search(self._lines[at])
                    at += 1
                    if found:
                        return found
                if self._ended:
                    raise EOFError(f"ended without a line like {pattern!r}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise LineTimeout(f"no line like {pattern!r} within {timeout:g} s")
                self._changed.wait(left)

    def ended(self):
        with self._changed:
            return self._ended

    def wait_for_end(self, timeout):
        """Whether the end came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, timeout)


def read_lines(sock, on_line, on_end):
    """Starts a thread that calls on_line(text) for each line from a socket, then on_end()."""

    def read():
        with sock.makefile("rb") as file:
            try:
                for line in file:
                    on_line(line.decode("utf-8", "replace").rstrip("\r\n"))
            except OSError:
                pass  # the other end was killed
        sock.close()
        on_end()

    threading.Thread(target=read, name="read_lines", daemon=True).start()
