"""The least of HTTP/2 (RFC 9113): frames by hand, so that a test can say exactly what a target must never say."""

from __future__ import annotations

import asyncio
import ssl
import struct
from typing import NamedTuple

import trustme

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK, PADDED = 0x1, 0x4, 0x1, 0x8
NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED = 0, 2, 7, 11, 13
# `:status: 200`, indexed (RFC 7541, appendix A).
STATUS_200 = b"\x88"


class Frame(NamedTuple):
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A frame's bytes."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field(name: bytes, value: bytes) -> bytes:
    """A header field, literal and not indexed (RFC 7541, section 6.2.2); short texts only."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def status(code: int) -> bytes:
    """The field `:status`."""
    return STATUS_200 if code == 200 else b"\x08\x03" + str(code).encode()


def headers(stream: int, code: int = 200, *more: bytes, end: bool = False) -> bytes:
    """The head of an answer."""
    return frame(HEADERS, stream, status(code) + b"".join(more), END_HEADERS | (END_STREAM if end else 0))


def reset(stream: int, code: int) -> bytes:
    """The end of a stream, with its reason."""
    return frame(RST_STREAM, stream, struct.pack(">I", code))


def goaway(last: int, code: int, why: bytes = b"") -> bytes:
    """The end of a connection, with its reason and the last stream that was looked at."""
    return frame(GOAWAY, 0, struct.pack(">II", last, code) + why)


def tls() -> ssl.SSLContext:
    """A server's context that speaks HTTP/2 and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    return context


async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The opening of a connection."""
    assert await reader.readexactly(len(PREFACE)) == PREFACE
    writer.write(frame(SETTINGS, 0))


async def read(reader: asyncio.StreamReader) -> Frame:
    """The next frame."""
    head = await reader.readexactly(9)
    length = int.from_bytes(head[:3], "big")
    kind, flags, stream = struct.unpack(">BBI", head[3:])
    return Frame(kind, flags, stream & 0x7FFF_FFFF, await reader.readexactly(length))


async def request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Waits for a whole request and returns its stream; settings and pings are answered."""
    while True:
        got = await read(reader)
        if got.kind == SETTINGS and not got.flags & ACK:
            writer.write(frame(SETTINGS, 0, flags=ACK))
        elif got.kind == PING and not got.flags & ACK:
            writer.write(frame(PING, 0, got.payload, ACK))
        elif got.kind in (DATA, HEADERS) and got.flags & END_STREAM:
            return got.stream
