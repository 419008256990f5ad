"""The little of QMP that the lab needs (QEMU docs/interop/qmp-spec)."""

import json


class QmpError(Exception):
    pass


class Qmp:
    """A blocking QMP client on a connected socket. One thread at a time."""

    def __init__(self, sock, timeout):
        sock.settimeout(timeout)
        self._socket = sock
        # Only to read from: a text file that is also written to forgets, at a write, what it has read ahead.
        self._file = sock.makefile("r", encoding="utf-8", newline="\n")
        self._file.readline()  # the greeting
        self.command("qmp_capabilities")

    def command(self, name, /, **arguments):
        """The value that the command returns; events in between are dropped."""
        self._socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while True:
            line = self._file.readline()
            if not line:
                raise QmpError(f"{name}: QEMU closed the connection")
            answer = json.loads(line)
            if "error" in answer:
                raise QmpError(f"{name}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]

    def close(self):
        self._file.close()
        self._socket.close()
