"""What a target answered, and which text or JSON that is."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from wirechamber import texts
from wirechamber.jsontext import trouble

# The most of an answer that is read (integrations.md, section 9), and of one of which a kind needs the whole.
MAX_ANSWER_BYTES = 100_000
MAX_LARGE_ANSWER_BYTES = 1_000_000
_MIME = re.compile(r"[A-Za-z0-9.+-]{1,40}/[A-Za-z0-9.+-]{1,60}")
# Lists and objects in an answer's JSON: each takes some 0.2 µs to be made.
MAX_ANSWER_CONTAINERS = 50_000


class NoJson(ValueError):
    """What was to be JSON is none; the text says why: "it is no JSON: …"."""


class Response(Struct, frozen=True):
    """What the target answered.

    Attributes:
        body: The first bytes, as many as the request wanted, without the content codings (gzip, …) that they came in.
        length: How many bytes there were before reading stopped; more than `len(body)` when it was cut.
        unreadable: Why there is no body although one came: its content coding can't be undone. Empty otherwise.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    length: int = 0
    unreadable: str = ""

    @property
    def cut(self) -> bool:
        """Whether the body is only the first part of what the target had to say."""
        return self.length > len(self.body)

    def header(self, name: str) -> str | None:
        """The last header of that name, compared without regard to case."""
        wanted, length = name.lower(), len(name)
        for key, value in reversed(self.headers):
            if len(key) == length and key.lower() == wanted:
                return value
        return None

    def text(self) -> str:
        """The body as text, in the encoding that it says: by byte order mark, charset, or in itself; else UTF-8."""
        if texts.is_plain(self.body):
            # Whatever its Content-Type says.
            return self.body.decode("ascii")
        return texts.text_of(self.body, self.header("Content-Type"), cut=self.cut)

    def json(self) -> Any:
        """The body as JSON, in the same encodings; `null` is a value as any other.

        Raises:
            NoJson: It is none, it was cut, or it holds too much.
        """
        if self.unreadable:
            raise NoJson(self.unreadable)
        if self.cut:
            raise NoJson(f"it is longer than the {len(self.body)} bytes that were read of it")
        if len(self.body) > MAX_ANSWER_BYTES and _containers(self.body) > MAX_ANSWER_CONTAINERS:
            raise NoJson(f"it holds more than {MAX_ANSWER_CONTAINERS} lists and objects, too many to be read")
        try:
            plain = texts.is_plain(self.body)
            return texts.json_of(self.body, None if plain else self.header("Content-Type"))
        except (msgspec.DecodeError, RecursionError, UnicodeError) as problem:
            if not self.body:
                raise NoJson("it is empty") from None
            kind = _MIME.match(self.header("Content-Type") or "")
            what = f" but {kind[0]}" if kind is not None and "json" not in kind[0].lower() else ""
            raise NoJson(f"it is no JSON{what}: {trouble(self.body, problem)}") from None


def _containers(data: bytes) -> int:
    return data.count(b"[") + data.count(b"{")
