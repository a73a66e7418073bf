"""Values as JavaScript prints and judges them (integrations.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from wirechamber.integrations.templates.errors import OutputTooLarge

# Lists and objects within each other in a value that is printed whole.
MAX_VALUE_DEPTH = 100
# What is dearer than a step, in steps of about 0.1 µs each: a list or object that becomes text, an item in one, an item
# in one of several kinds, a number with a fraction or an exponent; and so many characters are escaped in one.
CONTAINER_STEPS = 10
ITEM_STEPS = 2
MIXED_ITEM_STEPS = 1
FLOAT_STEPS = 3
ESCAPED_PER_STEP = 16
# Printing a whole number takes the square of its length; one of so many bits takes a step, and none up to 64 bits.
_BITS_OF_A_STEP = 450

_json = msgspec.json.Encoder().encode

# Beyond these, JavaScript writes a number with an exponent (ECMA-262, Number::toString).
_LARGE = 1e21
_64_BITS = 1 << 64
_SMALL = 1e-6


def special(text: str) -> bool:
    """Whether the text holds one of the five characters that hogan.js escapes."""
    return "&" in text or "<" in text or ">" in text or '"' in text or "'" in text


def escaped_length(text: str) -> int:
    """How long the text is when it is escaped."""
    return (
        len(text)
        + 4 * (text.count("&") + text.count("'"))
        + 3 * (text.count("<") + text.count(">"))
        + 5 * text.count('"')
    )


def escape(text: str) -> str:
    """The text with the five characters escaped that HTML gives a meaning."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("'", "&#39;")


def steps_of(value: Any) -> int:
    """What it takes to print a value that is neither text, list nor object, beyond what each takes."""
    if isinstance(value, float):
        return FLOAT_STEPS
    if isinstance(value, int) and not -_64_BITS < value < _64_BITS:
        return (value.bit_length() // _BITS_OF_A_STEP) ** 2
    return 0


def text_of(value: Any) -> str:
    """The text of a JSON value that is neither list nor object."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return _number(value)
    if value is None:
        return ""
    if value is True or value is False:
        return "true" if value else "false"
    try:
        return str(value)
    except ValueError:
        raise OutputTooLarge("a number has too many digits to be printed") from None


def text_of_all(value: list[Any] | dict[str, Any], left: int, steps: int) -> tuple[str, int]:
    """The text of a list or an object, and the steps that it took: some for each item in it, at any depth.

    A list prints as JavaScript's, its items with commas. An object prints as compact JSON, which is more useful than
    JavaScript's. Integers beyond 2^53 print all their digits.

    Args:
        left: Characters that may be printed.
        steps: Steps that may be taken.

    Raises:
        OutputTooLarge: It is more than that; told before it is done.
    """
    account = _Account(left, steps)
    text = account.json(value) if isinstance(value, dict) else account.joined(value)
    return text, steps - account.steps


def is_false(value: Any) -> bool:
    """Whether a section skips this value: null, false, 0, NaN, an empty text or list. An empty object is true."""
    if isinstance(value, dict):
        return False
    return not value or value != value


class _Account:
    """What one conversion may still print and do."""

    __slots__ = ("left", "steps")

    def __init__(self, left: int, steps: int) -> None:
        self.left = left
        self.steps = steps

    def joined(self, items: list[Any]) -> str:
        # Lists in lists are joined by the same comma, so that one pass over all of them does, without recursion.
        within = self._enter(items, 0)
        kinds = set(map(type, items))
        if kinds == {int} or kinds == {str}:
            if kinds == {int} and max(map(int.bit_length, items)) > 64:
                self._pay(sum(map(steps_of, items)))
            texts = items if kinds == {str} else list(map(text_of, items))
            self._take(sum(map(len, texts)) + len(texts) - 1)
            return ",".join(texts)
        self._pay(MIXED_ITEM_STEPS * len(items))
        pieces: list[str] = []
        outer: list[Iterator[Any]] = []
        first = True
        while True:
            for item in within:
                if first:
                    first = False
                else:
                    pieces.append(",")
                    self._take(1)
                if isinstance(item, list):
                    outer.append(within)
                    within, first = self._enter(item, len(outer)), True
                    break
                if isinstance(item, float | int):
                    self._pay(steps_of(item))
                text = self.json(item, len(outer) + 1) if isinstance(item, dict) else text_of(item)
                self._take(len(text))
                pieces.append(text)
            else:
                if not outer:
                    return "".join(pieces)
                within, first = outer.pop(), False

    def json(self, value: dict[str, Any], depth: int = 0) -> str:
        # Looked through before it is encoded: how much there is in it, and how long it will be at least.
        account = _Account(self.left, self.steps)
        outer: list[Iterator[Any]] = []
        within: Iterator[Any] = account._enter(value, depth)
        while True:
            for item in within:
                if isinstance(item, str):
                    account._take(len(item) + 2)
                elif isinstance(item, dict | list):
                    outer.append(within)
                    within = account._enter(item, depth + len(outer))
                    break
                else:
                    account._pay(steps_of(item))
                    account._take(1)
            else:
                if not outer:
                    break
                within = outer.pop()
        self.steps = account.steps
        try:
            return _json(value).decode()
        except (OverflowError, ValueError):
            raise OutputTooLarge("a number has too many digits to be printed") from None

    def _enter(self, items: list[Any] | dict[str, Any], depth: int) -> Iterator[Any]:
        if depth >= MAX_VALUE_DEPTH:
            raise OutputTooLarge(f"a value is nested more than {MAX_VALUE_DEPTH} deep")
        self._pay(CONTAINER_STEPS + ITEM_STEPS * len(items))
        if isinstance(items, dict):
            self._take(sum(map(_key_length, items)))
            return iter(items.values())
        return iter(items)

    def _pay(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise OutputTooLarge("a list or object holds too many items to be printed")

    def _take(self, length: int) -> None:
        self.left -= length
        if self.left < 0:
            raise OutputTooLarge("more characters are printed than is allowed")


def _key_length(key: Any) -> int:
    return len(key) + 3 if isinstance(key, str) else 3


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    mantissa, _, exponent = repr(value).partition("e")
    if not exponent:
        return mantissa.removesuffix(".0")
    if not _SMALL <= abs(value) < _LARGE:
        sign = exponent[0] if exponent[0] in "+-" else "+"
        return f"{mantissa}e{sign}{exponent.lstrip('+-').lstrip('0')}"
    # Python writes an exponent where JavaScript does not: the point moves.
    minus = "-" if value < 0 else ""
    whole, _, rest = mantissa.lstrip("-").partition(".")
    places = int(exponent)
    if places < 0:
        return f"{minus}0.{'0' * (-places - 1)}{whole}{rest}"
    return f"{minus}{whole}{rest.ljust(places, '0')}"
