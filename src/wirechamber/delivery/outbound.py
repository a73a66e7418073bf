"""Outgoing HTTP: libcurl in a thread of its own, handed requests and handing back replies in batches.

libcurl runs its own loop there, without the GIL while it waits and sends; the event loop hears of all that has ended by
one call. Redirects are not followed, the environment's proxies are ignored, nothing is decoded, and size and time are
bounded. The guard is asked in libcurl's open-socket callback, which sees the address really used.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pycurl
import structlog
from msgspec import Struct

from wirechamber.clock import Clock
from wirechamber.delivery.guard import Guard
from wirechamber.integrations.base import MAX_ANSWER_BYTES, NoResponse, Request, Response

_log = structlog.get_logger("wirechamber.outbound")

# No connection within this is ETIMEDOUT; the whole of a request has its own, longer bound.
CONNECT_TIMEOUT_S = 10.0
# A target that sends headers for ever.
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 256
MAX_URL_BYTES = 16 * 1024
# Connections kept open for the next request.
MAX_IDLE_CONNECTIONS = 512
# Easy handles kept for the next request: each holds some 30 KB.
MAX_IDLE_HANDLES = 512
METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"})
CLOSED = "closed"

# libcurl adds these unless told otherwise; a request has what its integration says.
_UNWANTED = ("Accept", "Expect", "User-Agent")
_OWN = frozenset({"content-length", "transfer-encoding", "connection"})
_CERTIFICATE_ERRORS = {pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CONNECT_ERROR, pycurl.E_SSL_ISSUER_ERROR}


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
    """A request under way."""

    __slots__ = (
        "body",
        "cut",
        "done",
        "forbidden",
        "header_bytes",
        "headers",
        "length",
        "request",
        "started",
        "started_at",
    )

    def __init__(self, request: Request, done: Done, started_at: int) -> None:
        self.request = request
        self.done = done
        self.started_at = started_at
        self.started = 0.0
        self.reset()

    def reset(self) -> None:
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
    """Sends requests.

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
        self._new: deque[_Flight] = deque()
        self._ended: list[tuple[_Flight, Exchange]] = []
        self._handles: list[pycurl.Curl] = []
        self._flights: dict[pycurl.Curl, _Flight] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._asleep = False
        self._closing = False
        self._abort = False
        self._thread = threading.Thread(target=self._run, name="outbound", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def send(self, request: Request, done: Done) -> None:
        """Sends a request; `done` is called on the event loop with what came of it. Never raises."""
        self._new.append(_Flight(request, done, self._clock.now()))
        # A wake-up costs a system call; a thread that is not asleep looks by itself.
        if self._asleep:
            self._asleep = False
            self._poke()

    async def exchange(self, request: Request) -> Exchange:
        """Sends a request and waits for what comes of it."""
        ended: asyncio.Future[Exchange] = self._loop.create_future()
        self.send(request, lambda exchange: None if ended.done() else ended.set_result(exchange))
        return await ended

    async def close(self, grace_s: float) -> None:
        """Lets running requests end within the grace period, then aborts them with the reply `closed`."""
        self._closing = True
        self._poke()
        await self._loop.run_in_executor(None, self._thread.join, grace_s)
        self._abort = True
        self._poke()
        await self._loop.run_in_executor(None, self._thread.join)
        # What the thread handed over last is on its way through the loop.
        await asyncio.sleep(0)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _poke(self) -> None:
        # When it is full, there are wake-ups enough.
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"!")

    # --- on the thread ---

    def _run(self) -> None:
        multi = pycurl.CurlMulti()
        multi.setopt(pycurl.M_MAXCONNECTS, MAX_IDLE_CONNECTIONS)
        multi.setopt(pycurl.M_PIPELINING, 2)  # CURLPIPE_MULTIPLEX: requests of one host share an HTTP/2 connection
        multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._poll = select.epoll()
        self._poll.register(self._wake_read, select.EPOLLIN)
        self._deadline: float | None = None
        while True:
            try:
                while self._new:
                    self._launch(multi, self._new.popleft())
                self._drive(multi)
                self._collect(multi)
                self._hand_back()
                if self._abort or (self._closing and not self._flights and not self._new):
                    break
            except Exception:
                # One request's trouble must not end all others'.
                _log.exception("outbound_failed")
        self._end_all(multi)
        self._hand_back()
        for handle in self._handles:
            handle.close()
        multi.close()
        self._poll.close()

    def _drive(self, multi: pycurl.CurlMulti) -> None:
        """Waits for sockets, timers and new requests, and lets libcurl do what can be done."""
        wait = -1.0
        if self._deadline is not None:
            wait = max(0.0, self._deadline - time.monotonic())
        self._asleep = True
        if self._new or self._ended:
            # Handed over between the last look and the line above, or refused before it was sent.
            wait = 0.0
        elif self._closing:
            wait = 0.01 if wait < 0 else min(wait, 0.01)
        try:
            ready = self._poll.poll(wait)
        finally:
            self._asleep = False
        for descriptor, mask in ready:
            if descriptor == self._wake_read:
                os.read(self._wake_read, 4096)
                continue
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

    def _watch(self, what: int, descriptor: int, _multi: Any, _data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            with suppress(OSError, ValueError):
                self._poll.unregister(descriptor)
            return
        mask = 0
        if what & pycurl.POLL_IN:
            mask |= select.EPOLLIN
        if what & pycurl.POLL_OUT:
            mask |= select.EPOLLOUT
        try:
            self._poll.modify(descriptor, mask)
        except FileNotFoundError:
            self._poll.register(descriptor, mask)

    def _set_timer(self, wait_ms: int) -> None:
        self._deadline = None if wait_ms < 0 else time.monotonic() + wait_ms / 1000

    def _launch(self, multi: pycurl.CurlMulti, flight: _Flight) -> None:
        flight.started = time.monotonic()
        problem = _unsendable(flight.request)
        if problem is not None:
            self._end(flight, NoResponse(problem, final=True), None)
            return
        try:
            handle = self._handles.pop() if self._handles else self._new_handle()
            self._prepare(handle, flight)
            multi.add_handle(handle)
        except Exception as error:
            # The handle is let go with whatever state it has.
            _log.debug("request_refused", exc_info=True)
            self._end(flight, NoResponse(f"EINVAL: {error}", final=True), None)
            return
        self._flights[handle] = flight

    def _new_handle(self) -> pycurl.Curl:
        handle = pycurl.Curl()
        set_option = handle.setopt
        set_option(pycurl.NOSIGNAL, 1)
        set_option(pycurl.FOLLOWLOCATION, 0)
        set_option(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        set_option(pycurl.PROXY, self._proxy)
        if not self._proxy:
            set_option(pycurl.NOPROXY, "*")
        set_option(pycurl.CONNECTTIMEOUT_MS, int(CONNECT_TIMEOUT_S * 1000))
        set_option(pycurl.TIMEOUT_MS, self._timeout_ms)
        set_option(pycurl.TCP_NODELAY, 1)
        set_option(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
        set_option(pycurl.HTTP09_ALLOWED, 0)
        set_option(pycurl.DNS_CACHE_TIMEOUT, 30)
        return handle

    def _prepare(self, handle: pycurl.Curl, flight: _Flight) -> None:
        request = flight.request
        set_option = handle.setopt
        set_option(pycurl.URL, request.url)
        set_option(pycurl.HTTPHEADER, _header_lines(request))
        if request.body is None:
            if request.method == "HEAD":
                set_option(pycurl.NOBODY, 1)
            elif request.method in ("POST", "PUT", "PATCH"):
                set_option(pycurl.NOBODY, 0)
                set_option(pycurl.POST, 1)
                set_option(pycurl.POSTFIELDS, b"")
            else:
                set_option(pycurl.NOBODY, 0)
                set_option(pycurl.HTTPGET, 1)
        else:
            set_option(pycurl.NOBODY, 0)
            set_option(pycurl.POST, 1)
            set_option(pycurl.POSTFIELDS, request.body)
        set_option(pycurl.CUSTOMREQUEST, request.method)
        set_option(pycurl.SSL_VERIFYPEER, int(request.verify_tls))
        set_option(pycurl.SSL_VERIFYHOST, 2 if request.verify_tls else 0)
        set_option(pycurl.HEADERFUNCTION, flight.take_header)
        set_option(pycurl.WRITEFUNCTION, flight.take_body)
        if not self._proxy:
            set_option(pycurl.OPENSOCKETFUNCTION, partial(self._open, flight))

    def _open(self, flight: _Flight, _purpose: int, address: Any) -> Any:
        family, kind, protocol, target = address
        host = target[0] if isinstance(target, tuple) else ""
        if isinstance(host, bytes):
            host = host.decode()
        if family not in (socket.AF_INET, socket.AF_INET6) or not self._guard.permits(host):
            flight.forbidden = host or "a local socket"
            return pycurl.SOCKET_BAD
        return _LentSocket(family, kind, protocol)

    def _collect(self, multi: pycurl.CurlMulti) -> None:
        while True:
            queued, succeeded, failed = multi.info_read()
            for handle in succeeded:
                self._landed(multi, handle, None)
            for handle, code, text in failed:
                self._landed(multi, handle, (code, text))
            if not queued:
                return

    def _landed(self, multi: pycurl.CurlMulti, handle: pycurl.Curl, error: tuple[int, str] | None) -> None:
        flight = self._flights.pop(handle)
        multi.remove_handle(handle)
        address = handle.getinfo(pycurl.PRIMARY_IP) or None
        reply: Response | NoResponse
        if error is None or (flight.cut and error[0] == pycurl.E_WRITE_ERROR):
            status = handle.getinfo(pycurl.RESPONSE_CODE)
            reply = Response(status, tuple(flight.headers), b"".join(flight.body), flight.length)
        else:
            reply = _problem(flight, handle, *error)
        if len(self._handles) < MAX_IDLE_HANDLES:
            self._handles.append(handle)
        else:
            handle.close()
        self._end(flight, reply, address)

    def _end_all(self, multi: pycurl.CurlMulti) -> None:
        for handle, flight in list(self._flights.items()):
            multi.remove_handle(handle)
            handle.close()
            self._end(flight, NoResponse(CLOSED), None)
        self._flights.clear()
        while self._new:
            flight = self._new.popleft()
            flight.started = time.monotonic()
            self._end(flight, NoResponse(CLOSED), None)

    def _end(self, flight: _Flight, reply: Response | NoResponse, address: str | None) -> None:
        duration = int((time.monotonic() - flight.started) * 1000)
        self._ended.append((flight, Exchange(flight.request, reply, flight.started_at, duration, address)))

    def _hand_back(self) -> None:
        if self._ended:
            ended, self._ended = self._ended, []
            self._loop.call_soon_threadsafe(_tell, ended)


def _tell(ended: list[tuple[_Flight, Exchange]]) -> None:
    for flight, exchange in ended:
        try:
            flight.done(exchange)
        except Exception:
            _log.exception("reply_not_taken")


def _unsendable(request: Request) -> str | None:
    """Why a request can't be sent at all, if so."""
    if request.method not in METHODS:
        return f"EINVAL: the method {request.method[:20]!r} is not supported"
    if not request.url.isascii() or len(request.url) > MAX_URL_BYTES:
        return "EINVAL: the URL is too long or not percent-encoded"
    if request.url[:8].lower() != "https://" and request.url[:7].lower() != "http://":
        return "EINVAL: the URL doesn't begin with http:// or https://"
    if any(character <= " " or character == "\x7f" for character in request.url):
        return "EINVAL: the URL holds blanks or control characters"
    for name, value in request.headers:
        if not name or any(character in name + value for character in "\r\n\0"):
            return f"EINVAL: the header {name[:40]!r} is empty or holds a line break"
    return None


def _header_lines(request: Request) -> list[bytes]:
    lines: list[bytes] = []
    given: set[str] = set()
    for name, value in request.headers:
        lower = name.lower()
        given.add(lower)
        if lower in _OWN:
            continue
        # `Name;` is libcurl's way to send an empty header.
        lines.append((f"{name}: {value}" if value else f"{name};").encode("utf-8"))
    lines += [f"{name}:".encode() for name in _UNWANTED if name.lower() not in given]
    if "content-type" not in given:
        lines.append(b"Content-Type:")
    return lines


def _problem(flight: _Flight, handle: pycurl.Curl, code: int, text: str) -> NoResponse:
    if flight.forbidden is not None:
        return NoResponse(f"EFORBIDDEN: the address {flight.forbidden} is not allowed; see outbound_allow", final=True)
    connected = handle.getinfo(pycurl.CONNECT_TIME) > 0
    match code:
        case pycurl.E_OPERATION_TIMEDOUT:
            return NoResponse("ESOCKETTIMEDOUT" if connected else "ETIMEDOUT")
        case pycurl.E_COULDNT_RESOLVE_HOST:
            return NoResponse("ENOTFOUND")
        case pycurl.E_COULDNT_CONNECT:
            number = handle.getinfo(pycurl.OS_ERRNO)
            return NoResponse(_ERRNO.get(number, "ECONNREFUSED"))
        case pycurl.E_RECV_ERROR | pycurl.E_SEND_ERROR | pycurl.E_GOT_NOTHING | pycurl.E_PARTIAL_FILE:
            return NoResponse("read ECONNRESET")
        case pycurl.E_URL_MALFORMAT:
            return NoResponse("EINVAL: the URL can't be used", final=True)
        case pycurl.E_WRITE_ERROR:
            return NoResponse("EPROTO: too many or too long headers")
        case _ if code in _CERTIFICATE_ERRORS:
            return NoResponse(f"certificate: {text}")
        case _:
            return NoResponse(f"EPROTO: {text}")


_ERRNO = {101: "ENETUNREACH", 110: "ETIMEDOUT", 111: "ECONNREFUSED", 113: "EHOSTUNREACH"}
