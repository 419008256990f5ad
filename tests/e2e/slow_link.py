"""A TCP proxy on loopback whose way to the target can be made slow, for the end-to-end tests.

What it has not forwarded it does not read: the sender's TCP window closes, as with a slow receiver. Its own
buffers are small, so that the slowness is felt at once.
"""

import contextlib
import socket
import threading
import time

BUFFER_BYTES = 64 << 10
CHUNK_BYTES = 8 << 10


class SlowLink:
    """with SlowLink(port) as link: connect to link.port; link.rate = bytes per second, or None."""

    def __init__(self, target_port):
        self.target_port = target_port
        self.rate = None
        self.forwarded = 0  # bytes to the target
        self.moved = threading.Condition()
        self.sockets = []
        self.listener = socket.socket()
        # Before listen(): accepted sockets inherit it and their windows are never larger.
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.port = self.listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *unused):
        for one in [self.listener, *self.sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def await_forwarded(self, more_bytes, patience_s):
        """Waits until so much more went to the target; seconds that it took."""
        began = time.monotonic()
        with self.moved:
            goal = self.forwarded + more_bytes
            if not self.moved.wait_for(lambda: self.forwarded >= goal, timeout=patience_s):
                raise TimeoutError(f"only {self.forwarded - goal + more_bytes} of {more_bytes} bytes went")
        return time.monotonic() - began

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target_port))
                for one in (near, far):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sockets += [near, far]
                threading.Thread(target=self._forward, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(far, near, False), daemon=True).start()

    def _forward(self, source, sink, slow):
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(CHUNK_BYTES if slow and self.rate else BUFFER_BYTES)
                if not data:
                    break
                if slow and self.rate:
                    time.sleep(len(data) / self.rate)  # the slowness itself
                sink.sendall(data)
                if slow:
                    with self.moved:
                        self.forwarded += len(data)
                        self.moved.notify_all()
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
