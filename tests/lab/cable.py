"""The cable between two lab hosts, and the ways in which it can fail.

Each end is a UDP socket on the loopback interface, connected to the other end and handed to one
QEMU, one Ethernet frame a datagram. The lab keeps a descriptor of both. So the cable outlives a
killed host (a frame to it is lost, as on a real network, not refused), needs no port agreed on in
advance, and is cut by a socket filter: at once, one way or both, also while a host is frozen.
"""

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_SO_DETACH_FILTER = 27
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 4 << 20

# Classic BPF, linux/filter.h: {u16 code, u8 jump if true, u8 jump if false, u32 k}.
_LOAD_WORD_ABSOLUTE, _JUMP_IF_GREATER_OR_EQUAL, _RETURN = 0x20, 0x35, 0x06
_RANDOM = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM


def _attach(sock, instructions):
    program = b"".join(struct.pack("=HBBI", *i) for i in instructions)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog {u16 count, pointer}, with the C compiler's padding.
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER,
                    struct.pack("HP", len(instructions), ctypes.addressof(buffer)))


class Cable:
    """Owns both ends. `ends[i]` is the socket for the QEMU of host a (0) or b (1)."""

    def __init__(self):
        self.ends = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for end in self.ends:
            try:
                end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            except PermissionError:  # without CAP_NET_ADMIN up to net.core.rmem_max
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            end.bind(("127.0.0.1", 0))
        self.ends[0].connect(self.ends[1].getsockname())
        self.ends[1].connect(self.ends[0].getsockname())

    def lose(self, towards, fraction):
        """Loses that fraction (0 to 1) of the frames towards end 0 or 1, without a trace."""
        end = self.ends[towards]
        if fraction <= 0:
            try:
                end.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            except FileNotFoundError:
                pass  # nothing was attached
        elif fraction >= 1:
            _attach(end, [(_RETURN, 0, 0, 0)])
        else:
            _attach(end, [(_LOAD_WORD_ABSOLUTE, 0, 0, _RANDOM),
                          (_JUMP_IF_GREATER_OR_EQUAL, 1, 0, int(fraction * 2**32)),
                          (_RETURN, 0, 0, 0),
                          (_RETURN, 0, 0, 0xFFFFFFFF)])

    def drain(self, end):
        """Throws away what waits at an end, as a network card does that loses power."""
        try:
            while True:
                self.ends[end].recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass

    def close(self):
        for end in self.ends:
            end.close()
