"""Child processes that cannot outlive this one, whatever kills it."""

import concurrent.futures
import ctypes
import os
import signal
import subprocess

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)

# PR_SET_PDEATHSIG fires when the *thread* that forked ends, not its process (prctl(2)). So every
# child is forked by this one thread, which lives as long as the process, wherever the caller runs.
_launcher = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")


def launch(command, pass_fds=(), **options):
    """subprocess.Popen of a child that the kernel kills when this process ends, even by SIGKILL."""
    parent = os.getpid()

    def tie_to_parent():
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended between fork and prctl
            os._exit(1)

    return _launcher.submit(subprocess.Popen, [str(word) for word in command], pass_fds=pass_fds,
                            preexec_fn=tie_to_parent, stdin=subprocess.DEVNULL, **options).result()


def end(child):
    """Kills and reaps a child; does nothing to one that is reaped already."""
    if child.poll() is None:
        child.kill()  # Popen holds the pid until it is reaped, so this is the right process
    child.wait()
