"""Event data between wire and log (integrations.md, section 7; device-protocol.md, section 8)."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.protocols.deviceos import reference_cbor
from wirechamber.protocols.deviceos.cbor import NotCbor, NotJson, cbor_to_json, json_to_cbor
from wirechamber.protocols.deviceos.content import Content, Form, data_url, read_data_url, to_content, to_device

PLAIN, BINARY, CBOR, BOTH = (False, False), (True, False), (False, True), (True, True)
BUFFERS, BUFFER = b"\x40", '{"_type":"buffer","_data":""}'
MANY = b"\x99\x3e\x80" + BUFFERS * 16_000
STRUCTURED = bytes.fromhex("a361610161626374776f6163f5")


@pytest.mark.parametrize(
    ("payload", "content_format", "content"),
    [
        (b"hello", None, Content("hello", "text/plain")),
        (b"hello", 0, Content("hello", "text/plain")),
        (b"", None, Content(None, "text/plain")),
        (b"caf\xe9", None, Content("caf\N{REPLACEMENT CHARACTER}", "text/plain")),
        (b'{"k":1}', 50, Content('{"k":1}', "application/json")),
        (b"<x/>", 41, Content("<x/>", "application/xml")),
        (b"</x>", 40, Content("</x>", "application/link-format")),
        (b"\0\1\2", 42, Content("data:application/octet-stream;base64,AAEC", "application/octet-stream")),
        (b"", 42, Content("data:application/octet-stream;base64,", "application/octet-stream")),
        (b"\xff\xd8", 22, Content("data:image/jpeg;base64,/9g=", "image/jpeg")),
        (b"\x89PNG", 23, Content("data:image/png;base64,iVBORw==", "image/png")),
        (b"\0", 47, Content("data:application/exi;base64,AA==", "application/exi")),
        (b"\0", 4711, Content("data:application/octet-stream;base64,AA==", "application/octet-stream")),
        (STRUCTURED, 65001, Content('{"a":1,"b":"two","c":true}', "application/json")),
        (STRUCTURED, 60, Content(data_url(STRUCTURED, "application/cbor"), "application/cbor")),
        # It says that it is structured, and is not.
        (b"\xff", 65001, Content("data:application/cbor;base64,/w==", "application/cbor")),
        (b"", 65001, Content("data:application/cbor;base64,", "application/cbor")),
        # Each byte of it is 30 characters of JSON: half a megabyte, where 16 KB are an event.
        (MANY, 65001, Content(data_url(MANY, "application/cbor"), "application/cbor")),
        (b"\x98\x64" + BUFFERS * 100, 65001, Content(f"[{','.join([BUFFER] * 100)}]", "application/json")),
    ],
)
def test_to_the_log(payload: bytes, content_format: int | None, content: Content) -> None:
    assert to_content(payload, content_format) == content


@pytest.mark.parametrize(
    ("data", "mime", "wanted", "forms"),
    [
        ("hi", "text/plain", [PLAIN], [Form(b"hi")]),
        (None, "text/plain", [PLAIN], [Form(b"")]),
        ("hi", "text/plain", [BINARY], [Form(b"hi")]),
        # A CBOR handler gets nothing but CBOR: what text says, if it is JSON, or else the text.
        ("hi", "text/plain", [CBOR], [Form(b"\x62hi", 60)]),
        (None, "text/plain", [CBOR], [Form(b"\x60", 60)]),
        ('{"k":1}', "text/plain", [CBOR], [Form(b"\xa1ak\1", 60)]),
        ('{"a":123,"b":"testing"}', "text/plain", [CBOR], [Form(b"\xa2aa\x18\x7babgtesting", 60)]),
        ("-1.5", "text/plain", [CBOR], [Form(b"\xf9\xbe\0", 60)]),
        (" true ", "text/plain", [CBOR], [Form(b"\xf5", 60)]),
        ("NaN", "text/plain", [CBOR], [Form(b"\x63NaN", 60)]),
        ("{", "application/json", [CBOR], [Form(b"\x61{", 60)]),
        ("[" * 40 + "]" * 40, "text/plain", [CBOR], [Form(b"\x78\x50" + b"[" * 40 + b"]" * 40, 60)]),
        ("<x/>", "application/xml", [CBOR], [Form(b"\x64<x/>", 60)]),
        ("half \ud800", "text/plain", [CBOR], [Form(b"\x66half ?", 60)]),
        ("hi", "text/plain", [], []),
        ("hi", "text/plain; charset=utf-8", [PLAIN, BINARY, CBOR], [Form(b"hi"), Form(b"\x62hi", 60)]),
        ('{"k":1}', "text/plain", [PLAIN, CBOR], [Form(b'{"k":1}'), Form(b"\xa1ak\1", 60)]),
        ('{"k":1}', "text/plain", [BINARY, CBOR], [Form(b"\xa1ak\1", 60)]),
        ("hi", "text/html", [PLAIN], [Form(b"hi")]),
        # By the API bytes are published as a data URL. A plain handler takes that as text, as it always did.
        ("data:image/png;base64,AAEC", "text/plain", [PLAIN], [Form(b"data:image/png;base64,AAEC")]),
        ("data:image/png;base64,AAEC", "text/plain", [BINARY], [Form(b"\0\1\2", 23)]),
        ("data:application/octet-stream;base64,AAEC", "text/plain", [BINARY], [Form(b"\0\1\2", 42)]),
        ("data:application/octet-stream;base64,AAEC", "text/plain", [CBOR], [Form(b"\x43\0\1\2", 60)]),
        (
            "data:application/octet-stream;base64,AAEC",
            "text/plain",
            [PLAIN, BINARY],
            [Form(b"data:application/octet-stream;base64,AAEC"), Form(b"\0\1\2", 42)],
        ),
        # The first part of a longer one, which could be read by itself.
        ("data:image/png;base64,AAEC", "text/plain; part", [BINARY], [Form(b"data:image/png;base64,AAEC")]),
        ("123", "text/plain; part", [CBOR], [Form(b"\x63123", 60)]),
        # It looks like a data URL, and is none.
        ("data:image/png;base64,@", "text/plain", [BINARY], [Form(b"data:image/png;base64,@")]),
        ('{"k":1}', "application/json", [PLAIN], [Form(b'{"k":1}', 50)]),
        ('{"k":1}', "application/json", [BINARY], [Form(b'{"k":1}', 50)]),
        ('{"k":1}', "application/json", [CBOR], [Form(b"\xa1ak\1", 60)]),
        ('{"k":1}', "application/json", [BOTH], [Form(b"\xa1ak\1", 60)]),
        ('{"k":1}', "application/json", [PLAIN, CBOR], [Form(b'{"k":1}', 50), Form(b"\xa1ak\1", 60)]),
        ('{"k":1}', "application/json", [BINARY, CBOR], [Form(b"\xa1ak\1", 60)]),
        ("{", "application/json", [BINARY, CBOR], [Form(b"{", 50), Form(b"\x61{", 60)]),
        ("data:application/octet-stream;base64,AAEC", "application/octet-stream", [BINARY], [Form(b"\0\1\2", 42)]),
        # A plain handler would not be called.
        ("data:application/octet-stream;base64,AAEC", "application/octet-stream", [PLAIN], []),
        (
            "data:application/octet-stream;base64,AAEC",
            "application/octet-stream",
            [PLAIN, CBOR],
            [Form(b"\x43\0\1\2", 60)],
        ),
        ("data:image/png;base64,AAEC", "image/png", [BINARY, CBOR], [Form(b"\0\1\2", 23), Form(b"\x43\0\1\2", 60)]),
        ("data:application/cbor;base64,AA==", "application/cbor", [BINARY, CBOR], [Form(b"\0", 60)]),
        ("data:image/png;base64,AAEC", "image/png", [PLAIN, BINARY], [Form(b"\0\1\2", 23)]),
        ("data:video/mp4;base64,AAEC", "video/mp4", [BINARY], [Form(b"\0\1\2", 42)]),
        ("data:application/cbor;base64,AA==", "application/cbor", [CBOR], [Form(b"\0", 60)]),
        ("data:application/cbor;base64,AA==", "application/cbor", [BINARY], [Form(b"\0", 60)]),
        # No data URL after all.
        ("not so", "image/png", [PLAIN], [Form(b"not so", 23)]),
    ],
)
def test_to_devices(data: str | None, mime: str, wanted: list[tuple[bool, bool]], forms: list[Form]) -> None:
    assert list(to_device(data, mime, wanted)) == forms


@pytest.mark.parametrize("data", ["hi", '{"k":1}', "data:image/png;base64,AAEC"])
def test_devices_before_6_2_get_text(data: str) -> None:
    assert to_device(data, "application/json", [PLAIN], accepts_types=False) == (Form(data.encode()),)


def test_what_a_device_publishes_reaches_others_as_it_was() -> None:
    for payload, content_format in ((b"\0\1", 42), (b"\xff", 22), (b"{}", 50), (b"x", None)):
        content = to_content(payload, content_format)
        assert to_device(content.data, content.mime, [BINARY]) == (Form(payload, content_format),)
    # 65001 would be acknowledged and not delivered, so it becomes 60.
    content = to_content(STRUCTURED, 65001)
    assert to_device(content.data, content.mime, [CBOR]) == (Form(STRUCTURED, 60),)


@given(st.binary(max_size=100))
def test_data_urls(payload: bytes) -> None:
    assert read_data_url(data_url(payload, "image/png")) == (payload, "image/png")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("data:;base64,AA==", (b"\0", "text/plain")),
        ("data:text/plain;charset=utf-8;base64,AA==", (b"\0", "text/plain")),
        ("data:text/plain,hello", None),
        ("data:image/png;base64,A", None),
        ("data:image/png;base64,ÄÄ==", None),
        ("no data", None),
    ],
)
def test_data_urls_of_others(text: str, found: tuple[bytes, str] | None) -> None:
    assert read_data_url(text) == found


# --- CBOR ---

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_json_survives_cbor(value: object) -> None:
    back = json.loads(cbor_to_json(json_to_cbor(json.dumps(value))))
    assert back == value
    assert repr(back) == repr(value)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        # RFC 8949, appendix A.
        ("00", "0"), ("17", "23"), ("1818", "24"), ("1903e8", "1000"), ("1a000f4240", "1000000"),
        ("1bffffffffffffffff", "18446744073709551615"), ("20", "-1"), ("3bffffffffffffffff", "-18446744073709551616"),
        ("f90000", "0.0"), ("f98000", "-0.0"), ("f93c00", "1.0"), ("f97bff", "65504.0"), ("fa47c35000", "100000.0"),
        ("fb3ff199999999999a", "1.1"), ("f4", "false"), ("f5", "true"), ("f6", "null"), ("60", '""'),
        ("6161", '"a"'), ("62c3bc", '"ü"'), ("80", "[]"), ("83010203", "[1,2,3]"),
        ("8301820203820405", "[1,[2,3],[4,5]]"),
        ("a0", "{}"), ("a26161016162820203", '{"a":1,"b":[2,3]}'),
    ],
)  # fmt: skip
def test_items_both_ways(data: str, text: str) -> None:
    assert cbor_to_json(bytes.fromhex(data)) == text
    assert json_to_cbor(text).hex() == data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("f7", "null"),
        ("f97e00", "null"),
        ("fb7ff0000000000000", "null"),
        ("c074323031332d30332d32315432303a30343a30305a", '"2013-03-21T20:04:00Z"'),
        ("c11a514b67b0", "1363896240"),
        ("4401020304", '{"_type":"buffer","_data":"AQIDBA=="}'),
        ("5f42010243030405ff", '{"_type":"buffer","_data":"AQIDBAU="}'),
        ("7f657374726561646d696e67ff", '"streaming"'),
        ("9fff", "[]"),
        ("9f018202039f0405ffff", "[1,[2,3],[4,5]]"),
        ("bf61610161629f0203ffff", '{"a":1,"b":[2,3]}'),
        ("a201020304", '{"1":2,"3":4}'),
    ],
)
def test_items_that_json_says_otherwise(data: str, text: str) -> None:
    assert cbor_to_json(bytes.fromhex(data)) == text


@pytest.mark.parametrize(
    "data",
    [
        "", "18", "1901", "ff", "1f", "3f", "df", "1c", "fc", "f0", "f8ff", "fe", "0000", "41", "5f", "5f41",
        "5f6161ff", "5f5fffff", "62c328", "81", "9a7fffffff00", "9f", "81ff", "a1", "a161", "a1ff00", "a16161ff",
        "bf6161ff", "bf6161", "a1f500", "a1f93c0000", "fb00", "c0", "ba7fffffff", "5bffffffffffffffff00",
        "81" * 40 + "00",
        "c0" * 40 + "00",
        # Announced and never sent: nothing is reserved for it.
        "9bffffffffffffffff", "bb7fffffffffffffff", "7bffffffffffffffff", "5b7fffffffffffffff",
        # Deep in whatever: also in keys, in tags of shared values, without an end.
        "81" * 60_000, "9f" * 60_000, "a100" * 30_000, "bf00" * 30_000, "a181" * 30_000, "d81c81" * 20_000,
        "c6" * 60_000,
        # A character that is spread over pieces (RFC 8949, section 3.2.3), a tag of nothing.
        "7f61c361a9ff", "9fc1ff",
        "a14161", "a18001", "a1a001", "a1f601", "f818",
    ],
)  # fmt: skip
def test_bytes_that_are_no_cbor(data: str) -> None:
    with pytest.raises(NotCbor):
        cbor_to_json(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        # What others make dates, huge and decimal numbers, shared values and cycles of, is read over.
        ("c249010000000000000000", '{"_type":"buffer","_data":"AQAAAAAAAAAA"}'),
        ("c4821b7fffffffffffffff01", "[9223372036854775807,1]"),
        ("c5821b000000ffffffffff01", "[1099511627775,1]"),
        ("d81c81d81d00", "[0]"), ("82d81c80d81d00", "[[],0]"),
        ("d9010082616100", '["a",0]'), ("d9010282 0101", "[1,1]"),
        ("d82350" + "28" * 16, '{"_type":"buffer","_data":"KCgoKCgoKCgoKCgoKCgoKA=="}'),
        ("d90104447f000001", '{"_type":"buffer","_data":"fwAAAQ=="}'), ("d9d9f7a16161d8640a", '{"a":10}'),
        ("dbffffffffffffffffa1616181f97c00", '{"a":[null]}'), ("a1c6616101", '{"a":1}'),
        # The last of several members of one name counts, in the first one's place.
        ("a3616101616202616103", '{"a":3,"b":2}'), ("a20161616131 6162", '{"1":"b"}'),
    ],
)  # fmt: skip
def test_hostile_items(data: str, text: str) -> None:
    assert cbor_to_json(bytes.fromhex(data)) == text


def head(major: int, value: int) -> bytes:
    """A head in its shortest form."""
    if value < 24:
        return bytes((major << 5 | value,))
    info = next(info for info in range(4) if value < 1 << (8 << info))
    return bytes((major << 5 | 24 + info,)) + value.to_bytes(1 << info, "big")


SCALARS = (
    st.integers(0, (1 << 64) - 1).map(lambda value: head(0, value))
    | st.integers(0, (1 << 64) - 1).map(lambda value: head(1, value))
    | st.sampled_from(
        [b"\xf4", b"\xf5", b"\xf6", b"\xf7", b"\xe0", b"\xf8\xff", b"\x7f\x61a\x61b\xff", b"\x5f\x41a\xff"]
    )
    | st.binary(min_size=2, max_size=2).map(lambda raw: b"\xf9" + raw)
    | st.binary(min_size=8, max_size=8).map(lambda raw: b"\xfb" + raw)
    | st.text(max_size=4).map(
        lambda text: head(3, len(text.encode("utf-8", "replace"))) + text.encode("utf-8", "replace")
    )
    | st.binary(max_size=4).map(lambda raw: head(2, len(raw)) + raw)
)
TAGS = st.sampled_from(
    [0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799]
)


def _maps(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    keys = st.integers(0, 999).map(lambda value: head(3, len(str(value))) + str(value).encode()) | inner
    return st.lists(st.tuples(keys, inner), max_size=4, unique_by=lambda pair: pair[0]).map(
        lambda pairs: head(5, len(pairs)) + b"".join(map(b"".join, pairs))
    )


ITEMS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: head(4, len(items)) + b"".join(items))
        | st.lists(inner, max_size=4).map(lambda items: b"\x9f" + b"".join(items) + b"\xff")
        | _maps(inner)
        | st.tuples(TAGS | st.integers(0, 1 << 63), inner).map(lambda pair: head(6, pair[0]) + pair[1])
    ),
    max_leaves=10,
)


@given(ITEMS, st.none() | st.tuples(st.integers(0, 200), st.integers(0, 255)))
@example(bytes.fromhex("a20180f580"), None)
def test_items_are_read_as_the_rfc_has_them(data: bytes, change: tuple[int, int] | None) -> None:
    if change is not None and data:
        at = change[0] % len(data)
        data = data[:at] + bytes((change[1],)) + data[at + 1 :]
    try:
        text = reference_cbor.cbor_to_json(data)
    except reference_cbor.NotCbor:
        # Python's keys 1 and True are one, and a value that JSON has not may be replaced by a later one of its name.
        with suppress(NotCbor):
            json.loads(cbor_to_json(data))
        return
    assert cbor_to_json(data) == text


@pytest.mark.parametrize("tag", [*range(300), 1004, 43000, 55799, 61166, 1 << 40])
def test_no_tag_has_a_meaning(tag: int) -> None:
    for data in (b"\x61a", b"\x82\x01\x02", b"\x40", b"\xa1\x61a\xa0", b"\0"):
        assert cbor_to_json(head(6, tag) + data) == cbor_to_json(data)


def test_byte_strings_in_json() -> None:
    assert json_to_cbor('{"_type":"buffer","_data":"AQID"}').hex() == "43010203"
    # Something that only looks like one.
    for text in ('{"_type":"buffer","_data":"?"}', '{"_type":"buffer","_data":1}', '{"_type":"buffer"}'):
        assert json.loads(cbor_to_json(json_to_cbor(text))) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    ["", "{", "nope", "[" * 40 + "]" * 40, "[" * 100_000, "1" * 400, "1" * 5000, "-" + "9" * 400, "NaN", "[Infinity]"],
)
def test_text_that_can_not_be_said(text: str) -> None:
    with pytest.raises(NotJson):
        json_to_cbor(text)


def test_large_numbers_become_floats() -> None:
    assert cbor_to_json(json_to_cbor(str(1 << 70))) == str(float(1 << 70))
    assert cbor_to_json(json_to_cbor("[1e400]")) == "[null]"


def test_half_a_character_is_replaced() -> None:
    assert cbor_to_json(json_to_cbor('"\\ud800"')) == '"?"'


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_not(data: bytes) -> None:
    try:
        text = cbor_to_json(data)
    except NotCbor:
        return
    json.loads(text)


@given(st.binary(max_size=40), st.none() | st.integers(0, 0xFFFF) | st.sampled_from([0, 22, 42, 50, 60, 65001]))
def test_any_payload_has_a_place_in_the_log(payload: bytes, content_format: int | None) -> None:
    content = to_content(payload, content_format)
    if content.data is not None:
        content.data.encode()
        to_device(content.data, content.mime, [PLAIN, BINARY, CBOR])
