"""Outgoing HTTP: libcurl's multi interface on the event loop.

All of libcurl's sockets are watched by one epoll descriptor, and that is what the event loop watches: however many
requests move, the loop is woken once and everything that can be done is done in one go. (In a thread of its own,
every request cost two hand-overs of the GIL; docs/performance.md has the figures.)

Redirects are not followed, the environment's proxies are ignored, nothing is decoded, and size and time are bounded.
The guard is asked in libcurl's open-socket callback, which sees the address really used.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pycurl
import structlog
from msgspec import Struct

from wirechamber.clock import Clock
from wirechamber.delivery.curl import header_lines, problem_of, set_shape, unsendable
from wirechamber.delivery.guard import Guard
from wirechamber.integrations.base import MAX_ANSWER_BYTES, NoResponse, Request, Response

_log = structlog.get_logger("wirechamber.outbound")

# No connection within this is ETIMEDOUT; the whole of a request has its own, longer bound.
CONNECT_TIMEOUT_S = 10.0
# A target that sends headers for ever.
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 256
# Connections kept open for the next request.
MAX_IDLE_CONNECTIONS = 512
# Easy handles kept for the next request: each holds some 30 KB.
MAX_IDLE_HANDLES = 512
CLOSED = "closed"


class Exchange(Struct, frozen=True):
    """A request and what came of it.

    Attributes:
        started_at: Milliseconds since 1970.
        address: The address really connected to, if there was a connection.
    """

    request: Request
    reply: Response | NoResponse
    started_at: int
    duration_ms: int
    address: str | None


Done = Callable[[Exchange], None]


class _LentSocket(socket.socket):
    """The socket whose descriptor pycurl copies: closed as soon as it has been, and nobody else holds it."""

    def __del__(self) -> None:
        self.close()


class _Flight:
    """A handle of libcurl's and the request that it has under way. Reused: setting one up is dear."""

    __slots__ = (
        "body", "cut", "done", "forbidden", "handle", "header_bytes", "headers", "length", "request",
        "set_headers", "set_shape", "set_url", "started", "started_at",
    )  # fmt: skip

    def __init__(self, handle: pycurl.Curl) -> None:
        self.handle = handle
        # What the handle was told last, so as not to tell it again.
        self.set_url = ""
        self.set_headers: tuple[tuple[str, str], ...] | None = None
        self.set_shape: tuple[str, bool, bool] | None = None

    def begin(self, request: Request, done: Done, started_at: int, started: float) -> None:
        self.request = request
        self.done = done
        self.started_at = started_at
        self.started = started
        self.headers: list[tuple[str, str]] = []
        self.header_bytes = 0
        self.body: list[bytes] = []
        self.length = 0
        self.cut = False
        self.forbidden: str | None = None

    def take_header(self, line: bytes) -> int | None:
        self.header_bytes += len(line)
        if self.header_bytes > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADERS:
            return -1
        if line[:5] == b"HTTP/":
            # A 1xx answer came before: only the last one's headers count.
            self.headers.clear()
            return None
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            self.headers.append((name.strip(), value.strip()))
        return None

    def take_body(self, data: bytes) -> int | None:
        room = MAX_ANSWER_BYTES - self.length
        self.length += len(data)
        if len(data) > room:
            self.body.append(data[:room])
            self.cut = True
            return 0
        self.body.append(data)
        return None


class Outbound:
    """Sends requests. Belongs to the event loop that runs when it is made.

    Args:
        guard: Which addresses may be reached.
        timeout_s: The whole of a request, from the moment it is sent.
        proxy: A proxy that the operator set; its own address needs no permission, and what it connects to is not seen.
    """

    def __init__(self, guard: Guard, *, clock: Clock, timeout_s: float, proxy: str = "") -> None:
        self._guard = guard
        self._clock = clock
        self._timeout_ms = max(1, int(timeout_s * 1000))
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._new: deque[tuple[Request, Done, int]] = deque()
        self._idle: list[_Flight] = []
        self._flights: dict[pycurl.Curl, _Flight] = {}
        self._ended: list[tuple[Done, Exchange]] = []
        self._turn_due = False
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None
        # When libcurl wants to be called even if no socket moves, and the timer that sees to it.
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._poll = select.epoll()
        self._watched: set[int] = set()
        self._loop.add_reader(self._poll.fileno(), self._act)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, MAX_IDLE_CONNECTIONS)
        # CURLPIPE_MULTIPLEX: requests to one host share an HTTP/2 connection.
        self._multi.setopt(pycurl.M_PIPELINING, 2)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_deadline)

    def send(self, request: Request, done: Done) -> None:
        """Sends a request; `done` is called later on the event loop with what came of it. Never raises."""
        self._new.append((request, done, self._clock.now()))
        self._take_turn()

    async def exchange(self, request: Request) -> Exchange:
        """Sends a request and waits for what comes of it."""
        ended: asyncio.Future[Exchange] = self._loop.create_future()
        self.send(request, lambda exchange: None if ended.done() else ended.set_result(exchange))
        return await ended

    async def close(self, grace_s: float) -> None:
        """Lets running requests end within the grace period, then ends them with the reply `closed`."""
        if self._flights or self._new:
            self._emptied = self._loop.create_future()
            await asyncio.wait((self._emptied,), timeout=grace_s)
        self._closed = True
        for flight in list(self._flights.values()):
            self._multi.remove_handle(flight.handle)
            self._end(flight.request, flight.done, NoResponse(CLOSED), flight)
            flight.handle.close()
        self._flights.clear()
        self._refuse_new()
        self._tell()
        for flight in self._idle:
            flight.handle.close()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._poll.fileno())
        self._multi.close()
        self._poll.close()

    # --- turns ---

    def _take_turn(self) -> None:
        # Everything that is sent in one turn of the loop is launched together.
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        if self._closed:
            self._refuse_new()
            self._tell()
            return
        while self._new:
            self._launch(*self._new.popleft())
        self._act()

    def _act(self) -> None:
        """Lets libcurl do what can be done now."""
        if self._closed:
            return
        try:
            self._drive()
            self._collect()
        except Exception:
            # One request's trouble must not end all others'.
            _log.exception("outbound_failed")
        self._tell()
        self._set_timer()
        if self._emptied is not None and not self._flights and not self._new and not self._emptied.done():
            self._emptied.set_result(None)

    def _drive(self) -> None:
        multi = self._multi
        for descriptor, mask in self._poll.poll(0):
            action = 0
            if mask & (select.EPOLLIN | select.EPOLLHUP):
                action |= pycurl.CSELECT_IN
            if mask & select.EPOLLOUT:
                action |= pycurl.CSELECT_OUT
            if mask & select.EPOLLERR:
                action |= pycurl.CSELECT_ERR
            multi.socket_action(descriptor, action)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._deadline = None
            multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _set_timer(self) -> None:
        timer, deadline = self._timer, self._deadline
        if deadline is None:
            # One that fires early costs nothing but a look.
            return
        wait = deadline - time.monotonic()
        if wait <= 0:
            self._take_turn()
            return
        if timer is not None:
            if timer.when() <= self._loop.time() + wait:
                return
            timer.cancel()
        self._timer = self._loop.call_later(wait, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._act()

    def _set_deadline(self, wait_ms: int) -> None:
        self._deadline = None if wait_ms < 0 else time.monotonic() + wait_ms / 1000

    def _watch(self, what: int, descriptor: int, _multi: Any, _data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            self._watched.discard(descriptor)
            with suppress(OSError, ValueError):
                self._poll.unregister(descriptor)
            return
        mask = 0
        if what & pycurl.POLL_IN:
            mask |= select.EPOLLIN
        if what & pycurl.POLL_OUT:
            mask |= select.EPOLLOUT
        if descriptor in self._watched:
            self._poll.modify(descriptor, mask)
        else:
            self._poll.register(descriptor, mask)
            self._watched.add(descriptor)

    # --- one request ---

    def _launch(self, request: Request, done: Done, started_at: int) -> None:
        problem = unsendable(request)
        if problem is not None:
            self._end(request, done, NoResponse(problem, final=True))
            return
        try:
            flight = self._idle.pop() if self._idle else self._new_flight()
            flight.begin(request, done, started_at, time.monotonic())
            self._prepare(flight, request)
            self._multi.add_handle(flight.handle)
        except Exception as error:
            # The handle is let go with whatever state it has.
            _log.debug("request_refused", exc_info=True)
            self._end(request, done, NoResponse(f"EINVAL: {error}", final=True))
            return
        self._flights[flight.handle] = flight

    def _new_flight(self) -> _Flight:
        handle = pycurl.Curl()
        flight = _Flight(handle)
        set_option = handle.setopt
        set_option(pycurl.NOSIGNAL, 1)
        set_option(pycurl.FOLLOWLOCATION, 0)
        set_option(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        set_option(pycurl.PROXY, self._proxy)
        if not self._proxy:
            set_option(pycurl.NOPROXY, "*")
            set_option(pycurl.OPENSOCKETFUNCTION, lambda purpose, address: self._open(flight, address))
        set_option(pycurl.CONNECTTIMEOUT_MS, int(CONNECT_TIMEOUT_S * 1000))
        set_option(pycurl.TIMEOUT_MS, self._timeout_ms)
        set_option(pycurl.TCP_NODELAY, 1)
        set_option(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        set_option(pycurl.HTTP09_ALLOWED, 0)
        set_option(pycurl.DNS_CACHE_TIMEOUT, 30)
        set_option(pycurl.HEADERFUNCTION, flight.take_header)
        set_option(pycurl.WRITEFUNCTION, flight.take_body)
        return flight

    @staticmethod
    def _prepare(flight: _Flight, request: Request) -> None:
        set_option = flight.handle.setopt
        if request.url != flight.set_url:
            set_option(pycurl.URL, request.url)
            flight.set_url = request.url
        if request.headers != flight.set_headers:
            set_option(pycurl.HTTPHEADER, header_lines(request.headers))
            flight.set_headers = request.headers
        shape = request.method, request.verify_tls, request.body is None
        if shape != flight.set_shape:
            set_shape(set_option, *shape)
            flight.set_shape = shape
        if request.body is not None:
            set_option(pycurl.POSTFIELDS, request.body)

    def _open(self, flight: _Flight, address: Any) -> Any:
        family, kind, protocol, target = address
        host = target[0] if isinstance(target, tuple) else ""
        if isinstance(host, bytes):
            host = host.decode()
        if family not in (socket.AF_INET, socket.AF_INET6) or not self._guard.permits(host):
            flight.forbidden = host or "a local socket"
            return pycurl.SOCKET_BAD
        return _LentSocket(family, kind, protocol)

    def _collect(self) -> None:
        while True:
            queued, succeeded, failed = self._multi.info_read()
            for handle in succeeded:
                self._landed(handle, None)
            for handle, code, text in failed:
                self._landed(handle, (code, text))
            if not queued:
                return

    def _landed(self, handle: pycurl.Curl, error: tuple[int, str] | None) -> None:
        flight = self._flights.pop(handle)
        self._multi.remove_handle(handle)
        address = handle.getinfo(pycurl.PRIMARY_IP) or None
        reply: Response | NoResponse
        if error is None or (flight.cut and error[0] == pycurl.E_WRITE_ERROR):
            status = handle.getinfo(pycurl.RESPONSE_CODE)
            reply = Response(status, tuple(flight.headers), b"".join(flight.body), flight.length)
        else:
            reply = problem_of(flight.handle, flight.forbidden, *error)
        self._end(flight.request, flight.done, reply, flight, address)
        if len(self._idle) < MAX_IDLE_HANDLES:
            self._idle.append(flight)
        else:
            handle.close()

    def _end(
        self,
        request: Request,
        done: Done,
        reply: Response | NoResponse,
        flight: _Flight | None = None,
        address: str | None = None,
    ) -> None:
        duration = started_at = 0
        if flight is not None:
            duration, started_at = int((time.monotonic() - flight.started) * 1000), flight.started_at
        self._ended.append((done, Exchange(request, reply, started_at or self._clock.now(), duration, address)))

    def _refuse_new(self) -> None:
        while self._new:
            request, done, _ = self._new.popleft()
            self._end(request, done, NoResponse(CLOSED))

    def _tell(self) -> None:
        ended, self._ended = self._ended, []
        for done, exchange in ended:
            try:
                done(exchange)
            except Exception:
                _log.exception("reply_not_taken")
