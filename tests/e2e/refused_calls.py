"""The system calls that seccomp filters refused, as the kernel's log has them.

Where that log cannot be read nothing is seen, and of many lines at once the kernel leaves some out: that there is
none is no proof, but one that is there was refused.
"""

import contextlib
import os
import re

CHUNK_BYTES = 16 << 10  # no record is larger


class RefusedCalls:
    """Those from now on."""

    def __init__(self):
        self._log = None
        self._seen = []  # (process, thread's name, number of the call)
        with contextlib.suppress(OSError):
            self._log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._log, 0, os.SEEK_END)

    def of(self, pids):
        """Of these processes, as lines for a message."""
        self._read()
        return [f"process {pid}, thread {name}: system call {call}" for pid, name, call in self._seen if pid in pids]

    def close(self):
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _read(self):
        while self._log is not None:
            try:
                record = os.read(self._log, CHUNK_BYTES).decode(errors="replace")
            except BlockingIOError:
                return
            except BrokenPipeError:  # the oldest ones were written over
                continue
            if match := re.search(r'audit: type=1326 .*? pid=(\d+) comm="([^"]*)" .* syscall=(\d+) ', record):
                self._seen.append((int(match[1]), match[2], int(match[3])))
