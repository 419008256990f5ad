#!/usr/bin/python3
"""Pings the echo guest without end, one ping at a time, and records each answer.

    echo_client.py ADDRESS RECORD

The guest numbers its echoes, so the numbers in the answers must rise as long as it is the same guest (P1): one
that does not was let out before its epoch was acked, or by a node that had lost the guest; that ends the
client with "BROKEN why". RECORD gets a line "PING ECHO WAIT_S" for each answered ping.
"""

import socket
import sys
import time

PORT = 7
PATIENCE_S = 1.0  # until a ping is sent again


def ask(sock, ping, last):
    """The number in the answer to `ping`, which is sent until there is one."""
    while True:
        try:
            sock.send(ping.to_bytes(8, "little") + bytes(8))
            answer = sock.recv(2048)
        except OSError:
            time.sleep(0.05)  # nobody there: do not spin
            continue
        said = int.from_bytes(answer[8:16], "little")
        if said <= last:
            raise ValueError(f"echo {said} after echo {last}")
        last = said
        if answer[:8] == ping.to_bytes(8, "little"):
            return said


def main(words):
    address, record = words
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((address, PORT))
    sock.settimeout(PATIENCE_S)
    last = ping = 0
    with open(record, "w") as file:
        while True:
            ping += 1
            began = time.monotonic()
            try:
                last = ask(sock, ping, last)
            except ValueError as error:
                print(f"BROKEN {error}", flush=True)
                return 1
            file.write(f"{ping} {last} {time.monotonic() - began:.3f}\n")
            file.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
