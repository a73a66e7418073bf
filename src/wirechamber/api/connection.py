"""One client's connection: aiohttp's, with JSON for what that refuses by itself, and with bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import structlog
from aiohttp import web

from wirechamber import SERVER_NAME
from wirechamber.api.connections import Connections
from wirechamber.api.http import answer
from wirechamber.errors import BadInput

_log = structlog.get_logger("wirechamber.api")

# A connection that rests is put behind the others at most this often; in between its place is right enough.
REST_EVERY_S = 1.0
# Bytes of what has arrived that are looked at before others have their turn.
TAKEN_AT_ONCE = 16 * 1024


class HttpConnection(web.RequestHandler):
    """A connection from its arrival to its end.

    Args:
        holder: Whom it counts for.
        connections: Watch over it.
        refused: Counts input that was refused, by its reason.

    Attributes:
        arriving: What is under way until the connection is made, such as its TLS handshake.
    """

    __slots__ = (
        "_answering",
        "_connections",
        "_later",
        "_pipe",
        "_refused",
        "_rested_at",
        "_taking",
        "arriving",
        "holder",
    )

    def __init__(
        self,
        server: web.Server,
        holder: str,
        connections: Connections,
        refused: Callable[[str], None],
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self.holder = holder
        self.arriving: asyncio.Task[bool] | None = None
        self._connections = connections
        self._refused = refused
        self._answering = False
        self._rested_at = loop.time()
        # aiohttp lets go of its own as soon as it has asked for the end.
        self._pipe: asyncio.Transport | None = None
        # What has arrived and is still to be taken, and when the next of it is.
        self._later = b""
        self._taking: asyncio.Handle | None = None

    # --- its bounds ---

    @property
    def has_asked(self) -> bool:
        """Whether a request has come."""
        return self._request_count > 0

    def give_way(self) -> None:
        """Ends it: properly, unless something is under way on it."""
        if self.arriving is not None:
            self.arriving.cancel()
        elif self._current_request is None and not self.unread():
            self.force_close()
        else:
            self.abort()

    def abort(self) -> None:
        """Ends it at once; what was not taken is lost."""
        if self._pipe is not None:
            self._pipe.abort()

    def unread(self) -> int:
        """Bytes that were written and not yet taken."""
        return 0 if self._pipe is None else self._pipe.get_write_buffer_size()

    def lasts(self) -> None:
        """What is answered now goes on for long, as a stream does, and has bounds of its own."""
        if self.transport is not None:
            self._connections.lasts(self)

    def streams_answer(self) -> None:
        """What is answered now comes in pieces, each of which must be read as a whole answer must."""
        self._answering = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there, its TLS handshake ended."""
        self.arriving = None
        # uvloop's is none by inheritance.
        self._pipe = cast(asyncio.Transport, transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Takes what has arrived, a little at a time: in 256 KB are 43,000 chunks of a byte each."""
        if len(data) <= TAKEN_AT_ONCE and not self._later:
            super().data_received(data)
        elif data:
            self._later += data
            self._pause_transport_reading()
            self._take_soon()
        else:
            # aiohttp goes on with what it has.
            super().data_received(data)

    def _take_soon(self) -> None:
        if self._taking is None:
            self._taking = self._loop.call_soon(self._take)

    def _take(self) -> None:
        self._taking = None
        if not self._later or self._reading_paused or self._buffer_paused:
            return
        part, self._later = self._later[:TAKEN_AT_ONCE], self._later[TAKEN_AT_ONCE:]
        super().data_received(part)
        if not self._reading_paused and not self._buffer_paused:
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if self._later:
            self._take_soon()
        else:
            super()._resume_transport_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        """It has gone."""
        self._connections.left(self)
        self._pipe = None
        self._later = b""
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More waits for the client than is written at once."""
        super().pause_writing()
        if self._answering:
            self._connections.stalls(self)

    def resume_writing(self) -> None:
        """The client has taken most of it."""
        self._connections.reads(self)
        super().resume_writing()

    def force_close(self) -> None:
        """Ends it once the client has taken what waits for it, which may not take for ever."""
        super().force_close()
        self._closes()

    def _closes(self) -> None:
        if self._pipe is not None:
            self._connections.closes(self)

    # --- its answers ---

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what can't be read, or went wrong beside every route."""
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

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends the answer, or what is left of it."""
        if isinstance(resp, web.HTTPException):
            # No route of ours was asked: an `Expect` that can't be met, a CONNECT, a request for `*`.
            resp = self._refusal(resp.status, f"this is no proxy, and the request can't be met: {resp.reason}")
        if request.content.exception() is not None:
            # The body broke off, so nobody knows where the next request begins.
            resp.force_close()
        resp.headers.setdefault("Server", SERVER_NAME)
        self._answering = True
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answering = False
            self._rests(closes=not resp.keep_alive)

    def _rests(self, *, closes: bool) -> None:
        if self.transport is None:
            return
        if closes:
            self._closes()
        now = self._loop.time()
        if now - self._rested_at >= REST_EVERY_S or self._connections.is_lasting(self):
            self._rested_at = now
            self._connections.rests(self)

    def _refusal(self, status: int, text: str) -> web.Response:
        code = "not_found" if status == 404 else BadInput.code
        self._refused(code)
        return answer({"ok": False, "error": code, "error_description": text}, status)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Logs an error that is ours: a body that can't be read is the client's, and the client was told."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)
