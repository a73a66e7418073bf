"""Connections under pressure: those that rest, that never ask, that do not read, and descriptors that run out."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from aiohttp import web

from tests.cloud import Cloud, running
from wirechamber.api import connections, streams
from wirechamber.api.server import Server, serving
from wirechamber.observe.tasks import Tasks
from wirechamber.settings import Settings

ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(live: Cloud, source: str = "127.0.0.1") -> socket.socket:
    host, port = live.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 20, source_address=(source, 0))


def ask(connection: socket.socket, request: bytes = ASK) -> bytes:
    connection.sendall(request)
    got = b""
    while b"\r\n\r\n" not in got or (b"Content-Length" in got and not got.endswith(b"}")):
        part = connection.recv(65536)
        if not part:
            break
        got += part
    return got


def is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.0)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        connection.settimeout(20)


def refused(live: Cloud, reason: str) -> float:
    for line in httpx.get(f"{live.url}/metrics").text.splitlines():
        if line.startswith(f'wirechamber_input_refused_total{{reason="{reason}"}}'):
            return float(line.split()[-1])
    return 0.0


def test_connections_that_rest_shut_nobody_out(tmp_path: Path) -> None:
    made = Cloud(tmp_path / "data")
    made.open_files = (400, 400)
    with running(made) as live, ExitStack() as stack:
        innocent = stack.enter_context(connect(live, "127.0.0.2"))
        assert b"200 OK" in ask(innocent)
        held = []
        for _ in range(500):
            held.append(stack.enter_context(connect(live)))
            # Never a reset for who has just come.
            assert b"200 OK" in ask(held[-1])
        # The one that rested longest went first, of those who hold most.
        assert not is_open(held[0])
        assert is_open(held[-1])
        assert b"200 OK" in ask(innocent)
        assert httpx.get(f"{live.url}/healthz").status_code == 200
        assert refused(live, "too_many_connections") >= 300
        # What happens 300 times is told a few times.
        assert 1 <= live.log_file.read_text().count("connections_crowded") <= 5


def test_a_stream_that_is_refused_leaves_no_connection(tmp_path: Path) -> None:
    made = Cloud(tmp_path / "data", streams_per_address="1")
    with running(made) as live, ExitStack() as stack:
        head = (
            f"GET /v1/devices/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {live.user('ann')}\r\n\r\n".encode()
        )
        first, second = (stack.enter_context(connect(live)) for _ in range(2))
        first.sendall(head)
        assert b"200 OK" in first.recv(1000)
        answer = ask(second, head)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"Connection: close" in answer
        assert second.recv(10) == b""


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(
    handler: Handler, refusals: Counter[str], **settings: Any
) -> AsyncIterator[tuple[Server, asyncio.AbstractEventLoop]]:
    """The listening side alone, in this process, around one handler."""
    app = web.Application()
    app[streams.OPEN] = streams.Open(10)
    app.router.add_get("/", handler)

    def count(reason: str) -> None:
        refusals[reason] += 1

    made = Settings(http_port=0, shutdown_grace=0.1, **settings)
    async with serving(app, made, Tasks(), before_stop=lambda: None, refused=count) as live:
        yield live, asyncio.get_running_loop()


def within_a_loop(work: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not look():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def fine(_request: web.Request) -> web.Response:
    return web.Response(text="{}")


@pytest.mark.parametrize("pieces", [1, 200], ids=["at once", "in pieces"])
def test_who_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    monkeypatch.setattr(connections, "WRITE_TIMEOUT_S", 0.2)
    part = b"x" * (20_000_000 // pieces)

    async def large(request: web.Request) -> web.StreamResponse:
        if pieces == 1:
            return web.Response(body=part)
        response = web.StreamResponse()
        request.protocol.streams_answer()  # type: ignore[attr-defined]
        await response.prepare(request)
        for _ in range(pieces):
            await response.write(part)
        return response

    async def work() -> None:
        refusals: Counter[str] = Counter()
        async with server(large, refusals) as (live, loop):
            with socket.socket() as stuck, socket.socket() as slow:
                for each in (stuck, slow):
                    each.setblocking(False)
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                    await loop.sock_connect(each, ("127.0.0.1", live.port))
                    await loop.sock_sendall(each, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                # One that reads has all the time that it needs.
                got = 0
                while data := await loop.sock_recv(slow, 262_144):
                    got += len(data)
                assert got > 20_000_000
                await until(lambda: refusals["not_read"])
                with suppress(ConnectionError):
                    while await loop.sock_recv(stuck, 262_144):
                        pass
        assert refusals == {"not_read": 1}

    within_a_loop(work)


def test_what_waits_for_its_readers_is_bounded_and_who_lets_most_wait_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_UNREAD_BYTES", 25_000_000)

    async def large(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 20_000_000)

    async def work() -> None:
        refusals: Counter[str] = Counter()
        async with server(large, refusals) as (live, loop):
            made = [socket.socket() for _ in range(3)]
            for each in made:
                each.setblocking(False)
                await loop.sock_connect(each, ("127.0.0.1", live.port))
                await loop.sock_sendall(each, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await until(lambda: refusals["not_read"] >= 1)
            got = 0
            # Who came last has its answer.
            while data := await loop.sock_recv(made[-1], 262_144):
                got += len(data)
            assert got > 20_000_000
            for each in made:
                each.close()

    within_a_loop(work)


def test_without_descriptors_clients_wait_and_are_not_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(socket.socket):
        left = 3

        def accept(self) -> tuple[socket.socket, Any]:
            if Full.left:
                Full.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    monkeypatch.setattr(socket, "socket", Full)

    async def work() -> None:
        refusals: Counter[str] = Counter()
        async with server(fine, refusals) as (live, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            writer.close()
        assert refusals == {"no_descriptors": 3}

    within_a_loop(work)


def test_tls_handshakes_that_never_end_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trustme

    from tests.api.test_operation import _write

    ca = trustme.CA()
    _write(ca, tmp_path / "cert.pem", tmp_path / "key.pem")
    context = ssl.create_default_context()
    ca.configure_trust(context)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)

    async def work() -> None:
        refusals: Counter[str] = Counter()
        files = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}
        async with server(fine, refusals, **files) as (live, loop):
            silent = []
            for _ in range(60):
                silent.append(socket.socket())
                silent[-1].setblocking(False)
                await loop.sock_connect(silent[-1], ("127.0.0.1", live.port))
            await until(lambda: refusals["no_request"] >= 60 - 20)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", live.port, ssl=context, server_hostname="127.0.0.1"
            )
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            writer.close()
            for each in silent:
                each.close()

    within_a_loop(work)


def test_a_first_request_must_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADERS_TIMEOUT_S", 0.1)

    async def work() -> None:
        refusals: Counter[str] = Counter()
        async with server(fine, refusals) as (live, loop):
            with socket.socket() as silent:
                silent.setblocking(False)
                await loop.sock_connect(silent, ("127.0.0.1", live.port))
                await loop.sock_sendall(silent, b"GET / HT")
                assert await asyncio.wait_for(loop.sock_recv(silent, 1), 20) == b""
        assert refusals == {"no_request": 1}

    within_a_loop(work)
