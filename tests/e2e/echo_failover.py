#!/usr/bin/env python3
"""P1 on the wire: what a network card said once is never unsaid. Kills the primary of the echo guest.

The guest numbers its UDP echoes. A client pings without end, one ping at a time, and asks again when there is
no answer. Over a failover the numbers it sees must rise: one that comes twice was let out before its epoch was
acked. In a network namespace of its own, two daemons on a bridge. Needs /dev/kvm and root or user namespaces.
"""

import argparse
import pathlib
import random
import socket
import sys
import threading
import time

import netns
import pair as pairlib

PORT = 7
DEVICES = (f'nics {{ tap: "tap-{{node}}" mac: "52:54:00:52:4f:03" announce_ip: "{netns.GUEST_IP}" }}'
           " rng: false")
ECHOES = 300  # before and after the kill


class Client(threading.Thread):
    """Pings until stopped. `echoes` is how many distinct pings were answered."""

    def __init__(self):
        super().__init__(daemon=True)
        self.echoes, self.longest_s, self.fault, self._last = 0, 0.0, None, 0
        self._stopped = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((netns.GUEST_IP, PORT))
        self._socket.settimeout(0.2)
        self.start()

    def run(self):
        while not self._stopped.is_set() and not self.fault:
            began = time.monotonic()
            if self._ask((self.echoes + 1).to_bytes(8, "little")):
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                self.echoes += 1

    def _ask(self, number):
        """Sends the ping until it is answered. Every answer, also a late one to an earlier ping, carries
        the guest's count, which must rise: there is one path, so answers come in order."""
        while not self._stopped.is_set() and not self.fault:
            try:
                self._socket.send(number + bytes(8))
                answer = self._socket.recv(2048)
            except OSError:
                continue  # no answer in time, or nobody there to take the ping
            said = int.from_bytes(answer[8:16], "little")
            if said <= self._last:
                self.fault = f"echo {said} after echo {self._last}"
            self._last = said
            if answer[:8] == number:
                return True
        return False

    def stop(self):
        self._stopped.set()
        self.join(pairlib.PATIENCE_S)


def round_of(build, moments):
    checkpoint = "max_interval_us: 20000 min_interval_us: 500"
    with pairlib.Pair(build, kernel=pathlib.Path(build).resolve() / "guests/echo.elf",
                      command_line=f"ip={netns.GUEST_IP} port={PORT} count=1", memory_mib=16,
                      devices=DEVICES, checkpoint=checkpoint) as pair:
        primary, secondary = pair.start_protected()
        primary.await_console("the guest to be ready", lambda said: b" ready\n" in said)
        client = Client()
        try:
            primary.await_status("echoes", lambda _: client.echoes >= ECHOES or client.fault)
            time.sleep(moments.random() * 0.5)  # the random moment itself
            before = client.echoes
            primary.kill()
            secondary.await_status("the guest to run here", lambda s: "last_failover" in s)
            goal = client.echoes + ECHOES
            secondary.await_status("more echoes", lambda _: client.echoes >= goal or client.fault)
        finally:
            client.stop()
        detail = (f"{before} echoes before, {client.echoes - before} after,"
                  f" longest wait {client.longest_s * 1e3:.0f} ms")
        return client.fault is None, client.fault or detail


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    netns.enter()
    netns.make_switch(pairlib.NODES)
    moments = random.Random(arguments.seed)
    failed = 0
    for number in range(arguments.rounds):
        netns.forget_guests()
        try:
            good, detail = round_of(arguments.build, moments)
        except pairlib.PairError as error:
            good, detail = False, str(error)
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {number}: {detail}", flush=True)
    print(f"{arguments.rounds - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
