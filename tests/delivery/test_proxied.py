"""Requests through the operator's proxy: its trouble is told as that and may pass; the target's word stays its own."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trustme

from tests.delivery.test_outbound import OK, Serve, answering, serving
from tests.standins.proxy import ForwardProxy, answer
from wirechamber.clock import SystemClock
from wirechamber.delivery.flight import Exchange
from wirechamber.delivery.guard import Guard
from wirechamber.delivery.outbound import Outbound
from wirechamber.integrations.base import NoResponse, Request, Response
from wirechamber.proxy import read

PASSWORD = "s3cr/et@"


def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


async def _exchange(proxy: str, url: str, serve: Serve, context: ssl.SSLContext | None) -> Exchange:
    async with serving(serve, context) as port:
        # Nothing is allowed: what goes to the proxy needs no permission.
        outbound = Outbound(Guard(()), clock=SystemClock(), timeout_s=5, proxy=read(proxy))
        try:
            request = Request("POST", url.replace("PORT", str(port)), (), b"hello", verify_tls=False)
            return await outbound.exchange(request)
        finally:
            await outbound.close(0.1)


def through(proxy: str, serve: Serve, *, https: bool = False, url: str = "") -> Response | NoResponse:
    scheme = "https" if https else "http"
    done = asyncio.run(_exchange(proxy, url or f"{scheme}://127.0.0.1:PORT/in", serve, tls() if https else None))
    return done.reply


def said(status: int, *headers: tuple[str, str]) -> Serve:
    return answering(answer(status, *headers))


@pytest.mark.parametrize("https", [False, True])
def test_a_request_goes_through_with_a_password_of_any_letters(https: bool) -> None:
    with ForwardProxy(f"me:{PASSWORD}") as proxy:
        reply = through(f"http://me:s3cr%2Fet%40@127.0.0.1:{proxy.port}", answering(OK), https=https)
    assert isinstance(reply, Response), reply
    assert reply.body == b"ok"
    assert proxy.asked[0][0] == ("CONNECT" if https else "POST")


@pytest.mark.parametrize("https", [False, True])
@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (407, (("Proxy-Authenticate", "Basic"),), "another user or password"),
        (403, (), "does not allow this target"),
        (502, (), "can't reach the target"),
        (503, (("X-Squid-Error", "ERR_CONNECT_FAIL 111"), ("Via", "1.1 squid")), "can't reach the target"),
        (504, (("Proxy-Status", "proxy; error=connection_timeout"), ("Via", "1.1 p")), "did not answer it in time"),
        (403, (("Server", "tinyproxy/1.11.1"),), "does not allow this target"),
        (500, (("Server", "tinyproxy/1.11.1"),), "answered 500"),
    ],
)
def test_what_the_proxy_answers_is_its_own_trouble(
    https: bool, status: int, headers: tuple[tuple[str, str], ...], says: str
) -> None:
    async def scenario() -> NoResponse | Response:
        async with serving(answering(OK), tls() if https else None) as port:
            outbound = Outbound(Guard(()), clock=SystemClock(), timeout_s=5, proxy=read(proxy.url))
            try:
                request = Request("POST", f"http{'s' * https}://127.0.0.1:{port}/", (), b"hello", verify_tls=False)
                # It is seen to sign what it forwards.
                assert isinstance((await outbound.exchange(request)).reply, Response)
                proxy.mode = lambda method, target: answer(status, *headers)
                # Another connection: the first one's tunnel is open.
                elsewhere = Request("POST", f"http{'s' * https}://127.0.0.2:{port}/", (), b"hello", verify_tls=False)
                reply = (await outbound.exchange(elsewhere)).reply
                assert outbound.counted["proxy"] == 1
                return reply
            finally:
                await outbound.close(0.1)

    with ForwardProxy() as proxy:
        reply = asyncio.run(scenario())
    assert isinstance(reply, NoResponse), reply
    assert reply.why.startswith("EPROXY: the operator's proxy has trouble: ")
    assert says in reply.why
    assert not reply.final


@pytest.mark.parametrize("https", [False, True])
@pytest.mark.parametrize("status", [403, 404, 407, 502, 503])
def test_what_the_target_answers_stays_its_own(https: bool, status: int) -> None:
    with ForwardProxy() as proxy:
        reply = through(proxy.url, said(status), https=https)
    if status == 407 and not https:
        # Nobody but a proxy may say that (RFC 9110, section 15.5.8).
        assert isinstance(reply, NoResponse)
    else:
        assert isinstance(reply, Response), reply
        assert reply.status == status


def test_a_403_that_may_be_either_s_is_not_final() -> None:
    with ForwardProxy(signs=False) as proxy:
        reply = through(proxy.url, said(403))
        assert isinstance(reply, NoResponse)
        assert "can't be told apart" in reply.why
        assert not reply.final
        assert isinstance(through(proxy.url, said(404)), Response)


@pytest.mark.parametrize("https", [False, True])
def test_a_proxy_that_is_not_there(https: bool) -> None:
    for proxy, says in (("http://127.0.0.1:1", "ECONNREFUSED"), ("http://proxy.invalid:1", "name can't be resolved")):
        reply = through(proxy, answering(OK), https=https)
        assert isinstance(reply, NoResponse)
        assert reply.why.startswith("EPROXY: the operator's proxy has trouble: ")
        assert says in reply.why
        assert "proxy.invalid" not in reply.why
        assert not reply.final


@pytest.mark.parametrize("https", [False, True])
def test_a_proxy_that_hangs_up(https: bool) -> None:
    with ForwardProxy() as proxy:
        proxy.mode = lambda method, target: b""
        reply = through(proxy.url, answering(OK), https=https)
    assert isinstance(reply, NoResponse)
    assert "EPROXY" in reply.why
    assert "closed the connection" in reply.why


def test_trouble_of_the_target_behind_a_tunnel_is_the_target_s() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    with ForwardProxy() as proxy:
        assert through(proxy.url, hang_up, https=True) == NoResponse("read ECONNRESET")


@pytest.mark.parametrize(
    "host",
    ["metadata.google.internal", "METADATA.google.internal.", "169.254.169.254", "[fd00:ec2::254]", "100.100.100.200",
     "[::ffff:169.254.169.254]"],
)  # fmt: skip
def test_the_metadata_service_is_never_asked_through_a_proxy(host: str) -> None:
    with ForwardProxy() as proxy:
        reply = through(proxy.url, answering(OK), url=f"http://{host}/computeMetadata/v1/")
    assert isinstance(reply, NoResponse)
    # By the guard's rules, as without a proxy; the name may not be known here.
    assert reply.why.startswith(("EFORBIDDEN", "ENOTFOUND"))
    assert proxy.asked == []


# --- SOCKS ---


@contextmanager
def socks(reply: bytes) -> Iterator[int]:
    """The port of a SOCKS 5 proxy that needs no password and answers every request the same."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.recv(257)
                client.sendall(b"\x05\x00")
                client.recv(300)
                client.sendall(reply)
                client.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("code", "says"),
    [(2, "does not allow this target"), (4, "host unreachable"), (5, "connection refused"), (1, "no con")],
)
def test_what_a_socks_proxy_refuses_is_told(code: int, says: str) -> None:
    with socks(b"\x05" + bytes((code,)) + b"\x00\x01" + bytes(6)) as port:
        reply: Any = through(f"socks5h://127.0.0.1:{port}", answering(OK))
    assert isinstance(reply, NoResponse)
    assert reply.why.startswith("EPROXY: ")
    assert says in reply.why
