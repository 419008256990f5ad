#!/usr/bin/env python3
"""romulusd's virtio devices, driven by guests of its own: a disk, a network card over a failover, all of them
under attack.

Runs in a network namespace of its own, which takes root (or `unshare --map-root-user`); exit status 77 where
that is not possible.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import unittest

import pair as pairlib

SKIPPED = 77
IN_NAMESPACE = "ROMULUS_DEVICES_IN_NAMESPACE"
GUESTS = pathlib.Path(__file__).resolve().parent.parent / "guests"
MAC = "52:54:00:12:34:56"
build = None


def ip(*words):
    subprocess.run(["ip", *words], check=True, timeout=pairlib.PATIENCE_S)


def device(status, name):
    return next(d for d in status["devices"] if d["name"] == name)


def count(status, name, counter):
    return int(device(status, name).get("counters", {}).get(counter, 0))


def make_disk(pair, name, mib):
    path = pair.folder / name
    with open(path, "wb") as disk:
        disk.truncate(mib << 20)
    return path


class Devices(unittest.TestCase):
    def pair(self, guest, command_line, devices, **more):
        return pairlib.Pair(build, kernel=build / f"guests/{guest}.elf", command_line=command_line,
                            devices=devices, **more)

    def make_tap(self, node):
        tap = f"tap-{node}"
        ip("tuntap", "add", "dev", tap, "mode", "tap")
        self.addCleanup(ip, "link", "del", tap)
        return tap

    def test_a_tap_that_is_missing_is_refused_and_not_made(self):
        with self.pair("echo", "", f'nics {{ tap: "tap-{{node}}" mac: "{MAC}" }}') as pair:
            for command, *more in (["check"], ["run", "--role", "primary"], ["run"]):
                done = subprocess.run([build / "daemon/romulusd", command, "--config", pair.config,
                                       "--node", "alpha", *more], capture_output=True, text=True,
                                      timeout=pairlib.PATIENCE_S)
                self.assertEqual(done.returncode, 2, done.stderr)
                for said in (f"{pair.config}:", "guest.nics[0].tap: tap 'tap-alpha' is not there",
                             "ip tuntap add dev tap-alpha mode tap",
                             "ip link set dev tap-alpha master br0 up"):
                    self.assertIn(said, done.stderr)
            self.assertNotIn("tap-alpha", [name for _, name in socket.if_nameindex()])

    def test_disk(self):
        with self.pair("disk", "steps=60 discard=7 zeroes=5",
                       'disks { name: "data" path: "data.img" }') as pair:
            image = make_disk(pair, "data.img", 16)
            primary = pair.start_node("alpha", "primary")
            primary.process.wait(timeout=pairlib.PATIENCE_S)  # ends with its guest
            self.assertIn(b"disk: done steps 60", primary.console())
            judged = subprocess.run(["python3", GUESTS / "disk/check_disk.py", image,
                                     primary.console_path], capture_output=True, text=True,
                                    timeout=pairlib.PATIENCE_S)
            self.assertEqual(judged.returncode, 0, judged.stdout + judged.stderr)

    def test_disk_in_use_is_refused_by_name(self):
        with self.pair("disk", "rate=100", 'disks { name: "data" path: "data.img" }') as pair:
            make_disk(pair, "data.img", 16)
            primary = pair.start_node("alpha", "primary")
            primary.await_console("a step", lambda s: b"step 000001" in s)
            other = pair.start_node("beta", "primary")
            self.assertNotEqual(other.process.wait(timeout=pairlib.PATIENCE_S), 0)
            self.assertIn("data.img", other.log_tail())
            self.assertGreater(count(primary.status(), "virtio.block.data", "writes"), 0)

    def test_echo_goes_on_at_the_other_node(self):
        """One socket of a client: its questions are answered before and after the primary dies, and
        no answer is ever taken back (P1)."""
        devices = f'nics {{ tap: "tap-{{node}}" mac: "{MAC}" announce_ip: "10.77.0.2" }}'
        with self.pair("echo", "ip=10.77.0.2 count=1", devices) as pair:
            ip("link", "add", "br0", "type", "bridge")
            self.addCleanup(ip, "link", "del", "br0")
            ip("addr", "add", "10.77.0.1/24", "dev", "br0")
            ip("link", "set", "br0", "up")
            for node in pairlib.NODES:
                ip("link", "set", self.make_tap(node), "master", "br0", "up")
            primary, secondary = pair.start_protected()
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.addCleanup(client.close)
            client.connect(("10.77.0.2", 7))
            client.settimeout(0.2)  # a datagram that is lost is asked again
            numbers = [self.ask(client, n) for n in range(50)]
            status = primary.await_status(  # counted after they were sent
                "the frames", lambda s: count(s, "virtio.net.0", "frames_out") >= 50)
            self.assertEqual(count(status, "virtio.net.0", "mac_clashes"), 0)
            primary.kill()
            numbers += [self.ask(client, n) for n in range(50, 100)]
            self.assertEqual(numbers, sorted(set(numbers)), "an answer was given twice")
            secondary.await_status("a promotion and its frames", lambda s: "last_failover" in s and
                                   count(s, "virtio.net.0", "frames_out") >= 50)
            secondary.await_status(
                "announcements",
                lambda s: count(s, "virtio.net.0", "frames_announced") > 0)

    def ask(self, client, number):
        """The guest's number of echoes in its answer to question `number`."""
        question = number.to_bytes(8, "little") + bytes(8)
        deadline = time.monotonic() + pairlib.PATIENCE_S
        while time.monotonic() < deadline:
            try:
                client.send(question)
                while True:
                    answer = client.recv(64)
                    if answer[:8] == question[:8]:
                        return int.from_bytes(answer[8:16], "little")
            except (socket.timeout, ConnectionError, OSError):
                continue
        self.fail(f"no answer to question {number}")

    def test_hostile_drivers_are_counted_and_harm_nobody(self):
        devices = (f'disks {{ name: "data" path: "data.img" }} '
                   f'nics {{ tap: "tap-{{node}}" mac: "{MAC}" }} virtio_console: true')
        self.make_tap("alpha")
        with self.pair("hostile", "seed=%d rounds=400" % (os.getpid() % 1000 + 1), devices) as pair:
            make_disk(pair, "data.img", 4)
            primary = pair.start_node("alpha", "primary")
            faults = {}
            deadline = time.monotonic() + pairlib.PATIENCE_S
            while primary.alive() and time.monotonic() < deadline:
                asked = primary.ctl("status", check=False)  # it may end meanwhile
                for each in json.loads(asked.stdout).get("devices", []) if asked.stdout else []:
                    for fault, times in each.get("faults", {}).items():
                        faults[fault] = int(times)
                time.sleep(0.02)  # between two questions
            said = primary.console()
            self.assertRegex(said, rb"hostile: done rounds 400 needs_reset \d+ ok", primary.log_tail())
            self.assertGreater(len(faults), 5, faults)


def main():
    global build
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    arguments, rest = parser.parse_known_args()
    build = pathlib.Path(arguments.build).resolve()
    if IN_NAMESPACE not in os.environ:
        probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
        if probe.returncode != 0:
            print(f"skipped: no network namespace: {probe.stderr.strip()}")
            return SKIPPED
        os.environ[IN_NAMESPACE] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    ip("link", "set", "lo", "up")
    return 0 if unittest.main(argv=[sys.argv[0], *rest], exit=False).result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
