"""Which text some bytes are: in the encoding that they, or whoever sent them, say."""

from __future__ import annotations

import codecs
import re
from functools import cache
from typing import Any

import msgspec

# Byte order marks (Unicode Standard, section 23.8); that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# A text in UTF-16 or UTF-32 without a mark begins with one of these, JSON at least (RFC 4627, section 3). Anything but
# a zero and a character that one can read or a blank is some other data.
_ZEROS = (
    (re.compile(rb"\0\0\0[\t\n\r -~]"), "utf-32-be"),
    (re.compile(rb"[\t\n\r -~]\0\0\0"), "utf-32-le"),
    (re.compile(rb"\0[\t\n\r -~]"), "utf-16-be"),
    (re.compile(rb"[\t\n\r -~]\0"), "utf-16-le"),
)
# The labels of the Encoding Standard (encoding.spec.whatwg.org, section 4.2) that are met outside of browsers. Others
# are not looked up: some of Python's codecs are no encodings of text, some take the square of the length, and Python
# remembers every name that it was asked for.
_LABELS: dict[str, str] = {
    "utf-8": "utf-8 unicode-1-1-utf-8",
    # Who says Latin-1 means this one, which has letters where the other has control characters.
    "cp1252": "iso-8859-1 iso-ir-100 isolatin1 latin1 l1 cp819 ibm819 us-ascii ascii windows-1252 cp1252 ansi",
    **{f"iso8859-{n}": f"iso-8859-{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)},
    **{f"cp{n}": f"windows-{n} cp{n}" for n in (1250, 1251, 1253, 1255, 1256, 1257, 1258)},
    "cp1254": "windows-1254 cp1254 iso-8859-9 latin5",
    "cp874": "windows-874 iso-8859-11 tis-620",
    "koi8-u": "koi8-r koi8-u",
    "mac-roman": "macintosh mac-roman",
    "cp866": "ibm866 cp866",
    "gb18030": "gb2312 gbk gb18030 cp936",
    "big5hkscs": "big5 big5-hkscs",
    "euc-jp": "euc-jp",
    "cp932": "shift-jis sjis windows-31j ms-kanji",
    "iso2022-jp": "iso-2022-jp",
    "cp949": "euc-kr ks-c-5601-1987 windows-949",
    "utf-16": "utf-16 ucs-2 iso-10646-ucs-2 unicode",
    "utf-16-le": "utf-16le ucs-2le",
    "utf-16-be": "utf-16be ucs-2be",
    "utf-32": "utf-32 ucs-4 iso-10646-ucs-4",
    "utf-32-le": "utf-32le",
    "utf-32-be": "utf-32be",
}
_UNREMARKABLE = re.compile(r"^(?:x[-_]|cs(?=iso|utf|unicode|shift|euc|ks|big|koi|windows))|:\d+$|[-_.]")


def _key(label: str) -> str:
    """A label without what is written in one way and in another: `ISO_8859-1:1987` is `iso-8859-1`."""
    return _UNREMARKABLE.sub("", label.lower())


_ENCODINGS = {_key(label): encoding for encoding, labels in _LABELS.items() for label in labels.split()}
# These do not say which of their bytes comes first: the text does; else the lower one.
_EITHER_ORDER = ("utf-16", "utf-32")
_SINGLE = frozenset(each for each in _ENCODINGS.values() if each.startswith(("cp12", "cp8", "iso8859", "koi8", "mac")))
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Bytes of UTF-16 in which each mistake is looked at: 0.5 µs for one.
_ONE_BY_ONE = 100_000
_CHARSET = re.compile(r";\s{0,8}charset\s{0,8}=\s{0,8}[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
# What a document says of itself, within so many bytes: XML (section 4.3.3 of XML 1.0) and HTML (section 4.2.5.4).
_SAYS_AT_MOST = 1_024
_XML = re.compile(rb"\s{0,64}<\?xml[^>]{1,200}?encoding\s{0,8}=\s{0,8}[\"']([A-Za-z0-9_.:-]{1,40})[\"']")
_META = re.compile(rb"<meta[^>]{1,200}?charset\s{0,8}=\s{0,8}[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)


def encoding_of(data: bytes, content_type: str | None = None) -> tuple[str, int]:
    """The encoding of a text, as a codec's name, and how many bytes its byte order mark takes.

    A mark goes before everything, then what the Content-Type says, then what the text says of itself; UTF-8 otherwise.
    """
    for mark, encoding in _MARKS:
        # A mark with nothing behind it marks nothing.
        if data.startswith(mark) and (encoding == "utf-8" or len(data) > len(mark)):
            return encoding, len(mark)
    said = _CHARSET.search(content_type) if content_type is not None and "charset" in content_type.lower() else None
    encoding = "" if said is None else _ENCODINGS.get(_key(said[1]), "")
    if encoding and encoding not in _EITHER_ORDER:
        return encoding, 0
    if b"\0" in data[:4]:
        seen = next((each for zeros, each in _ZEROS if zeros.match(data)), "utf-8")
        if seen.startswith(encoding):
            return seen, 0
    if encoding:
        return f"{encoding}-le", 0
    if said is None and b"<" in data[:64]:
        begin = data[:_SAYS_AT_MOST]
        found = _XML.match(begin) or _META.search(begin)
        if found is not None:
            encoding = _ENCODINGS.get(_key(found[1].decode()), "utf-8")
            # It was read as ASCII, so it is not one of those.
            return ("utf-8" if encoding.startswith(("utf-16", "utf-32")) else encoding), 0
    return "utf-8", 0


def is_plain(data: bytes) -> bool:
    """Whether bytes are the same text in whatever encoding they may be: ASCII alone, as most answers are.

    Without the zeros that UTF-16 and UTF-32 have in every text of a kind that programs read, and without the escapes by
    which 7-bit encodings change their meaning.
    """
    return data.isascii() and b"\0" not in data and b"\x1b" not in data


def text_of(data: bytes, content_type: str | None = None, *, cut: bool = False) -> str:
    """The text that some bytes are; what is none becomes U+FFFD.

    Args:
        content_type: What the sender says of them.
        cut: More came behind them; half a character at their end is left out.
    """
    if is_plain(data):
        return data.decode("ascii")
    encoding, mark = encoding_of(data, content_type)
    if mark:
        data = data[mark:]
    if encoding in _SINGLE:
        return codecs.charmap_decode(data, "strict", _table(encoding))[0]
    if encoding.startswith("utf-32") or (encoding.startswith("utf-16") and len(data) > _ONE_BY_ONE):
        width = int(encoding[4:6]) // 8
        try:
            return data[: len(data) // width * width if cut else None].decode(encoding)
        except UnicodeDecodeError:
            # One by one, a megabyte of mistakes would take very long.
            return _REPLACEMENT
    if cut:
        return codecs.getincrementaldecoder(encoding)("replace").decode(data)
    return data.decode(encoding, "replace")


def json_of(data: bytes, content_type: str | None = None) -> Any:
    """The JSON value that some bytes are; `null` is one.

    Raises:
        msgspec.DecodeError: They are none.
        RecursionError: It is nested too deeply.
    """
    if is_plain(data) or encoding_of(data, content_type) == ("utf-8", 0):
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError):
            # Bytes that are no UTF-8 may stand in a text of it.
            pass
    return msgspec.json.decode(text_of(data, content_type))


@cache
def _table(encoding: str) -> str:
    """What each byte stands for: Python takes a hundred times as long for those that stand for nothing."""
    return bytes(range(256)).decode(encoding, "replace")
