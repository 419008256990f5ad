"""A network namespace of its own for a test: nothing on the machine is touched, and many can run at once.

    netns.enter()              # first thing in main(): becomes a process in a new namespace
    netns.make_switch(["alpha", "beta"])   # br0 (10.0.0.1/24) with taps tap-alpha, tap-beta

Needs root, or a kernel that lets users make user namespaces; `enter` says so otherwise.
"""

import os
import shutil
import subprocess
import sys

ENTERED = "ROMULUS_IN_NETNS"
SKIPPED = 77  # CTest's SKIP_RETURN_CODE
HOST_IP, GUEST_IP = "10.0.0.1", "10.0.0.2"


def enter():
    """Runs the whole process again inside; returns only there. Exits with SKIPPED where that cannot be."""
    if os.environ.get(ENTERED):
        return
    wrap = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    if not shutil.which("ip"):
        print("skipped: no ip command (Debian package iproute2)")
        sys.exit(SKIPPED)
    if not os.path.exists("/dev/net/tun"):
        print("skipped: no /dev/net/tun")
        sys.exit(SKIPPED)
    if subprocess.run([*wrap, "ip", "tuntap", "add", "tap0", "mode", "tap"],
                      capture_output=True).returncode != 0:
        print("skipped: a network namespace with a tap needs root or user namespaces")
        sys.exit(SKIPPED)
    command = [*wrap, sys.executable, "-u", *sys.argv]
    os.execvpe(wrap[0], command, {**os.environ, ENTERED: "1"})


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def make_switch(nodes):
    """Bridge br0, where this machine is HOST_IP, and a tap for each node: "tap-NODE"."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "br0", "type", "bridge", "forward_delay", "0")
    ip("addr", "add", f"{HOST_IP}/24", "dev", "br0")
    ip("link", "set", "br0", "up")
    for node in nodes:
        tap = f"tap-{node}"
        ip("tuntap", "add", tap, "mode", "tap")
        ip("link", "set", tap, "master", "br0")
        ip("link", "set", tap, "up")


def forget_guests():
    """Between two guests: the switch has not heard of any. One that is booted, and speaks only when it is spoken to,
    would wait for the switch to forget at which tap the last one ended (carrier that comes back within a second
    flushes nothing)."""
    ip("link", "set", "br0", "type", "bridge", "fdb_flush")
