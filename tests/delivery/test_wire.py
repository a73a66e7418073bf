"""What comes on the wire for an answer is bounded, whatever is thrown away of it; halves are told from wholes."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import threading
from contextlib import suppress

import pytest
import trustme

from tests.delivery.test_outbound import LOOPBACK, Serve, exchange, read_request, serving
from tests.standins import h2
from wirechamber.clock import SystemClock
from wirechamber.delivery.flight import MAX_WIRE_BYTES
from wirechamber.delivery.guard import Guard
from wirechamber.delivery.outbound import Outbound
from wirechamber.integrations.base import MAX_ANSWER_BYTES, NoResponse, Request, Response

# What a target would say if it was let, and what it may come to: kernels keep some on the way.
TOO_MUCH = 64 * MAX_WIRE_BYTES
LET_THROUGH = 20 * MAX_WIRE_BYTES
TLS = h2.tls()


class Endless:
    """A target that says something again and again; `sent` is how much of it went out."""

    def __init__(self, begin: bytes, again: bytes) -> None:
        self.begin = begin
        self.again = again * max(1, 65_536 // len(again))
        self.sent = 0

    async def http1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(self.begin)
        await self._flood(writer)

    async def http2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await h2.begin(reader, writer)
        assert await h2.request(reader, writer) == 1
        writer.write(self.begin)
        await self._flood(writer)

    async def _flood(self, writer: asyncio.StreamWriter) -> None:
        while self.sent < TOO_MUCH:
            writer.write(self.again)
            await writer.drain()
            self.sent += len(self.again)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HEAD = h2.headers(1)


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (CHUNKED, b"1;" + b"x" * 60_000 + b"\r\ny\r\n"),
        (CHUNKED, b"1;a=b;c=" + b"d" * 50 + b"\r\ny\r\n"),
        (CHUNKED + b"1;", b"x"),
        (CHUNKED, b"0" * 15 + b"1\r\ny\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CHUNKED + b"0\r\n", b"Trailer-%b: x\r\n" % (b"y" * 200)),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"HTTP/1.1 200 ", b"y"),
    ],
    ids=[
        "extensions",
        "short-extensions",
        "one-extension",
        "zeros",
        "hints",
        "continue",
        "trailers",
        "header",
        "status",
    ],
)
def test_a_target_that_never_comes_to_its_end_is_cut(begin: bytes, again: bytes) -> None:
    target = Endless(begin, again)
    reply = asyncio.run(exchange(target.http1, timeout_s=30)).reply
    # Some come to the end of what is kept of a body before.
    assert isinstance(reply, Response) or (reply.why.startswith("EPROTO: ") and not reply.final)
    assert target.sent < LET_THROUGH


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (HEAD, h2.frame(h2.DATA, 1, b"\xffy" + bytes(255), h2.PADDED)),
        (HEAD, h2.frame(h2.DATA, 1, b"\xff" + bytes(255), h2.PADDED)),
        (HEAD, h2.frame(h2.DATA, 1)),
        (b"", h2.frame(h2.PING, 0, b"12345678")),
        (b"", h2.frame(h2.SETTINGS, 0)),
        (b"", h2.headers(1, 103, h2.field(b"link", b"</a>"))),
        (b"", h2.frame(0xBB, 0, b"x" * 10_000)),
    ],
    ids=["padded", "only-padding", "no-data", "pings", "settings", "hints", "unknown-frames"],
)
def test_the_same_over_http_2(begin: bytes, again: bytes) -> None:
    target = Endless(begin, again)
    url = "https://127.0.0.1:PORT/"
    reply = asyncio.run(exchange(target.http2, url=url, tls=TLS, verify_tls=False, timeout_s=30)).reply
    assert isinstance(reply, Response) or not reply.final
    assert target.sent < LET_THROUGH


def test_an_answer_in_small_chunks_is_whole() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(
            CHUNKED
            + b"19\r\n"
            + (b"x" * 25 + b"\r\n19\r\n") * (MAX_ANSWER_BYTES // 25 - 1)
            + b"x" * 25
            + b"\r\n"
            + b"0\r\n\r\n"
        )
        await writer.drain()

    reply = asyncio.run(exchange(serve)).reply
    assert isinstance(reply, Response), reply
    assert reply.body == b"x" * MAX_ANSWER_BYTES


def test_large_answers_on_one_connection_are_each_counted_for_themselves() -> None:
    """Over HTTP/2 they share a connection, and come to many times what one may have."""
    body = b"x" * 16_000
    count = 4 * MAX_WIRE_BYTES // len(body)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await h2.begin(reader, writer)
        while True:
            stream = await h2.request(reader, writer)
            writer.write(h2.headers(stream) + h2.frame(h2.DATA, stream, body, h2.END_STREAM))
            await writer.drain()

    async def scenario() -> None:
        async with serving(serve, TLS) as port:
            outbound = Outbound(Guard(LOOPBACK), clock=SystemClock(), timeout_s=30)
            request = Request("GET", f"https://127.0.0.1:{port}/", verify_tls=False)
            await outbound.exchange(request)
            for _ in range(count // 20):
                done = await asyncio.gather(*(outbound.exchange(request) for _ in range(20)))
                assert [len(each.reply.body) for each in done if isinstance(each.reply, Response)] == [len(body)] * 20
            assert outbound.counted["wire"] == 0
            await outbound.close(0.1)

    asyncio.run(scenario())


def test_a_trailer_is_no_header() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"2\r\nok\r\n0\r\nRetry-After: 99\r\n\r\n")
        await writer.drain()

    reply = asyncio.run(exchange(serve)).reply
    assert isinstance(reply, Response)
    assert (reply.body, reply.header("Retry-After")) == (b"ok", None)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_no_coding_of_an_answer_is_undone(coding: str) -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        length = f"Content-Encoding: {coding}\r\nContent-Length: {len(bomb)}\r\n\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + length.encode() + bomb)
        await writer.drain()

    reply = asyncio.run(exchange(serve)).reply
    assert isinstance(reply, Response)
    assert reply.body == bomb[:MAX_ANSWER_BYTES]


def test_no_transfer_coding_is_undone_either() -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(bomb), bomb))
        await writer.drain()

    reply = asyncio.run(exchange(serve)).reply
    assert not isinstance(reply, Response) or reply.length <= len(bomb)


async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


# --- halves of answers, and words for what went wrong ---


def saying(*parts: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await h2.begin(reader, writer)
        await h2.request(reader, writer)
        writer.write(b"".join(parts))
        await writer.drain()

    return serve


HALF = h2.frame(h2.DATA, 1, b"half")
LENGTH = h2.headers(1, 200, h2.field(b"content-length", b"100"))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((), "closed the HTTP/2 connection before it had answered"),
        ((h2.reset(1, h2.NO_ERROR),), "without an answer"),
        ((h2.reset(1, h2.INTERNAL_ERROR),), "INTERNAL_ERROR"),
        ((h2.reset(1, h2.ENHANCE_YOUR_CALM),), "fewer requests"),
        ((h2.goaway(0, h2.ENHANCE_YOUR_CALM, b"too_many_pings"),), "fewer requests"),
        ((h2.goaway(1, h2.NO_ERROR),), "before it had answered"),
        ((HEAD, HALF, h2.reset(1, h2.INTERNAL_ERROR)), "INTERNAL_ERROR"),
        ((LENGTH, HALF, h2.reset(1, h2.NO_ERROR)), "ECONNRESET"),
        ((HEAD, HALF, h2.reset(1, h2.NO_ERROR)), "broke its answer off"),
        ((HEAD, h2.reset(1, h2.NO_ERROR)), "broke its answer off"),
        ((HEAD, HALF), "ECONNRESET"),
        ((HEAD, HALF, h2.goaway(1, h2.NO_ERROR)), "ECONNRESET"),
    ],
)  # fmt: skip
def test_an_end_before_its_time_is_an_error_in_words(parts: tuple[bytes, ...], says: str) -> None:
    url = "https://127.0.0.1:PORT/"
    reply = asyncio.run(exchange(saying(*parts), url=url, tls=TLS, verify_tls=False)).reply
    assert isinstance(reply, NoResponse), reply
    assert says in reply.why
    assert len(reply.why) > len("EPROTO: ")
    assert not reply.final


def test_a_reset_after_the_whole_answer_is_no_error() -> None:
    """As a server does that does not want the rest of the request (RFC 9113, section 8.1)."""
    whole = h2.frame(h2.DATA, 1, b"whole", h2.END_STREAM)
    url = "https://127.0.0.1:PORT/"
    served = saying(HEAD, whole, h2.reset(1, h2.NO_ERROR))
    reply = asyncio.run(exchange(served, url=url, tls=TLS, verify_tls=False)).reply
    assert isinstance(reply, Response)
    assert reply.body == b"whole"


def test_of_several_answers_on_one_connection_only_the_broken_ones_are_errors() -> None:
    """They are told of while others move, and the stream's number is all that tells them apart."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await h2.begin(reader, writer)
        streams: list[int] = []
        while True:
            streams.append(await h2.request(reader, writer))
            if len(streams) == 1:
                # The connection is open: the others come together.
                writer.write(h2.headers(1) + h2.frame(h2.DATA, 1, b"first", h2.END_STREAM))
            elif len(streams) == 11:
                said = b"".join(h2.headers(each) + h2.frame(h2.DATA, each, b"half") for each in streams[1:])
                for each in streams[1:]:
                    whole = h2.frame(h2.DATA, each, b"", h2.END_STREAM) + h2.reset(each, h2.NO_ERROR)
                    said += h2.reset(each, h2.NO_ERROR) if each % 4 == 3 else whole
                writer.write(said)
            await writer.drain()

    async def scenario() -> None:
        async with serving(serve, TLS) as port:
            outbound = Outbound(Guard(LOOPBACK), clock=SystemClock(), timeout_s=10)
            request = Request("GET", f"https://127.0.0.1:{port}/", verify_tls=False)
            assert isinstance((await outbound.exchange(request)).reply, Response)
            replies = [each.reply for each in await asyncio.gather(*(outbound.exchange(request) for _ in range(10)))]
            assert sorted(isinstance(each, Response) for each in replies) == [False] * 5 + [True] * 5
            await outbound.close(0.1)

    asyncio.run(scenario())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_target_that_wants_a_client_certificate_says_so(version: ssl.TLSVersion) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version

    def serve() -> None:
        client, _ = listener.accept()
        with context.wrap_socket(client, server_side=True, do_handshake_on_connect=False) as secured:
            with pytest.raises(ssl.SSLError):
                secured.do_handshake()
            # A connection that is closed with something unread is reset, and the alert may be lost with it.
            with suppress(OSError):
                while socket.socket.recv(secured, 65_536):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        reply = asyncio.run(exchange(nothing, url=url, verify_tls=False)).reply
        thread.join(10)
    assert isinstance(reply, NoResponse), reply
    assert "client certificate" in reply.why


def test_a_target_that_wants_one_and_hangs_up_says_so() -> None:
    """The alert is lost with the connection, as when it is closed with something unread."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    reply = asyncio.run(exchange(nothing, url="https://127.0.0.1:PORT/", tls=context, verify_tls=False)).reply
    assert isinstance(reply, NoResponse)
    assert "client certificate" in reply.why


def test_a_target_without_tls_says_so() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    reply = asyncio.run(exchange(serve, url="https://127.0.0.1:PORT/")).reply
    assert isinstance(reply, NoResponse)
    assert "does not speak TLS" in reply.why
