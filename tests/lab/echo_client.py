#!/usr/bin/python3
"""Pings the echo guest without end, one ping at a time, and records each answer.

    echo_client.py ADDRESS RECORD

Every packet that is sent has a number of its own, which comes back, and the guest numbers its echoes. So two
answers with the same echo number to different packets contradict each other: one was let out before its epoch
was acked, or by a node that had lost the guest (P1); that ends the client with "BROKEN why". An answer that is
late is none of these: a host that was frozen has frames of acked epochs on their way, and a guest that goes on
from these epochs never says their numbers again. Late answers go to the console.

RECORD gets a line "PING ECHO WAIT_S" for each answered ping.
"""

import socket
import struct
import sys
import time

PORT = 7
PATIENCE_S = 1.0  # until a ping is sent again
_PACKET = struct.Struct("<QQQ")  # ping, the guest's count, number of the packet


class Contradiction(Exception):
    """The guest said something twice, and differently."""


class Client:
    def __init__(self, address):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((address, PORT))
        self._sent = 0
        self._answered = {}  # the guest's count: the packet it answered
        self._newest = 0

    def ask(self, ping):
        """The number in the first answer to `ping`, which is sent until there is one."""
        while True:
            self._sent += 1
            try:
                self._socket.send(_PACKET.pack(ping, 0, self._sent))
                said = self._await_answer(ping, time.monotonic() + PATIENCE_S)
            except OSError:
                time.sleep(0.05)  # nobody there: do not spin
                continue
            if said:
                return said

    def _await_answer(self, ping, until):
        while (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            answered, said, packet = _PACKET.unpack(self._socket.recv(2048))
            self._check(said, packet)
            if answered == ping:
                return said
        return None

    def _check(self, said, packet):
        before = self._answered.setdefault(said, packet)
        if before != packet:
            raise Contradiction(f"echo {said} answers packet {packet}, and answered {before}")
        if said < self._newest:
            print(f"late: echo {said} after {self._newest}", flush=True)
        self._newest = max(self._newest, said)


def main(words):
    address, record = words
    client = Client(address)
    ping = 0
    with open(record, "w") as file:
        while True:
            ping += 1
            began = time.monotonic()
            try:
                said = client.ask(ping)
            except Contradiction as error:
                print(f"BROKEN {error}", flush=True)
                return 1
            file.write(f"{ping} {said} {time.monotonic() - began:.3f}\n")
            file.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
