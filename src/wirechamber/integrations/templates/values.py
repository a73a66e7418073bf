"""Values as JavaScript prints and judges them (integrations.md, section 6)."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec

_json = msgspec.json.Encoder().encode

# hogan.js escapes these five characters.
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})
# Beyond these, JavaScript writes a number with an exponent (ECMA-262, Number::toString).
_LARGE = 1e21
_SMALL = 1e-6


def escape(text: str) -> str:
    """The text with the five characters escaped that HTML gives a meaning."""
    if "&" in text or "<" in text or ">" in text or '"' in text or "'" in text:
        return text.translate(_ESCAPES)
    return text


def text_of(value: Any) -> str:
    """The text of a JSON value.

    Two deviations from JavaScript, both more useful: an object prints as compact JSON, and integers beyond 2^53 print
    all their digits.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return ",".join(map(text_of, value))
    return _json(value).decode()


def is_false(value: Any) -> bool:
    """Whether a section skips this value: null, false, 0, NaN, an empty text or list. An empty object is true."""
    if isinstance(value, dict):
        return False
    return not value or value != value


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= _LARGE or size < _SMALL:
        mantissa, _, exponent = repr(value).partition("e")
        if not exponent:
            return mantissa
        sign = exponent[0] if exponent[0] in "+-" else "+"
        return f"{mantissa}e{sign}{exponent.lstrip('+-').lstrip('0')}"
    if value.is_integer():
        return str(int(Decimal(repr(value))))
    return f"{Decimal(repr(value)):f}"
