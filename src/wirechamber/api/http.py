"""Reading requests and writing answers, the same for every route (cloud-api.md, section 1; clients.md, section 3)."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec
import structlog
from aiohttp import HttpVersion11, web

from wirechamber import SERVER_NAME
from wirechamber.api.bodies import MAX_BODY_BYTES, MAX_UNKNOWN_BYTES, read_body
from wirechamber.errors import BadInput, CloudError, InvalidToken
from wirechamber.hosts import with_port
from wirechamber.observe.logs import Seldom
from wirechamber.services.access import Grant, require
from wirechamber.shares import bare_address

if TYPE_CHECKING:
    from wirechamber.api.connection import HttpConnection
    from wirechamber.api.parts import Parts

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The same proxy comes again and again.
_log = structlog.get_logger("wirechamber.api")
_seldom = Seldom(_log, every_s=3600.0)
encoded = msgspec.json.Encoder().encode
JSON = {"Content-Type": "application/json; charset=utf-8"}

# Names what is ignored of a request's query. Nothing is refused for it: some clients add parameters of their own
# everywhere.
UNKNOWN = "Wirechamber-Unknown-Parameters"
COMMON_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": f"X-Request-Id, X-Total-Count, Wirechamber-Stream-Start, {UNKNOWN}",
    "Cache-Control": "no-store",
    # Which versions of what serve it is nobody's business.
    "Server": SERVER_NAME,
    "X-Content-Type-Options": "nosniff",
}
# What proxies add to a request.
FORWARDED = ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP")
NO_TOKEN = "The access token was not found"  # noqa: S105


@dataclass(slots=True)
class Call:
    """One request being answered.

    Attributes:
        unknown: Names of the query that mean nothing to the route, as one line.
        grant: What the caller may do; set on every route that is not for anyone.
        secret: The token that it came with.
    """

    request: web.Request
    parts: Parts
    unknown: str = ""
    grant: Grant | None = None
    secret: str = ""
    _body: dict[str, Any] | None = None

    @property
    def caller(self) -> Grant:
        """The caller of a route that is not for anyone."""
        assert self.grant is not None
        return self.grant

    @property
    def owner(self) -> str:
        """Id of the user who calls."""
        return self.caller.user

    @property
    def connection(self) -> HttpConnection:
        """The connection that it came on."""
        return cast("HttpConnection", self.request.protocol)

    def path(self, name: str) -> str:
        """A part of the path, decoded."""
        return self.request.match_info[name]

    def query(self, name: str) -> str | None:
        """A parameter of the query; None when absent or empty."""
        return self.request.query.get(name) or None

    def number(self, name: str, *spellings: str) -> int | None:
        """A positive whole number of the query.

        Raises:
            BadInput: It is something else.
        """
        for spelling in (name, *spellings):
            text = self.query(spelling)
            if text is not None:
                if text.isascii() and text.isdigit() and 0 < int(text[:10]) < 10**9:
                    return int(text)
                raise BadInput(f"{spelling} must be a whole number from 1 on")
        return None

    async def body(self) -> dict[str, Any]:
        """The body as an object, from JSON or a form alike; empty when there is none.

        Raises:
            BadInput, TooLarge: It can't be taken.
        """
        if self._body is None:
            self._body = await read_body(self.request, MAX_BODY_BYTES if self.grant else MAX_UNKNOWN_BYTES)
        return self._body

    def scheme(self) -> str:
        """`http` or `https` as the client sees it; a proxy's word counts as in `address`."""
        told = self.request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower()
        if told in ("http", "https") and within(self.request.remote or "", self.parts.trusted_proxies):
            return told
        return self.request.scheme

    def host(self) -> str:
        """By what the client calls this cloud; the address that it reached where it does not say, as it need not in
        HTTP/1.0."""
        told = self.request.headers.get("Host")
        reached = None if self.request.transport is None else self.request.transport.get_extra_info("sockname")
        if told or not reached:
            return told or ""
        return with_port(*reached[:2])

    def address(self) -> str:
        """The client's address; a proxy's word counts only from networks that a setting trusts."""
        return client_address(self.request, self.parts.trusted_proxies)


def client_address(request: web.Request, trusted: tuple[Network, ...]) -> str:
    """The address that the request comes from, without port, brackets or zone.

    Args:
        trusted: Networks of reverse proxies; the last address of X-Forwarded-For that is none of them is the client.
    """
    address = request.remote or ""
    if not trusted:
        return address
    hops = [hop for value in request.headers.getall("X-Forwarded-For", ()) for hop in value.split(",")]
    while hops and within(address, trusted):
        hop = bare_address(hops.pop())
        if not hop:
            # No address: whoever has sent it counts for the proxy that lets it pass.
            break
        address = hop
    return address


def is_local(call: Call) -> bool:
    """Whether the request was made on this machine, and not only handed on by it.

    A proxy on this machine is told by what it adds: X-Forwarded-For, whose word counts where the proxy is trusted, or
    Forwarded (RFC 7239), Via (RFC 9110, section 7.6.3) or X-Real-IP.
    """
    request, trusted = call.request, call.parts.trusted_proxies
    if not _is_loopback(call.address()):
        return False
    headers = request.headers
    forwarded = next((name for name in FORWARDED if name in headers), None)
    if forwarded is None:
        return True
    if within(request.remote or "", trusted) and _is_loopback(headers.get("X-Forwarded-For", "").rpartition(",")[2]):
        return True
    _seldom.warning(
        "forwarded_by_an_untrusted_proxy",
        why=f"a request from this machine came with {forwarded}; name the proxy in WIRECHAMBER_TRUSTED_PROXIES, and"
        " let it send X-Forwarded-For",
    )
    return False


def within(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address is in one of the networks."""
    if not networks:
        return False
    try:
        found = ipaddress.ip_address(bare_address(address))
    except ValueError:
        return False
    return any(found in network for network in networks if network.version == found.version)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(bare_address(address)).is_loopback
    except ValueError:
        return False


async def authorise(call: Call, scope: str | None) -> None:
    """Finds the caller's token, in whichever way it comes, and checks its scope.

    Raises:
        BadInput: There is none, or more than one.
        InvalidToken, Forbidden: It is not good, or not good enough.
    """
    request = call.request
    found: list[str] = []
    header = request.headers.get("Authorization")
    if header is not None and header[:7].lower() == "bearer " and header[7:].strip():
        found.append(header[7:].strip())
    in_query = request.query.get("access_token") if "access_token" in request.rel_url.raw_query_string else None
    if in_query:
        found.append(in_query)
    if not found and request.method != "GET" and request.can_read_body:
        in_form = (await call.body()).pop("access_token", None)
        if isinstance(in_form, str):
            found.append(in_form)
    if not found:
        raise BadInput(NO_TOKEN)
    if len(found) > 1:
        raise BadInput("send the token in one way only: header, query or form")
    access = call.parts.access
    grant = access.cached(found[0]) or await access.authorise(found[0])
    require(grant, scope)
    call.grant = grant
    call.secret = found[0]


def basic_credentials(request: web.Request) -> tuple[str, str] | None:
    """User and password of HTTP Basic (RFC 7617), or None."""
    header = request.headers.get("Authorization", "")
    if header[:6].lower() != "basic ":
        return None
    try:
        user, colon, password = base64.b64decode(header[6:], validate=True).decode().partition(":")
    except ValueError:
        # No Base64, or no UTF-8 in it; or the header itself holds something else than ASCII.
        return None
    return (user, password) if colon else None


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=encoded(value),
        status=status,
        headers=COMMON_HEADERS if headers is None else {**COMMON_HEADERS, **headers},
        content_type="application/json",
        charset="utf-8",
    )


async def listing(
    call: Call,
    slices: AsyncIterator[list[Any]],
    *,
    opening: bytes = b"[",
    closing: Callable[[], bytes] = lambda: b"]",
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """A JSON answer with a list of any length, sent as it is made: what waits for a slow client is a slice.

    A list of one slice is an ordinary answer. When it can't be gone on with, the connection is cut, so nobody takes
    what has come for all.
    """
    async with contextlib.aclosing(slices):  # type: ignore[type-var]
        first = await _next(slices) or []
        second = await _next(slices)
        if second is None or call.request.method == "HEAD":
            body = opening + encoded(first)[1:-1] + closing()
            return web.Response(body=body, headers={**COMMON_HEADERS, **JSON, **(headers or {})})
        response = web.StreamResponse(headers={**COMMON_HEADERS, **JSON, **(headers or {})})
        if call.unknown:
            response.headers[UNKNOWN] = call.unknown
        call.connection.streams_answer()
        has_no_length(call.request, response)
        await response.prepare(call.request)
        try:
            await response.write(opening + encoded(first)[1:-1])
            empty = not first
            some: list[Any] | None = second
            while some is not None:
                if some:
                    await response.write((b"" if empty else b",") + encoded(some)[1:-1])
                    empty = False
                some = await _next(slices)
            await response.write(closing())
        except ConnectionError:
            raise
        except Exception:
            _log.exception("answer_broken_off")
            call.connection.abort()
        return response


def has_no_length(request: web.Request, response: web.StreamResponse) -> None:
    """Makes the end of an answer known whose length nobody knows before: by chunks, or where the client knows none
    by the connection's end, also to one that would keep it (RFC 9112, section 6.3)."""
    if request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    else:
        response.force_close()


async def _next(slices: AsyncIterator[list[Any]]) -> list[Any] | None:
    async for some in slices:
        return some
    return None


def no_content() -> web.Response:
    """204: done, and nothing to say."""
    return web.Response(status=204, headers=COMMON_HEADERS)


def refusal(problem: CloudError) -> web.Response:
    """The answer that tells about an error."""
    extra = dict(problem.extra)
    headers = {}
    if "retry_after" in extra:
        headers["Retry-After"] = str(extra["retry_after"])
    if isinstance(problem, InvalidToken):
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    return answer(problem.body(), problem.status, headers)
