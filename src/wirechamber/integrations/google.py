"""What answers of Google's APIs have in common."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from wirechamber.integrations.base import Response

# Of Google's own text, so much goes into an error.
MAX_MESSAGE = 300


class Problem(Struct, frozen=True):
    """An error as Google tells it.

    Attributes:
        status: The name of the code, such as `NOT_FOUND`; empty in older APIs.
        message: One line; empty when there is none.
        reasons: Every reason given, in the older form (`errors[].reason`) and the newer (`details[].reason`).
    """

    status: str = ""
    message: str = ""
    reasons: frozenset[str] = frozenset()


def problem_in(response: Response) -> Problem:
    """The error in an answer, read softly: an answer that is none of Google's gives an empty one."""
    try:
        error = msgspec.json.decode(response.body)["error"]
    except (msgspec.DecodeError, LookupError, TypeError, RecursionError):
        return Problem()
    if not isinstance(error, dict):
        return Problem()
    found = [each.get("reason") for name in ("errors", "details") for each in _dicts(error.get(name))]
    return Problem(
        _text(error.get("status")),
        " ".join(_text(error.get("message")).split())[:MAX_MESSAGE],
        frozenset(reason for reason in found if isinstance(reason, str)),
    )


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
