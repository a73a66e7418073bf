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


class Codes:
    """What pycurl does not name of CURLcode."""

    WEIRD_SERVER_REPLY = 8
    HTTP2_STREAM = 92
    TOO_LARGE = 100


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
    """What an error of libcurl's means, in the words that Node's clients use where they have any.

    Args:
        forbidden: The address that the guard refused, if it did.
    """
    if forbidden is not None:
        return NoResponse(f"EFORBIDDEN: the address {forbidden} is not allowed; see outbound_allow", final=True)
    # It may quote the target, whose bytes need not be text.
    text = text.encode("utf-8", "replace").decode()
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
        case pycurl.E_URL_MALFORMAT:
            return NoResponse("EINVAL: the URL can't be used", final=True)
        case pycurl.E_WRITE_ERROR | Codes.TOO_LARGE:
            return NoResponse("EPROTO: too many or too long headers")
        case _ if code in _CERTIFICATE_ERRORS:
            return NoResponse(f"certificate: {text or 'the chain can not be checked'}")
    for sign, words in _TLS_SIGNS:
        if sign in text:
            return NoResponse(words)
    match code:
        case pycurl.E_RECV_ERROR | pycurl.E_SEND_ERROR | pycurl.E_GOT_NOTHING | pycurl.E_PARTIAL_FILE:
            return NoResponse("read ECONNRESET")
        case pycurl.E_HTTP2 | Codes.HTTP2_STREAM:
            return NoResponse(f"EPROTO: {_http2(text)}")
        case pycurl.E_SSL_CONNECT_ERROR:
            return NoResponse(f"EPROTO: no TLS connection: {text or 'the target ended it without a reason'}")
        case pycurl.E_UNSUPPORTED_PROTOCOL | Codes.WEIRD_SERVER_REPLY:
            return NoResponse(f"EPROTO: the target's answer is no HTTP{f' ({text})' if text else ''}")
    return NoResponse(f"EPROTO: {text or f'error {code} of libcurl, which it does not explain'}")


def _http2(text: str) -> str:
    """The end of a stream or connection, with the name of the reason where one was given (RFC 9113, section 7)."""
    found = _HTTP2_REASON.search(text)
    reason = "" if found is None else f" ({found[1]})"
    if "ENHANCE_YOUR_CALM" in reason:
        return "the target wants fewer requests and ended this one (HTTP/2 ENHANCE_YOUR_CALM)"
    if "nghttp2" in text:
        return f"the target does not speak proper HTTP/2{reason}"
    if "by server" in text:
        return f"the target broke this request off by HTTP/2{reason}"
    if "before getting all response header" in text:
        return "the target ended this request without an answer (HTTP/2)"
    if found is not None or not text:
        return f"the target closed the HTTP/2 connection before it had answered{reason}"
    return text


_ERRNO = {101: "ENETUNREACH", 110: "ETIMEDOUT", 111: "ECONNREFUSED", 113: "EHOSTUNREACH"}
WANTS_CERTIFICATE = "certificate: the target wants a client certificate; integrations have none"
_HTTP2_REASON = re.compile(r"(?:error 0x[0-9a-f]+ |error \d+: |cleanly: )([A-Z0-9_]+)")
# What OpenSSL says of the target's alerts (RFC 8446, section 6.2), and what that means for people.
_TLS_SIGNS = (
    ("alert certificate required", WANTS_CERTIFICATE),
    ("alert bad certificate", WANTS_CERTIFICATE),
    (
        "alert handshake failure",
        "EPROTO: the target refused the TLS handshake: no cipher in common, or it wants a client certificate, which "
        "integrations don't have",
    ),
    ("alert protocol version", "EPROTO: the target knows no version of TLS that is secure today"),
    ("unsupported protocol", "EPROTO: the target knows no version of TLS that is secure today"),
    ("unrecognized name", "EPROTO: the target does not know the host name (TLS)"),
    ("wrong version number", "EPROTO: the target does not speak TLS on this port; is http:// meant?"),
    ("packet length too long", "EPROTO: the target does not speak TLS on this port; is http:// meant?"),
    ("unexpected eof while reading", "read ECONNRESET"),
)
