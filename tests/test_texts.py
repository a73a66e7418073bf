"""Which text some bytes are: by mark, by what the sender says, by what they say themselves."""

from __future__ import annotations

import codecs
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirechamber.texts import json_of, text_of

TEXT = '{"city":"Zürich","t":21.5}'


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (TEXT.encode(), None),
        (TEXT.encode(), "application/json"),
        (TEXT.encode(), "application/json; charset=UTF-8"),
        (TEXT.encode(), 'application/json; Charset="utf-8"'),
        (TEXT.encode("utf-8-sig"), None),
        # A mark goes before what is said.
        (TEXT.encode("utf-8-sig"), "application/json; charset=ISO-8859-1"),
        (codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"), "application/json; charset=utf-8"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), None),
        (codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"), None),
        (TEXT.encode("utf-16-le"), None),
        (TEXT.encode("utf-16-be"), "application/json"),
        (TEXT.encode("utf-32-be"), None),
        (TEXT.encode("utf-16-be"), "application/json; charset=utf-16be"),
        (TEXT.encode("latin-1"), "application/json;charset=ISO-8859-1"),
        (TEXT.encode("latin-1"), "text/plain; charset=windows-1252; x=y"),
        (TEXT.encode("cp1250"), "text/plain; charset=windows-1250"),
        (TEXT.encode("iso8859-15"), "text/plain; charset='iso-8859-15'"),
        # It does not say which byte comes first, and the text does.
        (TEXT.encode("utf-16-be"), "application/json; charset=utf-16"),
        (TEXT.encode("utf-16-le"), "application/json; charset=UTF-16"),
        (TEXT.encode("utf-32-be"), "application/json; charset=utf-32"),
        (TEXT.encode("utf-16-be"), "application/json; charset=ISO-10646-UCS-2"),
        # As some write it.
        (TEXT.encode(), "application/json; charset=utf_8"),
        (TEXT.encode("latin-1"), "application/json; charset=ISO_8859-1"),
        (TEXT.encode("latin-1"), "application/json; charset=ISO_8859-1:1987"),
        (TEXT.encode("latin-1"), "application/json; charset=iso8859_1"),
        (TEXT.encode("latin-1"), "application/json; charset=iso88591"),
        (TEXT.encode("latin-1"), "application/json; charset=csISOLatin1"),
        (TEXT.encode("latin-1"), "application/json; charset=x-cp1252"),
        (TEXT.encode("latin-1"), "application/json; charset=windows_1252"),
    ],
)
def test_the_same_text_in_every_encoding(data: bytes, content_type: str | None) -> None:
    assert text_of(data, content_type) == TEXT
    assert json_of(data, content_type) == json.loads(TEXT)


@pytest.mark.parametrize(
    ("text", "encoding", "label"),
    [
        ("温度 21", "gb18030", "GB2312"),
        ("温度", "shift_jis", "Shift_JIS"),
        ("температура", "koi8-r", "koi8-r"),
        ("온도", "euc-kr", "EUC-KR"),
    ],
)
def test_other_scripts(text: str, encoding: str, label: str) -> None:
    assert text_of(text.encode(encoding), f"text/html; charset={label}") == text


@pytest.mark.parametrize(
    "document",
    [
        '<?xml version="1.0" encoding="ISO-8859-1"?><city>Zürich</city>',
        '<!doctype html><html><META http-equiv="Content-Type" content="text/html; charset=iso-8859-1">Zürich',
        "<html><meta charset=windows-1252><p>Zürich",
    ],
)
def test_a_document_says_it_of_itself(document: str) -> None:
    assert text_of(document.encode("latin-1"), "text/html") == document
    # What its sender says goes before that.
    assert text_of(document.encode(), "text/html; charset=utf-8") == document


@pytest.mark.parametrize("label", ["zip", "hex", "rot13", "idna", "punycode", "unicode_escape", "utf-7", "made-up", ""])
def test_what_is_no_encoding_of_text_is_utf_8(label: str) -> None:
    assert text_of("Zürich".encode(), f"text/plain; charset={label}") == "Zürich"


def test_what_is_no_text_becomes_replacement_characters() -> None:
    assert text_of(b"Z\xfcrich") == "Z\ufffdrich"
    assert text_of(b"\xff\xfe") == "\ufffd\ufffd"
    assert text_of(b"\x81", "text/plain; charset=windows-1252") == "\ufffd"
    assert json_of(b'{"city":"Z\xfcrich"}') == {"city": "Z\ufffdrich"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-32-be", "gb18030"])
def test_of_a_text_that_was_cut_no_half_character_is_left(encoding: str) -> None:
    whole = "ab温"
    data = whole.encode(encoding)
    label = encoding.removesuffix("-le").replace("-be", "be")
    assert text_of(data[:-1], f"text/plain; charset={label}", cut=True) == "ab"


def test_null_is_a_value_and_nothing_is_none() -> None:
    assert json_of(b"null") is None
    assert json_of(b"\xef\xbb\xbf null ") is None
    for nothing in (b"", b" ", b"nul", b"<html>"):
        with pytest.raises(msgspec.DecodeError):
            json_of(nothing)


@given(data=st.binary(max_size=200), content_type=st.none() | st.text(max_size=60), cut=st.booleans())
def test_whatever_comes_is_some_text(data: bytes, content_type: str | None, cut: bool) -> None:
    found: Any = text_of(data, content_type, cut=cut)
    assert isinstance(found, str)


@pytest.mark.parametrize("encoding", ["utf-16le", "utf-16be", "utf-32le"])
def test_a_megabyte_of_mistakes_is_not_looked_at_one_by_one(encoding: str) -> None:
    half = "\ud800".encode(encoding, "surrogatepass")
    assert text_of(half * 300_000, f"text/plain; charset={encoding}") == "\N{REPLACEMENT CHARACTER}"
