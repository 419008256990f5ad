"""A TCP proxy between two daemons that can hurt what passes: flip a bit of a frame, or stop to deliver.

It sits on the way from one node to the other's replication address and knows of the stream only where
frames begin (codec/frame.h), so that what it changes is inside a frame and not gRPC's own.
"""

import contextlib
import socket
import threading

UP, DOWN = 0, 1  # from the primary to the secondary, and back
FRAME_MAGIC = b"RMLF"
BODY_AT = 48  # lib/codec/frame.h: bytes of a frame's header


class MangledLink:
    def __init__(self, target):
        self.target = target
        self.changed = threading.Condition()
        self.flip = [False, False]
        self.stalled = [False, False]
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def flip_a_bit(self, direction):
        """Of one frame's body. Returns when it was done."""
        with self.changed:
            self.flip[direction] = True
            if not self.changed.wait_for(lambda: not self.flip[direction], timeout=60):
                raise TimeoutError("no frame came by")

    def stall(self, direction, stalled=True):
        """Nothing more is delivered, and nobody is told."""
        with self.changed:
            self.stalled[direction] = stalled
            self.changed.notify_all()

    def close(self):
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    near.close()
                    continue
                for ends in ((near, far, UP), (far, near, DOWN)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source, sink, direction):
        with contextlib.suppress(OSError), source, sink:
            for end in (source, sink):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := source.recv(1 << 16):
                with self.changed:
                    self.changed.wait_for(lambda: not self.stalled[direction])
                    data = self._mangle(data, direction)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _mangle(self, data, direction):
        at = data.find(FRAME_MAGIC)
        if not self.flip[direction] or at < 0 or at + BODY_AT >= len(data):
            return data
        self.flip[direction] = False
        self.changed.notify_all()
        return data[:at + BODY_AT] + bytes([data[at + BODY_AT] ^ 0x10]) + data[at + BODY_AT + 1:]
