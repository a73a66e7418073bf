"""Between a request and libcurl: what can be sent, how it is told, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pycurl

from wirechamber.integrations.base import NoResponse, Request

MAX_URL_BYTES = 16 * 1024
METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"})
_OWN = frozenset({"content-length", "transfer-encoding", "connection"})
# libcurl adds these unless told otherwise; a request has what its integration says.
_UNWANTED = ("Accept", "Expect", "User-Agent")
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_BREAK = re.compile(r"[\r\n\0]")
_CERTIFICATE_ERRORS = {pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_ISSUER_ERROR}


def set_shape(set_option: Callable[..., None], method: str, verify_tls: bool, bare: bool) -> None:
    """Tells a handle what kind of request it sends.

    Args:
        bare: Without a body.
    """
    set_option(pycurl.NOBODY, 0)
    if bare and method not in ("POST", "PUT", "PATCH"):
        set_option(pycurl.HTTPGET, 1)
        if method == "HEAD":
            set_option(pycurl.NOBODY, 1)
    else:
        set_option(pycurl.POST, 1)
        if bare:
            set_option(pycurl.POSTFIELDS, b"")
    set_option(pycurl.CUSTOMREQUEST, method)
    set_option(pycurl.SSL_VERIFYPEER, int(verify_tls))
    set_option(pycurl.SSL_VERIFYHOST, 2 if verify_tls else 0)


def unsendable(request: Request) -> str | None:
    """Why a request can't be sent at all, if so."""
    if request.method not in METHODS:
        return f"EINVAL: the method {request.method[:20]!r} is not supported"
    if not request.url.isascii() or len(request.url) > MAX_URL_BYTES:
        return "EINVAL: the URL is too long or not percent-encoded"
    if request.url[:8].lower() != "https://" and request.url[:7].lower() != "http://":
        return "EINVAL: the URL doesn't begin with http:// or https://"
    if _BLANK.search(request.url):
        return "EINVAL: the URL holds blanks or control characters"
    for name, value in request.headers:
        if not name or _BREAK.search(name) or _BREAK.search(value):
            return f"EINVAL: the header {name[:40]!r} is empty or holds a line break"
    return None


def header_lines(headers: Sequence[tuple[str, str]]) -> list[bytes]:
    """The headers as libcurl takes them, and what keeps it from adding its own."""
    lines: list[bytes] = []
    given: set[str] = set()
    for name, value in headers:
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


def problem_of(handle: pycurl.Curl, forbidden: str | None, code: int, text: str) -> NoResponse:
    """What an error of libcurl's means, in the words that Node's clients use.

    Args:
        forbidden: The address that the guard refused, if it did.
    """
    if forbidden is not None:
        return NoResponse(f"EFORBIDDEN: the address {forbidden} is not allowed; see outbound_allow", final=True)
    # On a connection that was kept open, connecting took no time.
    connected = handle.getinfo(pycurl.CONNECT_TIME) > 0 or handle.getinfo(pycurl.REQUEST_SIZE) > 0
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
