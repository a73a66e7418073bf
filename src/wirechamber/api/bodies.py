"""Request bodies: how much is read, and what is made of it. Everything is bounded before it is worked on."""

from __future__ import annotations

import asyncio
import re
from codecs import BOM_UTF8
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from wirechamber.errors import BadInput, CloudError, TooLarge
from wirechamber.jsontext import trouble

# The largest body that any route takes: an integration's configuration with its templates.
MAX_BODY_BYTES = 1024 * 1024
# The largest that is read of somebody who has not yet shown who they are, such as one whose token is in the form.
MAX_UNKNOWN_BYTES = 128 * 1024
# A client that sends its body slower than this is cut off.
BODY_TIMEOUT_S = 30.0
MAX_FORM_FIELDS = 500
MAX_FORM_DEPTH = 8
# Decoding is one call that nothing can interrupt: an escape costs 0.3 µs, an object or list up to as much.
MAX_FORM_ESCAPES = 100_000
MAX_JSON_BRACKETS = 100_000
# Of one part of a multipart body.
MAX_PART_HEADERS_BYTES = 4_096
# Characters of a header that are looked through for parameters.
MAX_PARAMETERS = 512
# What the texts of a multipart body may be written in. Python knows others that take time by the square of the length.
CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
    "windows-1252": "cp1252",
}

_decode = msgspec.json.Decoder().decode
_PARAMETER = re.compile(r';\s*([\w!#$&+.^`|~*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')


class SlowBody(CloudError):
    """The body did not arrive in time."""

    status = 408
    code = "timed out"


class Form(dict[str, Any]):
    """The texts of a multipart form by name.

    Attributes:
        files: Names of its parts that are files, which are left out.
    """

    files: tuple[str, ...] = ()


class Encoded(CloudError):
    """The body is compressed, or encoded in another way than as it is (RFC 9110, section 15.5.16)."""

    status = 415
    code = "unsupported_media_type"


def check_encoding(request: web.Request) -> None:
    """Refuses a body that would have to be unpacked: no client of ours sends one, and 1 KB may unpack to 1 MB.

    Raises:
        Encoded: It says that it is encoded.
    """
    if "Content-Encoding" in request.headers and request.body_exists:
        named = request.headers.getall("Content-Encoding")
        codings = {coding.strip().lower() for value in named for coding in value.split(",")}
        if codings - {"identity", ""}:
            raise Encoded("send the body as it is: no Content-Encoding is taken")


async def read_body(request: web.Request, limit: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """The body as an object, from JSON or a form alike; empty when there is none.

    Args:
        limit: Bytes that are read at most.

    Raises:
        BadInput, TooLarge, SlowBody: It can't be taken.
    """
    # A byte order mark, as some editors write it into files that are then sent (RFC 8259, section 8.1).
    raw = (await _bytes_of(request, limit)).removeprefix(BOM_UTF8)
    if not raw:
        return {}
    told = request.headers.get("Content-Type", "")
    # aiohttp's `content_type` reads all parameters, as e-mail has them: 8 KB of semicolons take most of a second.
    kind = told.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return multipart_object(raw, told)
    # Clients do send JSON without saying so, and forms too: the first character tells.
    if raw.lstrip()[:1] in (b"{", b"[", b'"'):
        return json_object(raw)
    if kind == "application/json":
        raise BadInput("the body must be a JSON object")
    return form_object(raw)


async def _bytes_of(request: web.Request, limit: int) -> bytes:
    content = request.content
    if (request.content_length or 0) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes")
    try:
        if content.is_eof():
            # It came with the headers, as small ones do: nothing to wait for, so no timer either.
            found = await content.readany()
        else:
            gathered = bytearray()
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while len(gathered) <= limit and (part := await content.readany()):
                    gathered += part
            found = bytes(gathered)
    except TimeoutError:
        raise SlowBody("the body did not arrive in time") from None
    except web.RequestPayloadError:
        raise BadInput("the body can't be read: it is cut off, or its chunks are none") from None
    if len(found) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes")
    return found


def json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BadInput: The text is none, is nested too deeply, or has too many objects and lists.
    """
    if len(raw) > MAX_JSON_BRACKETS and raw.count(b"{") + raw.count(b"[") > MAX_JSON_BRACKETS:
        raise BadInput(f"the body has more than {MAX_JSON_BRACKETS} opening brackets")
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise BadInput(f"the body is no valid JSON: {trouble(raw, problem)}") from None
    except RecursionError:
        raise BadInput("the body is nested too deeply") from None
    if not isinstance(value, dict):
        raise BadInput("the body must be a JSON object")
    return value


def form_object(raw: bytes) -> dict[str, Any]:
    """A form's fields; `a[b]=c` is an object in an object, and `a[]=c`, or `a[0]=c`, the first item of a list.

    Raises:
        BadInput: It is no form, or has too many fields or escapes.
    """
    if len(raw) > MAX_FORM_ESCAPES and raw.count(b"%") > MAX_FORM_ESCAPES:
        raise BadInput(f"the form has more than {MAX_FORM_ESCAPES} escapes; send JSON")
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
    return _with_lists(found)


def _with_lists(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields in place, objects whose names count from 0 as lists."""
    for name, value in fields.items():
        if isinstance(value, dict):
            inner = _with_lists(value)
            counted = all(given == str(number) for number, given in enumerate(inner))
            fields[name] = list(inner.values()) if counted else inner
    return fields


def _nest(into: dict[str, Any], name: str, value: str) -> None:
    first, bracket, rest = name.partition("[")
    if not bracket or not rest.endswith("]") or not first:
        into[name] = value
        return
    parts = [first, *rest[:-1].split("][", MAX_FORM_DEPTH)]
    if len(parts) > MAX_FORM_DEPTH:
        raise BadInput(f"the form's names are nested more than {MAX_FORM_DEPTH} deep")
    for part in parts[:-1]:
        inner = into.setdefault(part or str(len(into)), {})
        if not isinstance(inner, dict):
            raise BadInput(f"the form gives {part!r} both as a text and as an object")
        into = inner
    into[parts[-1] or str(len(into))] = value


def multipart_object(raw: bytes, content_type: str) -> Form:
    """The texts of a multipart form (RFC 7578) by name; of files only that there are some.

    Args:
        content_type: The header's value, which says what stands between the parts (RFC 2046, section 5.1.1).

    Raises:
        BadInput: It is none, has too many parts, or one that is encoded.
    """
    boundary = _parameters(content_type).get("boundary", "").encode("latin-1", "replace")
    if not 0 < len(boundary) <= 70:
        raise BadInput("the multipart body can't be read: its boundary is missing")
    _, *parts = (b"\r\n" + raw).split(b"\r\n--" + boundary, MAX_FORM_FIELDS + 2)
    if len(parts) > MAX_FORM_FIELDS + 1:
        raise BadInput(f"the form has more than {MAX_FORM_FIELDS} fields")
    if not parts or not parts[-1].startswith(b"--"):
        raise BadInput("the multipart body can't be read: it has no end")
    found = Form()
    for part in parts[:-1]:
        head, blank, content = part.partition(b"\r\n\r\n")
        if not blank or len(head) > MAX_PART_HEADERS_BYTES or not head.startswith(b"\r\n"):
            raise BadInput("the multipart body can't be read: a part has no good headers")
        name, charset = _field_of(head)
        if charset is None:
            found.files += (name,)
            continue
        try:
            text = content.decode(CHARSETS[charset.lower()])
        except (KeyError, ValueError):
            raise BadInput(f"the multipart body can't be read: {name[:40]!r} is no text in {charset[:40]}") from None
        _nest(found, name, text)
    _with_lists(found)
    return found


def _field_of(head: bytes) -> tuple[str, str | None]:
    """Name and charset of a part, from its headers; no charset for a file."""
    headers: dict[str, str] = {}
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if not colon or not name.strip():
            raise BadInput("the multipart body can't be read: a part has no good headers")
        headers[name.strip().lower()] = value.strip()
    if headers.get("content-transfer-encoding", "binary").lower() not in ("7bit", "8bit", "binary"):
        # RFC 7578, section 4.7: senders should not use it.
        raise BadInput("the multipart body can't be read: send its parts as they are")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Encoded("send the parts of the body as they are: no Content-Encoding is taken")
    kind = headers.get("content-type", "text/plain")
    if kind.lower().startswith("multipart/"):
        raise BadInput("the multipart body can't be read: a part has parts")
    disposition = headers.get("content-disposition", "")
    parameters = _parameters(disposition)
    if disposition.partition(";")[0].strip().lower() != "form-data" or "name" not in parameters:
        raise BadInput("the multipart body can't be read: a part has no name")
    if "filename" in parameters or "filename*" in parameters:
        return parameters["name"], None
    return parameters["name"], _parameters(kind).get("charset", "utf-8")


def _parameters(value: str) -> dict[str, str]:
    found = {}
    for name, quoted, token in _PARAMETER.findall(value[:MAX_PARAMETERS]):
        found[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted else token
    return found
