"""How many bytes came on a socket, whatever became of them: what libcurl throws away is counted, too."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios

# `tcpi_bytes_received` of Linux's `struct tcp_info`: 8 single bytes, 24 numbers of 4 bytes and 3 of 8 come before it.
_AT = 8 + 24 * 4 + 3 * 8
_SIZE = _AT + 8


def bytes_read(descriptor: int) -> int:
    """Bytes that were read from a TCP socket since it was connected, those of TLS and framing included; 0 of others."""
    try:
        # Another number for the same socket: closing it closes nothing.
        with socket.socket(fileno=os.dup(descriptor)) as seen:
            info = seen.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
            (unread,) = struct.unpack("i", fcntl.ioctl(seen.fileno(), termios.FIONREAD, b"\0" * 4))
    except OSError:
        return 0
    if len(info) < _SIZE:
        return 0
    (received,) = struct.unpack_from("Q", info, _AT)
    return max(0, int(received) - int(unread))
