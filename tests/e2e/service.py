#!/usr/bin/env python3
"""A daemon under a service manager: what it is told, and that its watchdog is fed by progress alone.

The manager is this test: a datagram socket. A loop of the daemon is stopped as a debugger stops a thread, which
needs no help of the daemon's. Needs /dev/kvm.
"""

import contextlib
import ctypes
import os
import pathlib
import re
import signal
import socket
import time
import unittest

import pair as pairlib

BUILD = None
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000


class Manager:
    """What a service manager hears, by datagram."""

    def __init__(self, folder, watchdog_s=None):
        self.path = str(folder / "notify.sock")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(pairlib.PATIENCE_S)
        self.environment = {"NOTIFY_SOCKET": self.path}
        if watchdog_s:
            self.environment["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        self.heard = []

    def hear(self):
        said = self.socket.recv(8192).decode()
        self.heard.append(said)
        return said

    def await_said(self, *words):
        """The next datagram with all of these; what came before it is heard, too."""
        while True:
            said = self.hear()
            if all(word in said for word in words):
                return said

    def await_beats(self, count):
        for _ in range(count):
            self.await_said("WATCHDOG=1")

    def drain(self):
        self.socket.setblocking(False)
        drained = []
        with contextlib.suppress(BlockingIOError):
            while True:
                drained.append(self.hear())
        self.socket.settimeout(pairlib.PATIENCE_S)
        return drained

    def close(self):
        self.socket.close()


@contextlib.contextmanager
def stopped_thread(pid, name):
    """This thread of the process, and no other, stands still."""
    def is_wanted(task):
        return task.name == str(pid) if name == "main" else (task / "comm").read_text().strip() == name

    (tid,) = [int(task.name) for task in pathlib.Path(f"/proc/{pid}/task").iterdir() if is_wanted(task)]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def ptrace(request):
        if libc.ptrace(request, tid, None, None) != 0:
            raise OSError(ctypes.get_errno(), f"ptrace of {name}")

    ptrace(PTRACE_SEIZE)
    ptrace(PTRACE_INTERRUPT)
    os.waitpid(tid, WALL)
    try:
        yield
    finally:
        ptrace(PTRACE_DETACH)


class Service(unittest.TestCase):
    failover = "auto_failover: false heartbeat_interval_ms: 20 heartbeat_timeout_ms: 2000"

    def setUp(self):
        self.pair = pairlib.Pair(BUILD, failover=self.failover)
        self.pair.__enter__()
        self.addCleanup(lambda: self.pair.__exit__(None, None, None))

    def manager(self, node, watchdog_s=None):
        folder = self.pair.folder / f"{node}-manager"
        folder.mkdir()
        manager = Manager(folder, watchdog_s)
        self.addCleanup(manager.close)
        return manager

    def start(self, node, role, manager):
        """Only this one has the manager."""
        os.environ.update(manager.environment)
        try:
            return self.pair.start_node(node, role)
        finally:
            for name in manager.environment:
                del os.environ[name]

    def test_a_secondary_is_ready_when_it_listens_and_says_what_it_is(self):
        manager = self.manager("beta")
        beta = self.start("beta", "secondary", manager)
        ready = manager.await_said("READY=1")
        self.assertIn("STATUS=secondary, standby", ready)
        self.assertIn("without alpha", ready)
        beta.status()  # it is served already
        alpha = self.pair.start_node("alpha", "primary")
        manager.await_said("STATUS=secondary, protected", "with alpha")
        alpha.kill()
        manager.await_said("STATUS=secondary, degraded", "without alpha")
        beta.ctl("failover")
        manager.await_said("STATUS=primary, solo")
        self.assertEqual(sum("READY=1" in said for said in manager.heard), 1)
        self.assertFalse(any("WATCHDOG" in said for said in manager.heard), "nobody asked for it")

    def test_a_primary_is_ready_when_its_guest_runs_and_says_that_it_stops(self):
        manager = self.manager("alpha")
        alpha = self.start("alpha", "primary", manager)
        self.assertIn("STATUS=primary, solo", manager.await_said("READY=1"))
        alpha.await_console("the guest", lambda said: said)
        alpha.signal(signal.SIGTERM)
        manager.await_said("STOPPING=1")
        self.assertEqual(alpha.process.wait(timeout=pairlib.PATIENCE_S), 0, alpha.log_tail())

    def test_a_daemon_that_serves_has_a_system_call_filter(self):
        """All of its threads; the rest of these tests, and all others, run with it."""
        alpha = self.pair.start_node("alpha", "primary")
        alpha.await_mode("solo")
        if pairlib.sanitizer(BUILD):
            self.assertIn("event=syscall_filter vm=ledger node=alpha is=off by=build", alpha.log_path.read_text())
            return
        self.assertIn("event=syscall_filter vm=ledger node=alpha is=strict", alpha.log_path.read_text())
        for task in pathlib.Path(f"/proc/{alpha.pid}/task").iterdir():
            self.assertRegex((task / "status").read_text(), r"(?m)^Seccomp:\t2$")
        status = pathlib.Path(f"/proc/{alpha.pid}/status").read_text()
        self.assertRegex(status, r"(?m)^NoNewPrivs:\t1$")
        # One of two hides clone3, and says nothing of it to the kernel's log (Pair looks).
        counts = [int(re.search(r"(?m)^Seccomp_filters:\t(\d+)$", text)[1])
                  for text in (pathlib.Path("/proc/self/status").read_text(), status)]
        self.assertEqual(counts[1], counts[0] + 2)

    def test_what_cannot_start_is_never_ready(self):
        manager = self.manager("alpha")
        self.pair.write_config(kernel=__file__)
        alpha = self.start("alpha", "primary", manager)
        self.assertEqual(alpha.process.wait(timeout=pairlib.PATIENCE_S), 1)
        self.assertFalse([said for said in manager.drain() if "READY" in said])

    def hang(self, daemon, manager, thread, loop):
        """While the thread stands still there are no beats, and the log has its name; then they come again."""
        manager.await_beats(3)
        before = len(daemon.log_path.read_text())  # on a busy machine another loop may have been late, too
        with stopped_thread(daemon.pid, thread):
            deadline = time.monotonic() + pairlib.PATIENCE_S
            late_line = f"event=loop_late vm=ledger node={daemon.node} loop={loop} "
            while late_line not in daemon.log_path.read_text()[before:]:
                self.assertLess(time.monotonic(), deadline, daemon.log_tail())
                time.sleep(0.01)  # between two looks
            # Half of the watchdog's time has gone without its move: one beat may have come before.
            manager.drain()
            late = [line for line in daemon.log_path.read_text().splitlines() if "event=loop_late" in line]
            time.sleep(1)  # a second in which a timer would have said something
            self.assertFalse([said for said in manager.drain() if "WATCHDOG" in said], f"{thread}: {late}")
        manager.await_beats(3)
        self.assertIn(f"event=loop_goes_on vm=ledger node={daemon.node} loop={loop} ",
                      daemon.log_path.read_text()[before:])

    def test_the_loops_of_a_primary_feed_its_watchdog_and_no_timer(self):
        manager = self.manager("alpha", watchdog_s=4)
        beta = self.pair.start_node("beta", "secondary")
        beta.await_status("an answer", lambda s: True)
        alpha = self.start("alpha", "primary", manager)
        alpha.await_mode("protected")
        for thread, loop in ("checkpoint", "checkpoint"), ("main", "control"), ("devices", "devices"):
            with self.subTest(thread):
                self.hang(alpha, manager, thread, loop)
                alpha.await_mode("protected")
        # A vCPU that does not come back is waited for by the checkpoint, too; alone nobody else sees it.
        beta.kill()
        alpha.await_status("the loss", lambda s: not s["peer"].get("connected"))
        self.hang(alpha, manager, "vcpu0", "vcpu0")

    def test_the_loops_of_a_secondary(self):
        manager = self.manager("beta", watchdog_s=4)
        beta = self.start("beta", "secondary", manager)
        manager.await_said("READY=1")
        alpha = self.pair.start_node("alpha", "primary")
        alpha.await_mode("protected")
        self.hang(beta, manager, "promoter", "promoter")
        self.hang(beta, manager, "main", "control")

    def test_a_guest_that_stands_still_on_purpose_owes_nothing(self):
        manager = self.manager("alpha", watchdog_s=1)
        alpha = self.start("alpha", "primary", manager)
        manager.await_said("READY=1")
        alpha.ctl("pause")
        manager.await_beats(20)
        alpha.ctl("resume")
        manager.await_beats(20)
        self.assertNotIn("loop_late", alpha.log_path.read_text())


if __name__ == "__main__":
    BUILD = pairlib.build_argument(__doc__)
    unittest.main()
