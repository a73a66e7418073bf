"""Event streams over HTTP (cloud-api.md, section 4; clients.md, section 5)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import structlog
from aiohttp import web

from wirechamber.api.http import COMMON_HEADERS, Call
from wirechamber.api.routing import Parameter, Route
from wirechamber.errors import CloudError, InvalidToken, TooMany, Unavailable
from wirechamber.eventlog.base import Scope
from wirechamber.model.names import check_prefix
from wirechamber.observe.logs import Seldom
from wirechamber.protocols import sse
from wirechamber.services.access import Access
from wirechamber.streams.hub import CLOSED, FAILED, SLOW, Reader
from wirechamber.streams.resume import Start, history, recent

HEADERS = {
    **COMMON_HEADERS,
    "Content-Type": sse.CONTENT_TYPE,
    "Cache-Control": "no-cache",
    # nginx would gather a stream in its buffers otherwise.
    "X-Accel-Buffering": "no",
}

_seldom = Seldom(structlog.get_logger("wirechamber.api"))
KEEP_ALIVE = sse.chunk(sse.KEEP_ALIVE)
# Streams that are looked after before others have their turn.
SLICE = 200


class Live:
    """A stream that has caught up and follows.

    Attributes:
        gone: Done with the reason when it ends.
    """

    __slots__ = ("gone", "secret", "transport")

    def __init__(self, transport: asyncio.Transport, secret: str) -> None:
        self.transport = transport
        self.secret = secret
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def end(self, why: str) -> None:
        """Ends it. Ending twice is allowed."""
        if not self.gone.done():
            self.gone.set_result(why)


class Open:
    """The streams that are open.

    Args:
        room: How many there may be, whoever has them.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.count = 0
        self.by_address: Counter[str] = Counter()
        self.live: dict[Live, None] = {}
        self.closing = False


OPEN = web.AppKey("streams_open", Open)


async def mine(call: Call) -> web.StreamResponse:
    """Everything of the caller's."""
    return await _stream(call, None)


async def one_device(call: Call) -> web.StreamResponse:
    """What one device of the caller's published."""
    device = await call.parts.devices.get(call.owner, call.path("id"))
    return await _stream(call, device.id)


async def _stream(call: Call, coreid: str | None) -> web.StreamResponse:
    prefix = check_prefix(call.request.match_info.get("prefix", ""))
    scope = Scope(owner=call.owner, coreid=coreid, prefix=prefix)
    log, request = call.parts.log, call.request
    start = Start(log, request.headers.get("Last-Event-ID") or call.query("last_event_id"))
    streams, address = request.app[OPEN], call.address()
    if streams.closing:
        raise Unavailable("this cloud is stopping; connect again in a moment")
    if streams.by_address[address] >= call.parts.settings.streams_per_address:
        raise TooMany("too many streams are open from this address; close some, or use one with a common prefix")
    if streams.count >= streams.room:
        raise Unavailable("this cloud has as many streams open as it can; try again in a moment")
    response = web.StreamResponse(headers={**HEADERS, "Wirechamber-Stream-Start": log.next(start.position)})
    response.enable_chunked_encoding()
    streams.count += 1
    streams.by_address[address] += 1
    try:
        # A reader may go away at any moment: that is no fault of anybody's.
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            await response.write(sse.GREETING)
            await _follow(call, response, scope, start)
    finally:
        streams.count -= 1
        streams.by_address[address] -= 1
        if not streams.by_address[address]:
            del streams.by_address[address]
    return response


async def _follow(call: Call, response: web.StreamResponse, scope: Scope, start: Start) -> None:
    log, hub, transport = call.parts.log, call.parts.hub, call.request.transport
    async for event in history(log, scope, start):
        await response.write(event)
    if transport is None or transport.is_closing():
        return
    live = Live(transport, call.secret)
    reader = Reader(transport, live.end)
    # From here to `join` nothing waits: no event can come in between.
    for frame in recent(log, scope, start.position):
        transport.write(frame)
    hub.join(scope, reader)
    opened = call.request.app[OPEN]
    opened.live[live] = None
    try:
        if await live.gone in (SLOW, FAILED):
            transport.abort()
    finally:
        del opened.live[live]
        hub.leave(scope, reader)


async def look_after(opened: Open, access: Access, every_s: float) -> None:
    """Writes keep-alives for ever, and ends the streams whose token is no longer good.

    One task for all: a timer for each stream would be a third of what an idle one costs. What goes wrong with one
    stream ends that one.
    """
    while True:
        await asyncio.sleep(every_s)
        for number, live in enumerate(list(opened.live)):
            if number % SLICE == 0:
                await asyncio.sleep(0)
            try:
                await _look_at(live, access)
            except Exception as problem:
                _seldom.warning("stream_not_looked_after", why=repr(problem))
                live.end(FAILED)


async def _look_at(live: Live, access: Access) -> None:
    if await _may_go_on(live, access) and not live.gone.done():
        # Asked right before the write, with nothing to wait for in between: a closed transport raises.
        if live.transport.is_closing():
            live.end(CLOSED)
        else:
            live.transport.write(KEEP_ALIVE)


async def _may_go_on(live: Live, access: Access) -> bool:
    if access.cached(live.secret) is None:
        try:
            await access.authorise(live.secret)
        except InvalidToken:
            live.end("token")
            return False
        except CloudError:
            # The store is away for a moment: not the reader's fault.
            return True
    return True


RESUMES = (
    Parameter("Last-Event-ID", "Go on after the event of this `id:`; wins over the query.", where="header"),
    Parameter("last_event_id", "The same, for clients that can't set headers."),
)


def _routes(path: str, handler: Any, summary: str, owned: tuple[str, ...] = ()) -> tuple[Route, ...]:
    return tuple(
        Route(
            method="GET", path=path + rest, handler=handler, requires="events:get", owned=owned,
            summary=f"{summary}{text}; Last-Event-ID or last_event_id resumes", answers="text/event-stream",
            parameters=RESUMES,
        )
        for rest, text in (("", ""), ("/{prefix:.+}", ", filtered by a prefix of the name"))
    )  # fmt: skip


ROUTES = (
    *_routes("/v1/devices/events", mine, "Stream all your events"),
    *_routes("/v1/events", mine, "Stream all your events"),
    *_routes("/v1/devices/{id}/events", one_device, "Stream the events of one device", ("id",)),
)
