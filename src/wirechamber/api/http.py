"""Reading requests and writing answers, the same for every route (cloud-api.md, section 1; clients.md, section 3)."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from wirechamber.errors import BadInput, CloudError, InvalidToken, TooLarge
from wirechamber.services.access import Grant, require

if TYPE_CHECKING:
    from wirechamber.api.parts import Parts

# The largest body that any route takes: an integration's configuration with its templates.
MAX_BODY_BYTES = 1024 * 1024
# A client that sends its body slower than this is cut off.
BODY_TIMEOUT_S = 30.0
MAX_FORM_FIELDS = 500
MAX_FORM_DEPTH = 8
MAX_JSON_DEPTH = 64

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

COMMON_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "X-Request-Id, X-Total-Count, Wirechamber-Stream-Start",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
NO_TOKEN = "The access token was not found"  # noqa: S105
BAD_TOKEN = "The access token provided is invalid."  # noqa: S105


@dataclass(slots=True)
class Call:
    """One request being answered.

    Attributes:
        grant: What the caller may do; set on every route that is not for anyone.
        secret: The token that it came with.
    """

    request: web.Request
    parts: Parts
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
            self._body = await read_body(self.request)
        return self._body

    def scheme(self) -> str:
        """`http` or `https` as the client sees it; a proxy's word counts as in `address`."""
        told = self.request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower()
        if told in ("http", "https") and _within(self.request.remote or "", self.parts.trusted_proxies):
            return told
        return self.request.scheme

    def address(self) -> str:
        """The client's address; a proxy's word counts only from networks that a setting trusts."""
        return client_address(self.request, self.parts.trusted_proxies)


def client_address(request: web.Request, trusted: tuple[Any, ...]) -> str:
    """The address that the request comes from.

    Args:
        trusted: Networks of reverse proxies; the last address of X-Forwarded-For that is none of them is the client.
    """
    address = request.remote or ""
    if not trusted:
        return address
    hops = [hop.strip() for value in request.headers.getall("X-Forwarded-For", ()) for hop in value.split(",")]
    while hops and _within(address, trusted):
        address = hops.pop()
    return address


def _within(address: str, networks: tuple[Any, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks if network.version == found.version)


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


async def read_body(request: web.Request) -> dict[str, Any]:
    """The body as an object."""
    if request.content_type == "multipart/form-data":
        return await _multipart(request)
    try:
        if request.content.is_eof():
            # It came with the headers, as small ones do: nothing to wait for, so no timer either.
            raw = await request.read()
        else:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes") from None
    except TimeoutError:
        raise SlowBody("the body did not arrive in time") from None
    except web.RequestPayloadError:
        raise BadInput("the body can't be read: it is cut off, or not compressed as Content-Encoding says") from None
    if not raw:
        return {}
    # Clients do send JSON without saying so, and forms too: the first character tells.
    if raw.lstrip()[:1] in (b"{", b"[", b'"'):
        return json_object(raw)
    if request.content_type == "application/json":
        raise BadInput("the body must be a JSON object")
    return form_object(raw)


class SlowBody(CloudError):
    """The body did not arrive in time."""

    status = 408
    code = "timed out"


def json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BadInput: The text is none, or nested too deeply.
    """
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise BadInput(f"the body is no valid JSON: {problem}") from None
    except RecursionError:
        raise BadInput("the body is nested too deeply") from None
    if not isinstance(value, dict):
        raise BadInput("the body must be a JSON object")
    return value


def form_object(raw: bytes) -> dict[str, Any]:
    """A form's fields; `a[b]=c` is an object in an object.

    Raises:
        BadInput: It is no form, or has too many fields.
    """
    try:
        pairs = parse_qsl(
            raw.decode(), keep_blank_values=True, strict_parsing=False, errors="strict", max_num_fields=MAX_FORM_FIELDS
        )
    except UnicodeDecodeError:
        raise BadInput("the body is no valid UTF-8") from None
    except ValueError:
        raise BadInput(f"the form has more than {MAX_FORM_FIELDS} fields, or is none") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        _nest(found, name, value)
    return found


def _nest(into: dict[str, Any], name: str, value: str) -> None:
    first, bracket, rest = name.partition("[")
    if not bracket or not rest.endswith("]") or not first:
        into[name] = value
        return
    parts = [first, *rest[:-1].split("][")]
    if len(parts) > MAX_FORM_DEPTH:
        raise BadInput(f"the form's names are nested more than {MAX_FORM_DEPTH} deep")
    for part in parts[:-1]:
        inner = into.setdefault(part, {})
        if not isinstance(inner, dict):
            raise BadInput(f"the form gives {part!r} both as a text and as an object")
        into = inner
    into[parts[-1]] = value


async def _multipart(request: web.Request) -> dict[str, Any]:
    try:
        fields = await asyncio.wait_for(request.post(), BODY_TIMEOUT_S)
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes") from None
    except TimeoutError:
        raise SlowBody("the body did not arrive in time") from None
    except (ValueError, LookupError, RuntimeError, HttpProcessingError, web.RequestPayloadError):
        # What aiohttp raises for broken framing, unknown charsets and transfer encodings, broken headers of a part.
        raise BadInput("the multipart body can't be read") from None
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=_encode(value),
        status=status,
        headers=COMMON_HEADERS if headers is None else {**COMMON_HEADERS, **headers},
        content_type="application/json",
        charset="utf-8",
    )


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
