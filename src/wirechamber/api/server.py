"""The listening side: sockets, TLS, slow clients, and an orderly end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from wirechamber.api import streams
from wirechamber.api.http import answer
from wirechamber.descriptors import for_streams
from wirechamber.errors import BadInput, CloudError
from wirechamber.observe.tasks import Tasks, ended
from wirechamber.settings import Settings

_log = structlog.get_logger("wirechamber.api")

KEEP_ALIVE_S = 75.0
# A client must have sent a request's headers within this.
HEADERS_TIMEOUT_S = 20.0
# The certificate's files are looked at this often.
TLS_CHECK_S = 2.0


class Server:
    """A listening server."""

    def __init__(self, base_url: str, port: int) -> None:
        self.base_url = base_url
        self.port = port


class NotListening(CloudError):
    """The address can't be listened on."""


class Young:
    """Connections that may not have sent a request yet, the oldest first; one timer for all of them.

    Args:
        room: How many there may be; beyond it the oldest are closed, so that a flood of them shuts nobody out.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._deadlines: dict[_Protocol, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: _Protocol) -> None:
        """From now on it has a while to send its headers."""
        self._deadlines[connection] = self._loop.time() + HEADERS_TIMEOUT_S
        while len(self._deadlines) > self._room:
            oldest = next(iter(self._deadlines))
            del self._deadlines[oldest]
            oldest.headers_overdue()
        if self._timer is None:
            self._timer = self._loop.call_later(HEADERS_TIMEOUT_S, self._look)

    def discard(self, connection: _Protocol) -> None:
        """It has gone."""
        self._deadlines.pop(connection, None)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._deadlines:
            connection, deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                self._timer = self._loop.call_later(deadline - now, self._look)
                return
            del self._deadlines[connection]
            connection.headers_overdue()


class _Protocol(web.RequestHandler):
    """aiohttp's connection, with JSON for what it refuses by itself, and a bound on how long headers may take.

    Attributes:
        young: Watches over it until its first request has come.
        refused: Counts input that was refused, by its reason.
    """

    __slots__ = ("refused", "young")

    young: Young
    refused: Callable[[str], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.young.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.young.discard(self)
        super().connection_lost(exc)

    def headers_overdue(self) -> None:
        """Closes the connection if no request has come yet; from then on the bound on connections at rest holds."""
        if not self._request_count and self.transport is not None:
            self.refused("no_request")
            self.transport.close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status >= 500:
            _log.error("request_failed", exc_info=exc)
            response = answer(
                {"ok": False, "error": "server_error", "error_description": "something went wrong here"}, status
            )
        else:
            text = f"the request is no valid HTTP: {message or exc}".splitlines()[0][:300]
            response = self._refusal(status, text)
        response.force_close()
        return response

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        if isinstance(resp, web.HTTPException):
            # No route of ours was asked: an `Expect` that can't be met, a CONNECT, a request for `*`.
            resp = self._refusal(resp.status, f"this is no proxy, and the request can't be met: {resp.reason}")
        if request.content.exception() is not None:
            # The body broke off or can't be unpacked, so nobody knows where the next request begins.
            resp.force_close()
        return super().finish_response(request, resp, start_time)

    def _refusal(self, status: int, text: str) -> web.Response:
        code = "not_found" if status == 404 else BadInput.code
        self.refused(code)
        return answer({"ok": False, "error": code, "error_description": text}, status)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        # A body that can't be read is the client's fault, and the client was told.
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)


class _Server(web.Server):
    young: Young
    refused: Callable[[str], None]

    def __call__(self) -> web.RequestHandler:
        protocol = _Protocol(self, loop=self._loop, **self._kwargs)
        protocol.young = self.young
        protocol.refused = self.refused
        return protocol


class _Runner(web.AppRunner):
    refused: Callable[[str], None]

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server
        assert isinstance(server, _Server)
        server.young = Young(for_streams() // 2)
        server.refused = self.refused
        return server


@asynccontextmanager
async def serving(
    app: web.Application,
    settings: Settings,
    tasks: Tasks,
    before_stop: Callable[[], None],
    refused: Callable[[str], None],
) -> AsyncIterator[Server]:
    """Listens until the block ends: then no new connection, streams end, running requests get their grace.

    Args:
        refused: Counts what was refused before it reached a route.

    Raises:
        NotListening: The address is taken or not ours.
        BadInput: The certificate can't be used.
    """
    context = _tls(settings)
    runner = _Runner(
        app,
        handle_signals=False,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_S,
        shutdown_timeout=settings.shutdown_grace,
        handler_cancellation=True,
    )
    runner.refused = refused
    await runner.setup()
    site = web.TCPSite(runner, settings.http_host, settings.http_port, ssl_context=context, backlog=1024)
    try:
        await site.start()
    except OSError as problem:
        await runner.cleanup()
        where = f"{settings.http_host}:{settings.http_port}"
        raise NotListening(f"can't listen on {where}: {problem.strerror}; set WIRECHAMBER_HTTP_PORT") from None
    port = runner.addresses[0][1]
    watcher = tasks.restarting(partial(_reload, settings, context), "tls-reload")
    try:
        yield Server(f"{'https' if context else 'http'}://{_host(settings.http_host)}:{port}", port)
    finally:
        await ended(watcher)
        app[streams.OPEN].closing = True
        await site.stop()
        before_stop()
        await runner.cleanup()


def _host(host: str) -> str:
    if host in ("0.0.0.0", "::", ""):  # noqa: S104
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as problem:
        raise BadInput(f"the certificate can't be used (tls_cert, tls_key): {problem}") from None
    return context


async def _reload(settings: Settings, context: ssl.SSLContext | None) -> None:
    """Loads the certificate again when its files change; new connections get the new one."""
    if context is None:
        return
    seen = _stamps(settings)
    while True:
        await asyncio.sleep(TLS_CHECK_S)
        now = _stamps(settings)
        if now == seen:
            continue
        try:
            # A pair that does not fit would leave the context in use without a key: it is tried on another one first.
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_cert, settings.tls_key)
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        except (OSError, ssl.SSLError) as problem:
            # Half written, or wrong: the old one stays in use, and the next look tries again.
            _log.warning("certificate_not_reloaded", why=str(problem))
            continue
        seen = now
        _log.info("certificate_reloaded")


def _stamps(settings: Settings) -> list[Any]:
    found: list[Any] = []
    for name in (settings.tls_cert, settings.tls_key):
        with suppress(OSError):
            status = Path(name).stat()
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return found
