"""The outbound client against real sockets: good targets, bad ones, and the guard on the address really used."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
import trustme
import uvloop

from wirechamber.clock import SystemClock
from wirechamber.delivery.flight import MAX_HEADER_BYTES, MAX_PIECES, Exchange
from wirechamber.delivery.guard import Guard
from wirechamber.delivery.outbound import SLICE_S, Outbound
from wirechamber.integrations.base import MAX_ANSWER_BYTES, NoResponse, Request, Response

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = ("127.0.0.0/8", "::1/128")


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server that does as `serve` says; everything of it has ended on leaving."""
    tasks: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        with suppress(ConnectionError, ssl.SSLError):
            try:
                await writer.wait_closed()
            except asyncio.CancelledError:
                # A client that keeps its end of a TLS connection open.
                writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls, backlog=1000)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def exchange(
    serve: Serve,
    *,
    allow: tuple[str, ...] = LOOPBACK,
    url: str = "http://127.0.0.1:PORT/in",
    timeout_s: float = 5.0,
    tls: ssl.SSLContext | None = None,
    **request: Any,
) -> Exchange:
    """One request to a server of one's own making."""
    async with serving(serve, tls) as port:
        outbound = Outbound(Guard(allow), clock=SystemClock(), timeout_s=timeout_s)
        try:
            fields: dict[str, Any] = {"method": "POST", "body": b"hello"} | request
            return await outbound.exchange(Request(url=url.replace("PORT", str(port)), **fields))
        finally:
            await outbound.close(0.1)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return head, await reader.readexactly(length)


def answering(raw: bytes, seen: list[tuple[bytes, bytes]] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        if seen is not None:
            seen.append(request)
        writer.write(raw)
        await writer.drain()

    return serve


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


def test_a_request_goes_out_as_it_is_and_nothing_is_added() -> None:
    seen: list[tuple[bytes, bytes]] = []
    headers = (("Content-Type", "text/csv"), ("X-Mine", "1"), ("X-Empty", ""))
    done = asyncio.run(exchange(answering(OK, seen), headers=headers))
    assert done.reply == Response(200, (("Content-Type", "text/plain"), ("Content-Length", "2")), b"ok", 2)
    assert done.address == "127.0.0.1"
    head, body = seen[0]
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /in HTTP/1.1"
    names = sorted(line.partition(":")[0].lower() for line in lines[1:] if line)
    assert names == ["content-length", "content-type", "host", "x-empty", "x-mine"]
    assert body == b"hello"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_request_without_a_body(method: str) -> None:
    seen: list[tuple[bytes, bytes]] = []
    done = asyncio.run(exchange(answering(OK, seen), method=method, body=None))
    assert isinstance(done.reply, Response)
    assert seen[0][0].startswith(method.encode() + b" /in HTTP/1.1\r\n")
    assert (b"content-length: 0" in seen[0][0].lower()) == (method in ("POST", "PUT"))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:PORT/", "http://localhost:PORT/", "http://0177.0.0.1:PORT/", "http://2130706433:PORT/",
        "http://0x7f.1:PORT/", "http://127.1:PORT/", "http://[::ffff:127.0.0.1]:PORT/", "http://[::1]:PORT/",
        "http://0.0.0.0:PORT/", "http://[::ffff:7f00:1]:PORT/", "http://169.254.169.254/latest/meta-data/",
        "http://10.255.255.1/", "http://[fd00:ec2::254]/",
    ],
)  # fmt: skip
def test_the_guard_refuses_the_address_really_used(url: str) -> None:
    seen: list[tuple[bytes, bytes]] = []
    done = asyncio.run(exchange(answering(OK, seen), allow=(), url=url))
    assert isinstance(done.reply, NoResponse)
    assert done.reply.why.startswith("EFORBIDDEN")
    assert done.reply.final
    assert seen == []


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    raw = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    done = asyncio.run(exchange(answering(raw)))
    assert isinstance(done.reply, Response)
    assert done.reply.status == 302


def test_an_endless_body_is_cut_and_counts_as_an_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    done = asyncio.run(exchange(serve))
    assert isinstance(done.reply, Response)
    assert done.reply.status == 200
    assert done.reply.body == b"x" * MAX_ANSWER_BYTES
    assert done.reply.length > MAX_ANSWER_BYTES


def test_a_dripping_body_ends_with_the_time_out() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    done = asyncio.run(exchange(serve, timeout_s=0.4))
    assert done.reply == NoResponse("ESOCKETTIMEDOUT")
    assert 300 <= done.duration_ms < 3000


def test_a_target_that_never_answers_is_a_socket_time_out() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert asyncio.run(exchange(serve, timeout_s=0.3)).reply == NoResponse("ESOCKETTIMEDOUT")


def test_a_gzip_bomb_stays_as_small_as_it_came() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(bomb), bomb)
    done = asyncio.run(exchange(answering(raw)))
    assert isinstance(done.reply, Response)
    assert done.reply.body == bomb[:MAX_ANSWER_BYTES]


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"])
def test_a_target_that_closes_is_a_reset(raw: bytes) -> None:
    assert asyncio.run(exchange(answering(raw))).reply == NoResponse("read ECONNRESET")


@pytest.mark.parametrize("raw", [b"rubbish\r\n\r\n", b"SSH-2.0-x\r\n", b"\x00\x01\x02\x03" * 100])
def test_a_target_that_answers_rubbish_is_an_error_that_may_pass(raw: bytes) -> None:
    reply = asyncio.run(exchange(answering(raw), timeout_s=2)).reply
    assert isinstance(reply, NoResponse)
    assert not reply.final


def test_headers_without_end_are_cut_off() -> None:
    raw = b"HTTP/1.1 200 OK\r\n" + b"X-A: %b\r\n" % (b"y" * 1000) * (MAX_HEADER_BYTES // 1000 + 5) + b"\r\n"
    assert asyncio.run(exchange(answering(raw))).reply == NoResponse("EPROTO: too many or too long headers")


def test_a_line_without_end_is_told_as_such() -> None:
    raw = b"HTTP/1.1 200 OK\r\nX-A: " + b"y" * 1_000_000 + b"\r\n\r\n"
    assert asyncio.run(exchange(answering(raw))).reply == NoResponse("EPROTO: too many or too long headers")


@pytest.mark.parametrize(
    ("request_fields", "why"),
    [
        ({"url": "ftp://127.0.0.1/"}, "EINVAL"), ({"url": "file:///etc/passwd"}, "EINVAL"),
        ({"url": "http://"}, "EINVAL"),
        ({"headers": (("X", "a\r\nb: c"),)}, "EINVAL"), ({"headers": (("", "a"),)}, "EINVAL"),
        ({"method": "TRACE"}, "EINVAL"), ({"url": "http://127.0.0.1/a b"}, "EINVAL"),
    ],
)  # fmt: skip
def test_what_can_not_be_sent_is_final_and_says_why(request_fields: dict[str, Any], why: str) -> None:
    reply = asyncio.run(exchange(answering(OK), **request_fields)).reply
    assert isinstance(reply, NoResponse)
    assert reply.why.startswith(why)
    assert reply.final


@pytest.mark.parametrize(("url", "why"), [("http://127.0.0.1:1/", "ECONNREFUSED"), ("http://no.invalid/", "ENOTFOUND")])
def test_a_target_that_is_not_there_may_come_back(url: str, why: str) -> None:
    assert asyncio.run(exchange(answering(OK), url=url)).reply == NoResponse(why)


def test_an_unknown_certificate_is_refused_unless_the_integration_says_so() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    url = "https://127.0.0.1:PORT/"
    refused = asyncio.run(exchange(answering(OK), tls=context, url=url)).reply
    assert isinstance(refused, NoResponse)
    assert refused.why.startswith("certificate")
    taken = asyncio.run(exchange(answering(OK), tls=context, url=url, verify_tls=False)).reply
    assert isinstance(taken, Response)


@contextmanager
def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> Iterator[None]:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with environment(monkeypatch, http_proxy="http://127.0.0.1:1", ALL_PROXY="http://127.0.0.1:1"):
        assert isinstance(asyncio.run(exchange(answering(OK))).reply, Response)


def test_many_at_a_time_are_all_answered_and_closing_answers_the_rest() -> None:
    hanging: list[bytes] = []
    all_hang = asyncio.Event()

    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                _, body = await read_request(reader)
                if body == b"hang":
                    hanging.append(body)
                    if len(hanging) == 5:
                        all_hang.set()
                    await reader.read()
                    return
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        async with serving(serve) as port:
            url = f"http://127.0.0.1:{port}/"
            outbound = Outbound(Guard(LOOPBACK), clock=SystemClock(), timeout_s=10)
            requests = [Request("POST", url, (), str(number).encode()) for number in range(500)]
            done = await asyncio.gather(*(outbound.exchange(request) for request in requests))
            assert [each.reply.body for each in done if isinstance(each.reply, Response)] == [
                request.body for request in requests
            ]
            last = asyncio.gather(*(outbound.exchange(Request("POST", url, (), b"hang")) for _ in range(5)))
            await all_hang.wait()
            await outbound.close(0.1)
            assert [each.reply for each in await last] == [NoResponse("closed")] * 5

    asyncio.run(scenario())


def test_an_answer_in_very_many_pieces_is_cut_as_one_that_is_too_long() -> None:
    # 100,000 calls for 600 KB on the wire: a tenth of a second of everybody's time, for each of a hundred answers.
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 60_000
    reply = asyncio.run(exchange(answering(raw))).reply
    assert isinstance(reply, Response)
    assert reply.body == b"a" * MAX_PIECES
    assert reply.length > MAX_PIECES


def test_others_have_their_turn_while_many_answers_are_told() -> None:
    turns: list[int] = []
    told = 0

    def done(_: Exchange) -> None:
        nonlocal told
        told += 1
        until = time.monotonic() + SLICE_S
        while time.monotonic() < until:
            pass

    async def others() -> None:
        while told < 20:
            turns.append(told)
            await asyncio.sleep(0)

    async def main() -> None:
        outbound = Outbound(Guard(LOOPBACK), clock=SystemClock(), timeout_s=5.0)
        for _ in range(20):
            # Refused at once, so that all of them end in the same turn.
            outbound.send(Request("NONE", "http://127.0.0.1/"), done)
        await others()
        await outbound.close(0.1)

    asyncio.run(main())
    assert len(set(turns)) > 10


def test_others_have_their_turn_while_many_targets_say_much() -> None:
    """Of many sockets that can be read, a few are read in a turn, and all of them in time."""
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 4_000 + b"0\r\n\r\n"
    count = 40
    asked_all, may_answer, answered = threading.Event(), threading.Event(), threading.Event()
    listening = socket.create_server(("127.0.0.1", 0), backlog=count)

    def serve() -> None:
        with ExitStack() as opened:
            clients = [opened.enter_context(listening.accept()[0]) for _ in range(count)]
            for client in clients:
                client.recv(1_000)
            asked_all.set()
            may_answer.wait(30.0)
            for client in clients:
                client.sendall(raw)
            answered.set()

    async def main() -> tuple[list[Exchange], int]:
        outbound = Outbound(Guard(LOOPBACK), clock=SystemClock(), timeout_s=30.0)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        asked = [asyncio.create_task(outbound.exchange(Request("POST", url, body=b"x"))) for _ in range(count)]
        assert await asyncio.to_thread(asked_all.wait, 30.0)
        may_answer.set()
        # The loop is held until everything has come, so that all of it can be read at once.
        assert answered.wait(30.0)
        turns = 0
        while not all(task.done() for task in asked):
            turns += 1
            await asyncio.sleep(0)
        await outbound.close(0.1)
        return [task.result() for task in asked], turns

    with listening:
        server = threading.Thread(target=serve)
        server.start()
        exchanges, turns = asyncio.run(main())
        server.join()
    assert [each.reply.body for each in exchanges if isinstance(each.reply, Response)] == [b"a" * 4_000] * count
    assert turns > 3


def test_a_timer_that_is_due_at_once_is_none_that_stops_anything() -> None:
    """uvloop makes a plain handle, without a time, of a timer of less than half a millisecond."""

    async def main() -> None:
        outbound = Outbound(Guard(LOOPBACK), clock=SystemClock(), timeout_s=5.0)
        for _ in range(2):
            outbound._deadline = time.monotonic() + 0.0003
            outbound._set_timer()
        await outbound.close(0.1)

    uvloop.run(main())
