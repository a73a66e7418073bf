"""Event streams over HTTP (cloud-api.md, section 4; clients.md, section 5)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import Counter
from typing import Any

import structlog
from aiohttp import web

from wirechamber.api.http import COMMON_HEADERS, UNKNOWN, Call, has_no_length
from wirechamber.api.routing import Route, refused
from wirechamber.api.wanted import PARAMETERS, Wanted, is_event_source, wanted
from wirechamber.errors import CloudError, InvalidToken, TooMany, Unavailable
from wirechamber.eventlog.base import Cursor, Scope
from wirechamber.eventlog.tail import Tail
from wirechamber.observe.logs import Seldom
from wirechamber.protocols import sse
from wirechamber.services.access import Access
from wirechamber.settings import Settings
from wirechamber.shares import network_of
from wirechamber.streams.hub import CLOSED, FAILED, SHUTDOWN, SLOW, TOKEN, Group, Hub, Reader
from wirechamber.streams.resume import Start, history, recent
from wirechamber.streams.turns import Turns

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
# A reader that catches up must have taken what was written to it, some tens of kilobytes, within this.
WRITE_TIMEOUT_S = 30.0
# What the kernel may keep of a stream for a reader that does not read; it would take megabytes. Linux doubles it for
# its own needs. Enough for a megabyte a second over 50 ms.
SEND_BUFFER_BYTES = 64 * 1024
# The part of all streams that one owner may have.
OWNERS_SHARE = 0.75
# Streams that are opened at once, and in a second; owners take turns. Opening one takes half a millisecond of the event
# loop, which others need, too.
OPENED_AT_ONCE = 50
OPENED_PER_S = 1_000
# Of one owner's: 10 s of waiting. Who comes beyond them is told to come back.
MAX_WAITING = 10_000
# Clients come back this long after a stream has ended, each after another while: thousands that end in one moment do
# not return in one. With many streams it is spread over the time that it takes to admit them.
RETRY_FIRST_S = 1.0
RETRY_SPREAD_S = 4.0
RETRY_LONGEST_SPREAD_S = 15.0
# What who is refused is told to wait, and what is refused so: it is over soon.
REFUSED_RETRY_S = 5
PASSING = (TooMany.status, Unavailable.status)


class Stream:
    """An open stream.

    Args:
        transport: Its connection's.
        secret: The token that it was opened with.
        form: What its client can take.
        start: Where it begins, and how far it has caught up.

    Attributes:
        gone: Done with the reason when it ends.
        patience: While it catches up: runs out when it must wait no longer.
        group: Those it follows the tail with, once it does.
        told: The position that a mark last told it.
    """

    __slots__ = ("form", "gone", "group", "patience", "secret", "start", "told", "transport")

    def __init__(self, transport: asyncio.Transport, secret: str, form: Wanted, start: Start) -> None:
        self.transport = transport
        self.secret = secret
        self.form = form
        self.start = start
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.patience: asyncio.Timeout | None = None
        self.group: Group | None = None
        # Its greeting tells this, unless what is gone must be told first.
        self.told = "" if start.gap else start.position

    def end(self, why: str) -> None:
        """Ends it. Ending twice is allowed."""
        if not self.gone.done():
            self.gone.set_result(why)
            if self.patience is not None and not self.patience.expired():
                self.patience.reschedule(0)

    def breathe(self, newest: Cursor) -> None:
        """Breaks its silence, if nothing waits for its reader anyway.

        Where its position has moved, because others' events or such as it does not want have come, it is told so
        instead, if it can take that: or it would come back to where it was long ago.

        Args:
            newest: The log's newest position.
        """
        # Asked right before the write, with nothing to wait for in between: a closed transport raises.
        if self.transport.is_closing():
            self.end(CLOSED)
        elif not self.gone.done() and self.transport.get_write_buffer_size() == 0:
            self.transport.write(self.mark(newest) or (KEEP_ALIVE if self.form.chunked else sse.KEEP_ALIVE))

    def mark(self, newest: Cursor) -> bytes:
        """Says where it is, if it wants to know and does not yet: everything up to there has been written to it."""
        mark, group = self.form.mark, self.group
        if mark is None or (group is not None and not group.rests):
            return b""
        # While it catches up, the last page of which everything has been written.
        position = self.start.position if group is None else newest
        if position == self.told:
            return b""
        self.told = position
        return self.framed(mark(position))

    def framed(self, payload: bytes) -> bytes:
        """As this client takes it."""
        return sse.chunk(payload) if self.form.chunked else payload


class Open:
    """The streams that are open, whether they catch up or follow.

    Args:
        room: How many there may be, whoever has them.

    Attributes:
        count: How many there are.
        let_go: How many were ended because they did not read while they caught up.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.each = int(room * OWNERS_SHARE)
        self.by_address: Counter[str] = Counter()
        self.by_owner: Counter[str] = Counter()
        self.streams: dict[Stream, None] = {}
        self.closing = False
        self.count = 0
        self.let_go = 0
        self.turns = Turns(OPENED_AT_ONCE, OPENED_PER_S)

    def check(self, address: str, owner: str, settings: Settings) -> None:
        """Whether there may be one more.

        Raises:
            TooMany: The address or the owner has as many as it may.
            Unavailable: There is no room, or this cloud is stopping.
        """
        if self.closing:
            raise Unavailable("this cloud is stopping; connect again in a moment", retry_after=REFUSED_RETRY_S)
        if self.by_address[address] >= settings.streams_per_address:
            text = "too many streams are open from this address; close some, or use one with a common prefix"
            raise TooMany(text, retry_after=REFUSED_RETRY_S)
        if self.by_owner[owner] >= min(settings.streams_per_owner, self.each):
            text = "you have as many streams open as one user may; close some, or use one with a common prefix"
            raise TooMany(text, retry_after=REFUSED_RETRY_S)
        if self.count >= self.room:
            text = "this cloud has as many streams open as it can; try again in a moment"
            raise Unavailable(text, retry_after=REFUSED_RETRY_S)
        if self.turns.line(owner) >= MAX_WAITING:
            text = "you open too many streams at once; try again in a moment"
            raise Unavailable(text, retry_after=REFUSED_RETRY_S)

    def enter(self, address: str, owner: str) -> None:
        """Counts one more."""
        self.count += 1
        self.by_address[address] += 1
        self.by_owner[owner] += 1

    def leave(self, address: str, owner: str) -> None:
        """Counts one less."""
        self.count -= 1
        for counter, holder in ((self.by_address, address), (self.by_owner, owner)):
            counter[holder] -= 1
            if not counter[holder]:
                del counter[holder]

    def retry(self) -> bytes:
        """When the next stream comes back, should it end."""
        spread = min(max(RETRY_SPREAD_S, self.count / OPENED_PER_S), RETRY_LONGEST_SPREAD_S)
        # Not a secret: it spreads clients.
        return sse.retry(int(1000 * (RETRY_FIRST_S + spread * random.random())))  # noqa: S311

    def stop(self) -> None:
        """Takes no more, and ends those that catch up; the hub ends the others."""
        self.closing = True
        for stream in list(self.streams):
            if stream.patience is not None:
                stream.end(SHUTDOWN)


class Counts:
    """What is counted of streams, whether they catch up or follow."""

    def __init__(self, opened: Open, hub: Hub) -> None:
        self._opened = opened
        self._hub = hub

    @property
    def open(self) -> int:
        """Streams now."""
        return self._opened.count

    @property
    def catching_up(self) -> int:
        """Streams now that have not come to the newest event yet."""
        return self._opened.count - self._hub.open

    @property
    def sent(self) -> int:
        """Events written to streams that follow, once for each."""
        return self._hub.sent

    @property
    def let_go(self) -> int:
        """Streams that were ended because they did not read."""
        return self._hub.let_go + self._opened.let_go


OPEN = web.AppKey("streams_open", Open)


async def mine(call: Call) -> web.StreamResponse:
    """Everything of the caller's."""
    return await _stream(call, None)


async def one_device(call: Call) -> web.StreamResponse:
    """What one device of the caller's published."""
    device = await call.parts.devices.get(call.owner, call.path("id"))
    return await _stream(call, device.id)


async def _stream(call: Call, coreid: str | None) -> web.StreamResponse:
    log, request = call.parts.log, call.request
    form = wanted(request, call.unknown)
    scope = Scope(owner=call.owner, coreid=coreid, prefix=form.prefix)
    start = Start(log, form.last_event_id)
    opened, address = request.app[OPEN], network_of(call.address())
    opened.check(address, call.owner, call.parts.settings)
    opened.enter(address, call.owner)
    try:
        async with opened.turns.turn(call.owner):
            response = await _begun(call, start, form)
        with contextlib.suppress(ConnectionError):
            if request.transport is not None and not opened.closing:
                await _follow(call, Stream(request.transport, call.secret, form, start), scope)
        return response
    finally:
        opened.leave(address, call.owner)


async def _begun(call: Call, start: Start, form: Wanted) -> web.StreamResponse:
    """The answer, with its first lines."""
    request = call.request
    first = call.parts.log.next(start.position)
    response = web.StreamResponse(headers={**HEADERS, "Wirechamber-Stream-Start": first})
    if call.unknown:
        response.headers[UNKNOWN] = call.unknown
    has_no_length(request, response)
    greeting = [sse.GREETING, request.app[OPEN].retry(), *map(sse.comment, form.notes)]
    if start.gap is None:
        # What is gone must be told before a position beyond it.
        greeting.append((form.mark or sse.position_line)(start.position))
    # A reader may go away at any moment: that is no fault of anybody's.
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write(b"".join(greeting))
    return response


async def _follow(call: Call, stream: Stream, scope: Scope) -> None:
    hub, transport, opened = call.parts.hub, stream.transport, call.request.app[OPEN]
    _bound_send_buffer(transport)
    reader = Reader(transport, stream.end, chunked=stream.form.chunked)
    opened.streams[stream] = None
    try:
        await _catch_up(call, stream, scope)
        if stream.gone.done():
            # What waits for a reader who is behind is as good from the log, when it comes back.
            if transport.get_write_buffer_size() > 0:
                transport.abort()
        elif not transport.is_closing():
            # From here to `join` nothing waits: no event can come in between.
            frames = b"".join(recent(call.parts.log, scope, stream.start.position))
            stream.group = hub.join(scope, reader)
            if frames:
                transport.write(frames if stream.form.chunked else sse.unchunked(frames))
            elif told := stream.mark(call.parts.log.tail.newest):
                # It has looked at the whole past for nothing: not once more when it comes back.
                transport.write(told)
            why = await stream.gone
            # Those do not read, so they would see no proper end; and what waits is not for a bad token's bearer.
            if why in (SLOW, FAILED) or (why == TOKEN and transport.get_write_buffer_size() > 0):
                transport.abort()
    finally:
        del opened.streams[stream]
        hub.leave(scope, reader)


async def _catch_up(call: Call, stream: Stream, scope: Scope) -> None:
    """Writes what the reader missed, as fast as it reads and no longer than it may."""
    transport, loop = stream.transport, asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as stream.patience:
            async for piece in history(call.parts.past, scope, stream.start):
                # Between pages anything may have happened.
                if transport.is_closing() or not await _may_go_on(stream, call.parts.access):
                    return
                transport.write(piece if stream.form.chunked else sse.unchunked(piece))
                stream.patience.reschedule(loop.time() + WRITE_TIMEOUT_S)
                await call.request.writer.drain()
                if stream.gone.done():
                    return
                stream.patience.reschedule(None)
    except TimeoutError:
        if not stream.gone.done():
            call.request.app[OPEN].let_go += 1
            stream.end(SLOW)
    except CloudError as problem:
        _seldom.warning("history_unreadable", why=problem.description)
        stream.end(FAILED)
    finally:
        stream.patience = None


def _bound_send_buffer(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


async def keep_alive(opened: Open, tail: Tail, every_s: float) -> None:
    """Writes comments, or where they are, to streams for ever.

    One task for all: a timer for each stream would be a third of what an idle one costs. What goes wrong with one
    stream ends that one. It waits for nothing but the time, so nothing that is slow makes streams silent.
    """
    while True:
        await asyncio.sleep(every_s)
        for number, stream in enumerate(list(opened.streams)):
            if number % SLICE == 0:
                await asyncio.sleep(0)
            try:
                stream.breathe(tail.newest)
            except Exception as problem:
                _seldom.warning("stream_not_kept_alive", why=repr(problem))
                stream.end(FAILED)


async def check_tokens(opened: Open, access: Access, every_s: float) -> None:
    """Ends the streams whose token is no longer good, for ever."""
    while True:
        await asyncio.sleep(every_s)
        for number, stream in enumerate(list(opened.streams)):
            if number % SLICE == 0:
                await asyncio.sleep(0)
            try:
                await _may_go_on(stream, access)
            except Exception as problem:
                _seldom.warning("token_not_checked", why=repr(problem))


async def _may_go_on(stream: Stream, access: Access) -> bool:
    if stream.gone.done():
        return False
    if access.cached(stream.secret) is None:
        try:
            await access.authorise(stream.secret)
        except InvalidToken:
            stream.end(TOKEN)
            return False
        except CloudError:
            # The store is away for a moment: not the reader's fault.
            return True
    return not stream.gone.done()


def refuse(call: Call, problem: CloudError) -> web.Response:
    """A refusal. An EventSource takes any other status than 200 for the end for good, so what is over soon is told it
    as a stream that ends at once and says when to come back (HTML, section 9.2.3)."""
    response = refused(call, problem)
    if problem.status not in PASSING:
        return response
    if is_event_source(call.request):
        wait = int(response.headers.get("Retry-After", REFUSED_RETRY_S))
        # Not a secret: it spreads clients.
        again = sse.retry(int(1000 * (wait + RETRY_SPREAD_S * random.random())))  # noqa: S311
        body = sse.comment(problem.description.replace("\n", " ")) + again
        response = web.Response(body=body, headers={**HEADERS, "Retry-After": str(wait)})
    # Whoever has too many leaves no connection behind.
    response.force_close()
    return response


def _routes(path: str, handler: Any, summary: str, owned: tuple[str, ...] = ()) -> tuple[Route, ...]:
    return tuple(
        Route(
            method="GET", path=path + rest, handler=handler, requires="events:get", owned=owned,
            summary=f"{summary}{text}; Last-Event-ID or last_event_id resumes", answers="text/event-stream",
            parameters=PARAMETERS, refuse=refuse,
        )
        for rest, text in (("", ""), ("/{prefix:.+}", ", filtered by a prefix of the name"))
    )  # fmt: skip


ROUTES = (
    *_routes("/v1/devices/events", mine, "Stream all your events"),
    *_routes("/v1/events", mine, "Stream all your events"),
    *_routes("/v1/devices/{id}/events", one_device, "Stream the events of one device", ("id",)),
)
