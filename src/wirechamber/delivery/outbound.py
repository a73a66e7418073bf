"""Outgoing HTTP: libcurl's multi interface on the event loop.

All of libcurl's sockets are watched by one epoll descriptor, and that is what the event loop watches: however many
requests move, the loop is woken once and everything that can be done is done in one go. (In a thread of its own,
every request cost two hand-overs of the GIL; docs/performance.md has the figures.)

Redirects are not followed, the environment's proxies are ignored, nothing is decoded here (see `delivery.unpack`),
and size and time are bounded: what is kept of an answer, and what comes on the wire. The guard is asked in libcurl's
open-socket callback, which sees the address really used.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections import Counter, deque
from contextlib import suppress
from typing import Any

import pycurl
import structlog

from wirechamber.clock import Clock
from wirechamber.delivery.curl import WANTS_CERTIFICATE, header_lines, problem_of, set_shape, unsendable
from wirechamber.delivery.flight import MAX_WIRE_BYTES, Done, Exchange, Flight, LargeAnswers, Place
from wirechamber.delivery.frames import TEXT, Frames, traced
from wirechamber.delivery.guard import Guard
from wirechamber.delivery.proxied import Proxied, goes_direct, set_proxy
from wirechamber.delivery.wire import bytes_read
from wirechamber.integrations.base import NoResponse, Request, Response
from wirechamber.observe.logs import Seldom
from wirechamber.proxy import Proxy

_log = structlog.get_logger("wirechamber.outbound")
_seldom = Seldom(_log, every_s=60.0)

# No connection within this is ETIMEDOUT; the whole of a request has its own, longer bound.
CONNECT_TIMEOUT_S = 10.0
# So long libcurl is let work, and so long what has ended is told, in one turn of the loop; and so many sockets are seen
# to before that is looked at.
SLICE_S = 0.005
_AT_ONCE = 4
# How much came on a connection is looked at every so many times that something did.
_LOOK_EVERY = 4
# A request on a connection that was kept open, of which nothing comes back for so long, is sent again on a new one:
# what stands between may have forgotten the connection. Targets that were seen to take their time get twice that.
SILENCE_S = 3.0
# So many slow targets are remembered, and those whose kept connections are in doubt.
MAX_REMEMBERED = 1_000
# A connection that is kept for the next request is closed by then (libcurl's MAXAGE_CONN), and the doubt ends.
DOUBT_S = 120.0
# Connections kept open for the next request.
MAX_IDLE_CONNECTIONS = 512
# Easy handles kept for the next request: each holds some 30 KB.
MAX_IDLE_HANDLES = 512
CLOSED = "closed"


class _LentSocket(socket.socket):
    """The socket whose descriptor pycurl copies: closed as soon as it has been, and nobody else holds it."""

    def __del__(self) -> None:
        self.close()


class Outbound:
    """Sends requests. Belongs to the event loop that runs when it is made.

    Args:
        guard: Which addresses may be reached.
        timeout_s: The whole of a request, from the moment it is sent.
        proxy: A proxy that the operator set; its own address needs no permission, and what it connects to is not seen.
        silence_s: See `SILENCE_S`.

    Attributes:
        counted: How often a bound or a remedy was used: `wire` (an answer was cut on the wire), `sent_again` (on a new
            connection), `proxy` (the operator's proxy had trouble), `large` (no place for another large answer).
    """

    def __init__(
        self, guard: Guard, *, clock: Clock, timeout_s: float, proxy: Proxy | None = None, silence_s: float = SILENCE_S
    ) -> None:
        self._guard = guard
        self._clock = clock
        self._timeout_ms = max(1, int(timeout_s * 1000))
        self._proxied = None if proxy is None else Proxied(proxy)
        self._silence_s = silence_s
        self._slow_ms = silence_s * 500
        self.counted: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()
        self._new: deque[tuple[Request, Done, int, str]] = deque()
        self._idle: list[Flight] = []
        self._flights: dict[pycurl.Curl, Flight] = {}
        self._large = LargeAnswers(self.counted)
        self._ended: deque[tuple[Done, Exchange]] = deque()
        self._turn_due = False
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None
        # When libcurl wants to be called even if no socket moves, and the timer that sees to it.
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._poll = select.epoll()
        # Watched sockets, and how often something came on each. Beside them, of those that get much: how many bytes had
        # come at the first look, and how many the answers that have ended since could have.
        self._watched: dict[int, int] = {}
        self._metered: dict[int, tuple[int, int]] = {}
        # By host and port: how long the slowest answers took lately, and since when connections that are kept are in
        # doubt, both in seconds of the monotonic clock.
        self._slow: dict[str, float] = {}
        # Targets that answered an https request by HTTP/1: there is nothing to trace.
        self._without_frames: dict[str, float] = {}
        self._frames = Frames()
        self._doubted: dict[str, float] = {}
        self._vigil: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._poll.fileno(), self._act)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, MAX_IDLE_CONNECTIONS)
        # CURLPIPE_MULTIPLEX: requests to one host share an HTTP/2 connection.
        self._multi.setopt(pycurl.M_PIPELINING, 2)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_deadline)

    def send(self, request: Request, done: Done, owner: str = "") -> None:
        """Sends a request; `done` is called later on the event loop with what came of it. Never raises.

        Args:
            owner: Whose share of the places for large answers it takes.
        """
        self._new.append((request, done, self._clock.now(), owner))
        self._take_turn()

    async def exchange(self, request: Request, owner: str = "") -> Exchange:
        """Sends a request and waits for what comes of it."""
        ended: asyncio.Future[Exchange] = self._loop.create_future()
        self.send(request, lambda exchange: None if ended.done() else ended.set_result(exchange), owner)
        return await ended

    def place(self, owner: str) -> Place | None:
        """A place for an answer that became a large one when it was unpacked, if there is one."""
        return self._large.take(owner)

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
        while self._ended:
            self._tell()
        for flight in self._idle:
            flight.handle.close()
        for timer in (self._timer, self._vigil):
            if timer is not None:
                timer.cancel()
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
        multi, watched = self._multi, self._watched
        until = time.monotonic() + SLICE_S
        ready = self._poll.poll(0, _AT_ONCE)
        while ready:
            for descriptor, mask in ready:
                action = 0
                if mask & (select.EPOLLIN | select.EPOLLHUP):
                    action |= pycurl.CSELECT_IN
                    if descriptor in watched:
                        watched[descriptor] += 1
                        if not watched[descriptor] % _LOOK_EVERY:
                            self._look(descriptor)
                if mask & select.EPOLLOUT:
                    action |= pycurl.CSELECT_OUT
                if mask & select.EPOLLERR:
                    action |= pycurl.CSELECT_ERR
                multi.socket_action(descriptor, action)
            # The kernel tells of those behind these first, next time; and the loop of what is left, in its next turn.
            ready = [] if len(ready) < _AT_ONCE or time.monotonic() >= until else self._poll.poll(0, _AT_ONCE)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._deadline = None
            multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _set_timer(self) -> None:
        deadline = self._deadline
        if deadline is None:
            # One that fires early costs nothing but a look.
            return
        wait = deadline - time.monotonic()
        if wait <= 0:
            self._take_turn()
            return
        if self._timer is not None:
            # Not asked of the timer itself: uvloop's has no time where it is so short that it is none.
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_later(wait, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._act()

    def _set_deadline(self, wait_ms: int) -> None:
        self._deadline = None if wait_ms < 0 else time.monotonic() + wait_ms / 1000

    def _watch(self, what: int, descriptor: int, _multi: Any, _data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            self._watched.pop(descriptor, None)
            self._metered.pop(descriptor, None)
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
            self._watched[descriptor] = 0

    # --- one request ---

    def _launch(self, request: Request, done: Done, started_at: int, owner: str) -> None:
        problem = unsendable(request)
        if problem is not None:
            self._end(request, done, NoResponse(problem, final=True))
            return
        try:
            flight = self._idle.pop() if self._idle else self._new_flight()
            flight.begin(request, done, started_at, time.monotonic(), owner)
            self._prepare(flight, request)
            self._multi.add_handle(flight.handle)
        except Exception as error:
            # The handle is let go with whatever state it has.
            _log.debug("request_refused", exc_info=True)
            self._end(request, done, NoResponse(f"EINVAL: {error}", final=True))
            return
        self._flights[flight.handle] = flight
        if self._vigil is None:
            self._vigil = self._loop.call_later(self._silence_s, self._look_for_silence)

    def _new_flight(self) -> Flight:
        handle = pycurl.Curl()
        flight = Flight(handle, self._large)
        set_option = handle.setopt
        set_option(pycurl.NOSIGNAL, 1)
        set_option(pycurl.FOLLOWLOCATION, 0)
        set_option(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        set_option(pycurl.OPENSOCKETFUNCTION, lambda purpose, address: self._open(flight, address))
        set_option(pycurl.DEBUGFUNCTION, lambda kind, text: self._hear(flight, kind, text))
        if self._proxied is None:
            set_proxy(set_option, None)
            flight.set_direct = True
        set_option(pycurl.CONNECTTIMEOUT_MS, int(CONNECT_TIMEOUT_S * 1000))
        set_option(pycurl.TIMEOUT_MS, self._timeout_ms)
        set_option(pycurl.TCP_NODELAY, 1)
        set_option(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        set_option(pycurl.HTTP09_ALLOWED, 0)
        set_option(pycurl.DNS_CACHE_TIMEOUT, 30)
        set_option(pycurl.HEADERFUNCTION, flight.take_header)
        set_option(pycurl.WRITEFUNCTION, flight.take_body)
        return flight

    def _prepare(self, flight: Flight, request: Request) -> None:
        set_option = flight.handle.setopt
        if request.url != flight.set_url:
            set_option(pycurl.URL, request.url)
            flight.set_url = request.url
            flight.secure = request.url[:6].lower() == "https:"
        if request.headers != flight.set_headers:
            set_option(pycurl.HTTPHEADER, header_lines(request.headers))
            flight.set_headers = request.headers
        shape = request.method, request.verify_tls, request.body is None
        if shape != flight.set_shape:
            set_shape(set_option, *shape)
            flight.set_shape = shape
        if request.body is not None:
            set_option(pycurl.POSTFIELDS, request.body)
        if request.as_machine != flight.set_alone:
            # The guard looks at connections as they are opened: nobody else's request may find this one open.
            set_option(pycurl.FORBID_REUSE, int(request.as_machine))
            flight.set_alone = request.as_machine
        if self._proxied is not None:
            direct = request.as_machine or goes_direct(request.url)
            if direct != flight.set_direct:
                set_proxy(set_option, None if direct else self._proxied.proxy)
                flight.set_direct = direct
        if flight.secure or flight.set_traced:
            wanted = flight.secure and _authority(request.url) not in self._without_frames
            if wanted != flight.set_traced:
                set_option(pycurl.VERBOSE, int(wanted and traced()))
                flight.set_traced = wanted
        if self._doubted or flight.set_lifetime:
            self._set_lifetime(flight)

    def _open(self, flight: Flight, address: Any) -> Any:
        family, kind, protocol, target = address
        flight.opened = True
        if not flight.set_direct:
            # To the proxy.
            return _LentSocket(family, kind, protocol)
        host = target[0] if isinstance(target, tuple) else ""
        if isinstance(host, bytes):
            host = host.decode()
        if family not in (socket.AF_INET, socket.AF_INET6) or not self._guard.permits(host, flight.request.as_machine):
            flight.forbidden = host or "a local socket"
            return pycurl.SOCKET_BAD
        return _LentSocket(family, kind, protocol)

    def _hear(self, flight: Flight, kind: int, text: bytes) -> None:
        if kind != TEXT:
            return
        stream = self._frames.hear(flight.handle, text)
        if stream is not None:
            flight.stream = stream
        elif b"handshake, Request CERT" in text:
            flight.asked_certificate = True

    def _collect(self) -> None:
        self._frames.settle()
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
        if flight.shared:
            self._credit(handle.getinfo(pycurl.ACTIVESOCKET), flight.wire_bytes)
        self._multi.remove_handle(handle)
        # A proxy's address is the operator's affair.
        address = (handle.getinfo(pycurl.PRIMARY_IP) or None) if flight.set_direct else None
        try:
            reply = self._reply(flight, error)
        except Exception as fault:
            # Whatever is wrong with an answer, whoever waits for it is told.
            _log.exception("reply_not_understood")
            reply = NoResponse(f"EPROTO: internal error: {type(fault).__name__}")
        taken_ms = self._end(flight.request, flight.done, reply, flight, address)
        if taken_ms > self._slow_ms:
            self._was_slow(flight, taken_ms / 1000)
        if len(self._idle) < MAX_IDLE_HANDLES:
            self._idle.append(flight)
        else:
            handle.close()

    def _reply(self, flight: Flight, error: tuple[int, str] | None) -> Response | NoResponse:
        """What a request that has ended came to."""
        reply: Response | NoResponse
        if error is None or (flight.cut and error[0] == pycurl.E_WRITE_ERROR):
            status = flight.handle.getinfo(pycurl.RESPONSE_CODE)
            reply = Response(status, tuple(flight.headers), b"".join(flight.body), flight.length)
        else:
            reply = problem_of(flight.handle, flight.forbidden, *error)
        if flight.set_traced:
            reply = self._by_trace(flight, reply)
        return reply if flight.set_direct else self._by_proxy(flight, reply, error)

    def _by_trace(self, flight: Flight, reply: Response | NoResponse) -> Response | NoResponse:
        """The reply, or what the trace knows better."""
        if isinstance(reply, Response):
            if flight.shared:
                if not flight.cut and self._frames.broke_off(flight.handle, flight.stream):
                    return NoResponse("read ECONNRESET: the target broke its answer off (HTTP/2 RST_STREAM)")
            else:
                _remember(self._without_frames, _authority(flight.request.url), 0.0)
        elif flight.asked_certificate and not flight.header_bytes and reply.why.startswith("read ECONNRESET"):
            return NoResponse(WANTS_CERTIFICATE)
        return reply

    def _by_proxy(
        self, flight: Flight, reply: Response | NoResponse, error: tuple[int, str] | None
    ) -> Response | NoResponse:
        """The reply, or the proxy's trouble where it was that."""
        assert self._proxied is not None
        url = flight.request.url
        if isinstance(reply, Response):
            trouble = self._proxied.answer(reply.status, reply.headers, url)
        else:
            code = 0 if error is None else error[0]
            trouble = self._proxied.error(flight.handle, code, reply.why, opened=flight.opened, url=url)
        if trouble is None:
            return reply
        self.counted["proxy"] += 1
        _seldom.warning("outbound_proxy_trouble", why=trouble.why)
        return trouble

    # --- how much comes on the wire ---

    def _look(self, descriptor: int) -> None:
        """Ends what gets far more on the wire than its answers may have."""
        read = bytes_read(descriptor)
        first, ended = self._metered.setdefault(descriptor, (read, 0))
        if read - first <= MAX_WIRE_BYTES:
            return
        here = [each for each in self._flights.values() if each.handle.getinfo(pycurl.ACTIVESOCKET) == descriptor]
        if read - first <= ended + sum(each.wire_bytes for each in here):
            return
        for flight in here:
            self.counted["wire"] += 1
            why = f"EPROTO: more than {flight.wire_bytes} bytes came for one answer"
            _seldom.warning("answer_cut_on_the_wire", why=why, address=flight.handle.getinfo(pycurl.PRIMARY_IP))
            self._break_off(flight, NoResponse(why))

    def _credit(self, descriptor: int, wire_bytes: int) -> None:
        """An answer has ended on a connection that others share: the next one may be as large."""
        metered = self._metered.get(descriptor)
        if metered is not None:
            self._metered[descriptor] = metered[0], metered[1] + wire_bytes

    def _break_off(self, flight: Flight, reply: NoResponse) -> None:
        """Ends a request at once, and its connection with it."""
        del self._flights[flight.handle]
        address = flight.handle.getinfo(pycurl.PRIMARY_IP) or None
        flight.handle.setopt(pycurl.FORBID_REUSE, 1)
        self._multi.remove_handle(flight.handle)
        flight.handle.close()
        self._end(flight.request, flight.done, reply, flight, address)

    # --- connections that went silent ---

    def _look_for_silence(self) -> None:
        """Sends once more what got nothing back on a connection that was kept open."""
        self._vigil = None
        now = time.monotonic()
        soonest = self._silence_s
        for flight in list(self._flights.values()):
            left = flight.started + self._silence_s - now
            if left > 0:
                # In the order of their start.
                soonest = min(soonest, left)
                break
            if self._is_silent(flight, now - flight.started):
                self._send_again(flight, now)
        if self._flights and not self._closed:
            self._vigil = self._loop.call_later(max(0.01, soonest), self._look_for_silence)
        self._take_turn()

    def _is_silent(self, flight: Flight, waited: float) -> bool:
        return (
            not flight.again
            and not flight.opened
            and not flight.header_bytes
            and flight.handle.getinfo(pycurl.REQUEST_SIZE) > 0
            and waited > 2 * self._slow.get(_authority(flight.request.url), 0.0)
        )

    def _send_again(self, flight: Flight, now: float) -> None:
        """On a new connection, in what is left of its time; and no request goes out on those of before any more."""
        authority = _authority(flight.request.url)
        if authority not in self._doubted:
            _seldom.warning(
                "connection_silent", why="nothing came back on a connection that was kept open", of=authority
            )
        _remember(self._doubted, authority, now)
        self.counted["sent_again"] += 1
        handle = flight.handle
        del self._flights[handle]
        handle.setopt(pycurl.FRESH_CONNECT, 1)
        self._multi.remove_handle(handle)
        flight.again = True
        handle.setopt(pycurl.TIMEOUT_MS, max(1, self._timeout_ms - int((now - flight.started) * 1000)))
        self._multi.add_handle(handle)
        self._flights[handle] = flight

    def _set_lifetime(self, flight: Flight) -> None:
        """Where connections are in doubt, only those that are younger than the doubt are used again."""
        since = self._doubted.get(_authority(flight.request.url))
        lifetime = 0
        if since is not None:
            lifetime = max(1, int(time.monotonic() - since))
            if lifetime > DOUBT_S:
                del self._doubted[_authority(flight.request.url)]
                lifetime = 0
        if lifetime != flight.set_lifetime:
            flight.handle.setopt(pycurl.MAXLIFETIME_CONN, lifetime)
            flight.set_lifetime = lifetime

    def _was_slow(self, flight: Flight, taken: float) -> None:
        if flight.header_bytes:
            authority = _authority(flight.request.url)
            _remember(self._slow, authority, max(taken, self._slow.get(authority, 0.0) / 2))
        if flight.again:
            flight.handle.setopt(pycurl.FRESH_CONNECT, 0)
            flight.handle.setopt(pycurl.TIMEOUT_MS, self._timeout_ms)

    def _end(
        self,
        request: Request,
        done: Done,
        reply: Response | NoResponse,
        flight: Flight | None = None,
        address: str | None = None,
    ) -> int:
        """Notes what came of a request; returns how long it took, in milliseconds."""
        duration = started_at = 0
        place = None
        if flight is not None:
            place = flight.let_go(reply)
            duration, started_at = int((time.monotonic() - flight.started) * 1000), flight.started_at
        self._ended.append((done, Exchange(request, reply, started_at or self._clock.now(), duration, address, place)))
        return duration

    def _refuse_new(self) -> None:
        while self._new:
            request, done, *_ = self._new.popleft()
            self._end(request, done, NoResponse(CLOSED))

    def _tell(self) -> None:
        """Says what has ended, as much as one turn has time for: making something of an answer takes milliseconds."""
        until = time.monotonic() + SLICE_S
        while self._ended:
            done, exchange = self._ended.popleft()
            try:
                done(exchange)
            except Exception:
                _log.exception("reply_not_taken")
            if self._ended and time.monotonic() >= until:
                self._take_turn()
                return


def _authority(url: str) -> str:
    """Host and port as the URL has them."""
    return url.split("/", 3)[2]


def _remember(known: dict[str, float], key: str, value: float) -> None:
    known.pop(key, None)
    if len(known) >= MAX_REMEMBERED:
        del known[next(iter(known))]
    known[key] = value
