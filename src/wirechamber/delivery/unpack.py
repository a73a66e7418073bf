"""Undoes the content codings of answers (RFC 9110, section 8.4): none is asked for, and some targets send one anyway.

What comes out is bounded as what comes in is, layer by layer: a byte of gzip can stand for a thousand.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterable

from msgspec import structs

from wirechamber.delivery.flight import Exchange
from wirechamber.integrations.base import MAX_ANSWER_BYTES, NoResponse, Response

# Layers of codings; more than two are met in attacks only.
MAX_LAYERS = 4
# Members of one gzip file, each of which takes some microseconds however little it holds.
MAX_MEMBERS = 100
# Of the IANA registry, those that Python can't undo. What is not in it, such as `utf-8`, is a target's mistake: its
# answer is as it would be without.
_OTHERS = frozenset(("br", "zstd", "dcb", "dcz", "compress", "x-compress", "exi", "pack200-gzip"))
_HEADER = "content-encoding"
_LENGTH = len(_HEADER)
_GZIP = b"\x1f\x8b"
# RFC 9110, section 8.4.1.2: some send "deflate" without its wrapper.
_GZIPPED, _DEFLATED = (16 + zlib.MAX_WBITS,), (zlib.MAX_WBITS, -zlib.MAX_WBITS)
# The headers of zlib (RFC 1950, section 2.2).
_ZLIB = (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")
# Types of which no text begins as gzip does: where one does, whoever packed it did not say so, or not how often.
_TEXTS = re.compile(r"\s*(?:text/|[^;]{1,60}(?:json|xml|javascript|csv|yaml|urlencoded))", re.IGNORECASE)
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")


def taken_in(exchange: Exchange) -> Exchange:
    """The exchange, its answer without content codings."""
    reply = exchange.reply
    if isinstance(reply, NoResponse):
        return exchange
    plain = unpacked(reply, exchange.request.answer_bytes)
    return exchange if plain is reply else structs.replace(exchange, reply=plain)


def takes_long(exchange: Exchange) -> bool:
    """Whether so much came, or may come out of it, that others should not wait while it is looked at."""
    if exchange.request.answer_bytes <= MAX_ANSWER_BYTES or isinstance(exchange.reply, NoResponse):
        return False
    reply = exchange.reply
    if len(reply.body) > MAX_ANSWER_BYTES or reply.body.startswith(_GZIP):
        return True
    return reply.body != b"" and reply.header("Content-Encoding") is not None


def is_large(exchange: Exchange) -> bool:
    """Whether its answer takes a place for large ones."""
    return isinstance(exchange.reply, Response) and len(exchange.reply.body) > MAX_ANSWER_BYTES


def shortened(exchange: Exchange) -> Exchange:
    """The exchange, its answer cut to what needs no place."""
    reply = exchange.reply
    assert isinstance(reply, Response)
    return structs.replace(exchange, reply=structs.replace(reply, body=reply.body[:MAX_ANSWER_BYTES]))


class _Unreadable(Exception):
    """A coding that can't be undone; the text says why."""


def unpacked(reply: Response, most: int) -> Response:
    """The response without its content codings; the same object where there are none.

    Args:
        most: So many bytes are kept of what comes out.
    """
    said = [value for name, value in reply.headers if len(name) == _LENGTH and name.lower() == _HEADER]
    if not reply.body or not (said or reply.body.startswith(_GZIP)):
        return reply
    codings = [coding.strip().lower() for value in said for coding in value.split(",")]
    data, cut = reply.body, reply.cut
    try:
        if len(codings) > MAX_LAYERS:
            raise _Unreadable(f"its Content-Encoding has more than {MAX_LAYERS} layers")
        # The last one was applied last.
        for coding in reversed(codings):
            data, cut = _undone(coding, data, most, cut)
        for _ in range(MAX_LAYERS - len(codings)):
            if not data.startswith(_GZIP) or not _TEXTS.match(reply.header("Content-Type") or ""):
                break
            data, cut = _undone("gzip", data, most, cut)
    except _Unreadable as problem:
        return structs.replace(reply, body=b"", length=0, unreadable=str(problem))
    if data is reply.body:
        return reply
    return structs.replace(reply, body=data, length=len(data) + cut)


def _undone(coding: str, data: bytes, most: int, cut: bool) -> tuple[bytes, bool]:
    """What is behind one coding, and whether it is only the beginning of it.

    Raises:
        _Unreadable: It can't be told.
    """
    if coding in ("gzip", "x-gzip", "deflate"):
        # Some say the one and send the other.
        if data.startswith(_GZIP):
            return _inflated(data, _GZIPPED, most, cut)
        if coding == "deflate" or data.startswith(_ZLIB):
            return _inflated(data, _DEFLATED, most, cut)
        return data, cut
    if coding in _OTHERS and not _is_text(data, cut):
        raise _Unreadable(f"its Content-Encoding is {coding}, which was not asked for and can't be undone here")
    return data, cut


def _is_text(data: bytes, cut: bool) -> bool:
    """Whether it is none of what compressed bytes hold: a proxy undid the coding, and left the header."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, not cut)
    except UnicodeDecodeError:
        return False
    return _CONTROL.search(data) is None


def _inflated(data: bytes, forms: Iterable[int], most: int, cut: bool) -> tuple[bytes, bool]:
    for form in forms:
        try:
            return _members(data, form, most, cut)
        except zlib.error:
            continue
    if _is_text(data, cut):
        return data, cut
    raise _Unreadable("its Content-Encoding says that it is compressed, and it can't be unpacked")


def _members(data: bytes, form: int, most: int, cut: bool) -> tuple[bytes, bool]:
    """One after the other (RFC 1952, section 2.2); what follows them and is none is left out."""
    pieces: list[bytes] = []
    left = most
    for _ in range(MAX_MEMBERS):
        reader = zlib.decompressobj(form)
        # One byte more than is kept, to know whether there is more.
        piece = reader.decompress(data, left + 1)
        pieces.append(piece[:left])
        if len(piece) > left:
            return b"".join(pieces), True
        left -= len(piece)
        if not reader.eof:
            if not cut:
                raise zlib.error("incomplete")
            return b"".join(pieces), True
        data = reader.unused_data
        if not data.startswith(_GZIP) or form not in _GZIPPED:
            return b"".join(pieces), cut
    raise zlib.error("too many members")
