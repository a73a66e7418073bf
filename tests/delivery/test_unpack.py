"""Content codings of answers, undone within bounds."""

from __future__ import annotations

import gzip
import zlib

import pytest

from wirechamber.delivery.unpack import MAX_LAYERS, MAX_MEMBERS, unpacked
from wirechamber.integrations.base import Response

TEXT = b'{"t":21.5}' * 50


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def said(body: bytes, *codings: str, length: int | None = None) -> Response:
    headers = (("Content-Type", "application/json"), *(("content-ENCODING", coding) for coding in codings))
    return unpacked(Response(200, headers, body, len(body) if length is None else length), 100_000)


@pytest.mark.parametrize(
    ("body", "codings"),
    [
        (gzip.compress(TEXT), ("gzip",)),
        (gzip.compress(TEXT), ("GZIP",)),
        (gzip.compress(TEXT), ("x-gzip",)),
        (zlib.compress(TEXT), ("deflate",)),
        (raw_deflate(TEXT), ("deflate",)),
        (gzip.compress(zlib.compress(TEXT)), ("deflate, gzip",)),
        (gzip.compress(zlib.compress(TEXT)), ("deflate", "gzip")),
        (gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:]), ("gzip",)),
        (gzip.compress(TEXT) + b"\0\0\0", ("gzip",)),
        (TEXT, ("identity",)),
        # Mistakes of targets: a header that something in between left, and words that are no coding.
        (TEXT, ("gzip",)),
        (TEXT, ("deflate",)),
        (TEXT, ("br",)),
        (TEXT, ("zstd",)),
        # They say the one and send the other, or say it once for two, or not at all.
        (gzip.compress(TEXT), ("deflate",)),
        (zlib.compress(TEXT), ("gzip",)),
        (gzip.compress(gzip.compress(TEXT)), ("gzip",)),
        (gzip.compress(gzip.compress(TEXT)), ()),
        (gzip.compress(TEXT), ()),
        (gzip.compress(TEXT), ("identity",)),
        (TEXT, ("utf-8",)),
        (TEXT, ("application/json",)),
        (TEXT, ("",)),
    ],
)
def test_an_answer_comes_without_its_codings(body: bytes, codings: tuple[str, ...]) -> None:
    reply = said(body, *codings)
    assert (reply.body, reply.cut, reply.unreadable) == (TEXT, False, "")


@pytest.mark.parametrize(
    ("body", "codings", "why"),
    [
        (b"\x0b\x02\x80", ("br",), "br"),
        (b"(\xb5/\xfd", ("zstd",), "zstd"),
        (gzip.compress(TEXT)[:-20], ("gzip",), "can't be unpacked"),
        (gzip.compress(TEXT)[:20] + b"x" * 40, ("gzip",), "can't be unpacked"),
        (b"no zlib\xff", ("deflate",), "can't be unpacked"),
        (gzip.compress(TEXT), ("gzip",) * (MAX_LAYERS + 1), "layers"),
        (gzip.compress(b"") * (MAX_MEMBERS + 1), ("gzip",), "can't be unpacked"),
    ],
)
def test_what_can_t_be_undone_is_told_and_never_shown(body: bytes, codings: tuple[str, ...], why: str) -> None:
    reply = said(body, *codings)
    assert reply.body == b""
    assert why in reply.unreadable


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_bomb_fills_the_room_and_no_more(layers: int) -> None:
    body = b"a" * 20_000_000
    for _ in range(layers):
        body = gzip.compress(body)
    reply = said(body, *("gzip",) * layers)
    assert reply.body == b"a" * 100_000
    assert reply.cut


def test_of_an_answer_that_was_cut_comes_what_there_is() -> None:
    body = gzip.compress(bytes(range(256)) * 10 + TEXT)
    reply = said(body[:150], "gzip", length=200)
    assert reply.body == (bytes(range(256)) * 10)[: len(reply.body)] != b""
    assert reply.cut


def test_an_answer_without_codings_is_the_same_object() -> None:
    reply = Response(200, (("Content-Type", "text/plain"),), b"x", 1)
    assert unpacked(reply, 100) is reply


@pytest.mark.parametrize("codings", [(), ("gzip",)])
def test_a_file_that_is_packed_stays_so(codings: tuple[str, ...]) -> None:
    file = gzip.compress(TEXT)
    headers = (("Content-Type", "application/gzip"), *(("Content-Encoding", coding) for coding in codings))
    body = gzip.compress(file) if codings else file
    assert unpacked(Response(200, headers, body, len(body)), 100_000).body == file


def test_a_bomb_that_is_not_told_fills_the_room_and_no_more() -> None:
    body = gzip.compress(gzip.compress(b"a" * 20_000_000))
    reply = said(body)
    assert reply.body == b"a" * 100_000
    assert reply.cut
