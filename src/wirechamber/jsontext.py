"""What is wrong with a text that is to be JSON, in words for whoever wrote it."""

from __future__ import annotations

import re

# So much of what is wrong is shown.
_SHOWN = 40
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
# One without an end goes to the end of the text: were it none, each quote in it would be looked at as another's begin.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_SURROGATE = re.compile(
    rb"(?<!\\)(?:\\\\)*(\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})|[c-fC-F][0-9a-fA-F]{2}))"
)
_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
# Of longer texts only the beginning is looked at: who wrote it waits for the answer, and others wait with him.
_LOOKED_AT = 16_384


def trouble(data: str | bytes, problem: Exception) -> str:
    """Completes "it is no JSON: …".

    Args:
        problem: What the reader of JSON said, which names neither the number that it can't hold nor half a character.
    """
    raw = (data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)[:_LOOKED_AT]
    if isinstance(problem, RecursionError):
        return "it is nested too deeply"
    if isinstance(problem, UnicodeError):
        return "it is no UTF-8"
    if "out of range" in str(problem):
        for found in _NUMBER.finditer(_STRING.sub(b'""', raw)):
            if _is_too_large(found[0]):
                return f"the number {found[0][:_SHOWN].decode()} is too large to be read"
    half = _SURROGATE.search(_PAIR.sub(b"", raw))
    if half is not None:
        return f"{half[1].decode()} is half a character, a surrogate without its other half"
    return str(problem)


def _is_too_large(number: bytes) -> bool:
    if number.lstrip(b"-").isdigit():
        # More digits than Python reads by default, and than anybody means.
        return len(number) > 4_000
    return float(number) in (float("inf"), float("-inf"))
