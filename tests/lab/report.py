"""A table of checks for people, with a closing line that scripts can read."""

import contextlib
import time


class Report:
    """Prints each check as it ends. A failed one does not stop the next unless it is required."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    @contextlib.contextmanager
    def check(self, name, required=False):
        """Body of a check: any exception fails it; what it appends to its list are remarks."""
        remarks = []
        start = time.monotonic()
        try:
            yield remarks
        except Exception as error:  # whatever went wrong belongs into the table
            self.failed += 1
            self._row("FAIL", name, start, remarks)
            for line in f"{type(error).__name__}: {error}".splitlines():
                print("       " + line, flush=True)
            if required:
                raise
        else:
            self.passed += 1
            self._row("ok", name, start, remarks)

    def skip(self, name, why):
        print(f"{'skip':<5}{name:<52}{why}", flush=True)

    def close(self):
        """Prints the closing line; the exit status that belongs to it."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0

    @staticmethod
    def _row(verdict, name, start, remarks):
        seconds = time.monotonic() - start
        print(f"{verdict:<5}{name:<52}{seconds:6.1f} s  {', '.join(map(str, remarks))}", flush=True)
