"""Event data between its form on the wire and its form in the log (integrations.md, section 7).

In the log data is text with a MIME type: text stays text, structured data is JSON, everything else is a data URL.
What a device gets depends on what it subscribed to (device-protocol.md, section 8, delivery rules).
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator

from msgspec import Struct

from wirechamber.protocols.deviceos.cbor import (
    NotCbor,
    NotJson,
    bytes_to_cbor,
    cbor_to_json,
    json_to_cbor,
    text_to_cbor,
)
from wirechamber.protocols.deviceos.messages import ContentFormat

TEXT = "text/plain"
JSON = "application/json"
CBOR = "application/cbor"
OCTET_STREAM = "application/octet-stream"

_TEXTS: dict[int | None, str] = {
    None: TEXT,
    ContentFormat.TEXT: TEXT,
    ContentFormat.LINK_FORMAT: "application/link-format",
    ContentFormat.XML: "application/xml",
    ContentFormat.JSON: JSON,
}
_BINARIES: dict[int, str] = {
    ContentFormat.JPEG: "image/jpeg",
    ContentFormat.PNG: "image/png",
    ContentFormat.OCTET_STREAM: OCTET_STREAM,
    ContentFormat.EXI: "application/exi",
    ContentFormat.CBOR: CBOR,
}
_FORMATS: dict[str, int] = {mime: int(number) for number, mime in _TEXTS.items() if number} | {
    mime: int(number) for number, mime in _BINARIES.items()
}
# Characters of the JSON that CBOR becomes, and how many times as long as the CBOR it may be beyond that.
MAX_JSON = 16_384
LONGER = 4

_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^;,]*)*;base64,", re.ASCII)


class Content(Struct, frozen=True, gc=False):
    """Event data as the log has it.

    Attributes:
        data: None: nothing was said.
        mime: Its MIME type.
    """

    data: str | None
    mime: str


class Form(Struct, frozen=True, gc=False):
    """Event data as a message has it.

    Attributes:
        content_format: None: the message has no such option.
    """

    payload: bytes
    content_format: int | None = None


def to_content(payload: bytes, content_format: int | None) -> Content:
    """What a device published, for the log."""
    mime = _TEXTS.get(content_format)
    if mime is not None:
        # Text that is no UTF-8 is text all the same: firmware does not check it.
        return Content(payload.decode("utf-8", "replace") if payload else None, mime)
    if content_format == ContentFormat.JSON_AS_CBOR:
        try:
            text = cbor_to_json(payload)
        except NotCbor:
            text = ""
        # An empty byte string is one byte of CBOR and thirty of JSON.
        if not text or len(text) > max(MAX_JSON, LONGER * len(payload)):
            return Content(data_url(payload, CBOR), CBOR)
        return Content(text, JSON)
    mime = _BINARIES.get(content_format or 0, OCTET_STREAM)
    return Content(data_url(payload, mime), mime)


def data_url(payload: bytes, mime: str) -> str:
    """Bytes as text (RFC 2397)."""
    return f"data:{mime};base64,{b64encode(payload).decode()}"


def read_data_url(text: str) -> tuple[bytes, str] | None:
    """The bytes and the MIME type in a data URL; None if it is none of the Base64 kind."""
    match = _DATA_URL.match(text)
    if match is None:
        return None
    try:
        return b64decode(text[match.end() :], validate=True), match[1] or TEXT
    except ValueError:
        return None


def to_device(
    data: str | None, mime: str, wanted: Iterable[tuple[bool, bool]], *, accepts_types: bool = True
) -> tuple[Form, ...]:
    """The messages by which an event reaches those handlers of a device that want it: mostly one, or none.

    A plain handler is given text only, one for binary data everything, and one for CBOR nothing but CBOR; so an event
    may have to be sent twice. The device finds its handlers by itself. For CBOR, text that is JSON becomes what it
    says, other text a CBOR text, and bytes a byte string, so that there is nothing which such a handler does not get.
    Text that is a data URL stands for its bytes, except to a plain handler.

    Args:
        data: As in the log.
        mime: As in the log; parameters may follow it. `part` says that the text is cut from a longer one.
        wanted: For each subscription that matches: whether it is for binary data, and whether for CBOR.
        accepts_types: The firmware is 6.2 or later. Older ones know no content formats: they get all as text.
    """
    text = data or ""
    kinds = set(wanted)
    if not kinds:
        return ()
    if not accepts_types:
        return (Form(text.encode("utf-8", "replace")),)
    mime, _, parameter = (part.strip().lower() for part in mime.partition(";"))
    plain = (False, False) in kinds
    binary = any(is_binary for is_binary, _ in kinds)
    cbor = any(is_cbor for _, is_cbor in kinds)
    is_part = parameter == "part"
    raw = None if is_part else read_data_url(text)
    if raw is not None:
        # Whoever publishes by the API, and firmware before 6.2, can say bytes in no other way than as text.
        as_text = plain and mime.startswith("text/")
        return (*((Form(text.encode()),) if as_text else ()), *_of_bytes(*raw, binary=binary, cbor=cbor))
    structured = _structured(text) if cbor and not is_part else None
    forms = []
    # A handler for binary data takes either, so it is content with the CBOR if that says the same.
    if plain or (binary and structured is None):
        forms.append(Form(text.encode("utf-8", "replace"), _FORMATS.get(mime)))
    if cbor:
        forms.append(structured or Form(text_to_cbor(text), int(ContentFormat.CBOR)))
    return tuple(forms)


def _of_bytes(payload: bytes, mime: str, *, binary: bool, cbor: bool) -> Iterator[Form]:
    content_format = _FORMATS.get(mime.lower(), int(ContentFormat.OCTET_STREAM))
    is_cbor = content_format == ContentFormat.CBOR
    if binary or (cbor and is_cbor):
        yield Form(payload, content_format)
    if cbor and not is_cbor:
        yield Form(bytes_to_cbor(payload), int(ContentFormat.CBOR))


def _structured(text: str) -> Form | None:
    try:
        return Form(json_to_cbor(text), int(ContentFormat.CBOR))
    except NotJson:
        return None
