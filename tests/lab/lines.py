"""Text that arrives line by line on a socket, with a wait for the line that matters."""

import re
import threading
import time

END_MARK = "\x1eend "  # agent.sh writes it behind the output of a job


class LineTimeout(Exception):
    pass


class Lines:
    """Reads a socket in a thread of its own and keeps the lines. Methods may be called by any thread."""

    def __init__(self, sock, name):
        self._socket = sock
        self._changed = threading.Condition()
        self._lines = []
        self._partial = b""
        self._ended = False
        threading.Thread(target=self._read, name=f"lines {name}", daemon=True).start()

    def _read(self):
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                data = b""
            with self._changed:
                *whole, self._partial = (self._partial + data).split(b"\n")
                if not data and self._partial:
                    whole.append(self._partial)
                    self._partial = b""
                self._lines += [w.decode("utf-8", "replace").rstrip("\r") for w in whole]
                self._ended = not data
                self._changed.notify_all()
            if not data:
                self._socket.close()
                return

    def count(self):
        """How many lines there are: a mark to wait `since`."""
        with self._changed:
            return len(self._lines)

    def all(self, since=0):
        with self._changed:
            return self._lines[since:]

    def last(self, count):
        """The last lines, the unfinished one included: for error messages."""
        with self._changed:
            tail = self._lines[-count:]
            return tail + [self._partial.decode("utf-8", "replace")] if self._partial else tail

    def wait_for(self, pattern, timeout, since=0):
        """The first re.Match among lines `since` that many. LineTimeout when late, EOFError at the end."""
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
