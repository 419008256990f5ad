#!/usr/bin/python3
"""Sends numbered writes to a redis over one TCP connection, and records each reply durably.

    redis_client.py ADDRESS RECORD STOP PATIENCE_S

Batch n is, in one packet, SET key:(n mod 256) n, INCR count and TIME. The reply to INCR must be n: a write
that was acknowledged and then lost makes it less, one that was done twice more. Each reply is a line
"n seconds.microseconds" in the file RECORD, on disk before the next batch is sent, and "acked n" on the
console. Once the file STOP exists it reads all keys back and ends with "final ok n". It never connects a
second time: whatever breaks the connection ends it with "BROKEN why" and exit status 1.
"""

import os
import socket
import sys
import time

KEYS = 256


class Reply(Exception):
    """An answer that must not be."""


class Redis:
    """One connection, speaking RESP2 (redis.io/docs/reference/protocol-spec)."""

    def __init__(self, address, patience_s, port=6379):
        self._socket = socket.create_connection((address, port), timeout=patience_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def port(self):
        return self._socket.getsockname()[1]

    def close(self):
        self._file.close()
        self._socket.close()

    def ask(self, *commands):
        """The answers to several commands that are sent at once."""
        self._socket.sendall(b"".join(map(self._encode, commands)))
        return [self._answer() for _ in commands]

    @staticmethod
    def _encode(words):
        parts = [str(word).encode() for word in words]
        return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)

    def _answer(self):
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            if size < 0:
                return None
            data = self._file.read(size + 2)
            if len(data) != size + 2:
                raise ConnectionError("the server closed the connection")
            return data[:-2].decode()
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        raise Reply(f"the server says {line!r}")


def read_back(redis, n):
    """Every key must hold the last number that was written to it."""
    count, values = redis.ask(("GET", "count"), ("MGET", *(f"key:{k}" for k in range(KEYS))))
    if int(count or 0) != n:
        raise Reply(f"count is {count} after {n} acknowledged writes")
    for key, value in enumerate(values):
        want = n - (n - key) % KEYS
        if int(value or 0) != max(want, 0):
            raise Reply(f"key:{key} is {value}, must be {want}")


def run(address, record, stop, patience_s):
    redis = Redis(address, patience_s)
    print(f"connected from port {redis.port()}", flush=True)
    n, longest, last_time = 0, 0.0, 0.0
    with open(record, "w") as file:
        while not os.path.exists(stop):
            n += 1
            began = time.monotonic()
            done, count, (seconds, micros) = redis.ask(
                ("SET", f"key:{n % KEYS}", n), ("INCR", "count"), ("TIME",))
            longest = max(longest, time.monotonic() - began)
            if done != "OK" or count != n:
                raise Reply(f"batch {n} is answered by {done}, count {count}")
            now = int(seconds) + int(micros) / 1e6
            if now < last_time:
                raise Reply(f"batch {n}: the server's clock went back from {last_time} to {now}")
            last_time = now
            file.write(f"{n} {seconds}.{int(micros):06d}\n")
            file.flush()
            os.fsync(file.fileno())
            print(f"acked {n}", flush=True)
    read_back(redis, n)
    print(f"final ok {n} longest wait {longest:.1f} s", flush=True)


def main(words):
    address, record, stop, patience_s = words
    try:
        run(address, record, stop, float(patience_s))
    except (OSError, Reply, ValueError) as error:
        print(f"BROKEN {type(error).__name__}: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
