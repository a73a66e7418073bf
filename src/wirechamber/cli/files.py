"""Files that users name, and standard input: their content, or one line that says what is wrong with them."""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from wirechamber.cli.output import Exit, fail
from wirechamber.jsontext import trouble

STDIN = "-"
# Larger ones are no configuration, no template and no event; a device or /dev/zero has no end.
MAX_BYTES = 64 * 1024 * 1024
_BOM = codecs.BOM_UTF8
# What editors write in front of other encodings. That of UTF-32 begins with that of UTF-16.
_OTHERS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def read_bytes(file: str | Path) -> bytes:
    """The whole content; `-` is standard input. Ends the command when it can't be read."""
    name = shown(file)
    try:
        if str(file) == STDIN:
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(file, "rb") as stream:
                raw = stream.read(MAX_BYTES + 1)
    except OSError as problem:
        fail(f"{name} can't be read: {reason(problem)}", Exit.USAGE)
    except ValueError:
        # A NUL in the name, which no file has.
        fail(f"{name} can't be read: there is no file of this name", Exit.USAGE)
    if len(raw) > MAX_BYTES:
        fail(f"{name} is larger than {MAX_BYTES >> 20} MB", Exit.USAGE)
    return raw


def read_text(file: str | Path) -> str:
    """The content as text, without the mark that some editors put before UTF-8. Ends the command otherwise."""
    raw = read_bytes(file)
    try:
        return raw.removeprefix(_BOM).decode()
    except UnicodeDecodeError as problem:
        looks = next((f"; it looks like {name}" for mark, name in _OTHERS if raw.startswith(mark)), "")
        line = raw[: problem.start].count(b"\n") + 1
        where = looks or f" (line {line}, byte 0x{raw[problem.start + (len(raw) - len(problem.object))]:02x})"
        fail(f"{shown(file)} is not UTF-8{where}; save it as UTF-8", Exit.USAGE)


def read_line() -> str:
    """The first line of standard input, without its end: a password, or a token."""
    raw = sys.stdin.buffer.readline(MAX_BYTES).removeprefix(_BOM)
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        fail("standard input is not UTF-8", Exit.USAGE)


def read_json(file: str | Path) -> Any:
    """The content as JSON. Ends the command when it is none."""
    text = read_text(file)
    if not text.strip():
        fail(f"{shown(file)} is empty; it must hold JSON", Exit.USAGE)
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as problem:
        fail(f"{shown(file)} is no JSON: {trouble(text, problem)}", Exit.USAGE)


def shown(file: str | Path) -> str:
    """What a file is called in messages."""
    return "standard input" if str(file) == STDIN else str(file)


def reason(problem: OSError) -> str:
    """Why something can't be read or written, in the system's words."""
    return problem.strerror or os.strerror(problem.errno) if problem.errno else str(problem)
