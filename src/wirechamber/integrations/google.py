"""What answers of Google's APIs have in common."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from wirechamber.integrations.answers import retry_after
from wirechamber.integrations.base import NoJson, Response

# Of Google's own text, so much goes into an error.
MAX_MESSAGE = 300
_RETRY_INFO = "google.rpc.RetryInfo"
# A Duration in JSON (protobuf, "JSON Mapping").
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)s")


class Problem(Struct, frozen=True):
    """An error as Google tells it.

    Attributes:
        status: The name of the code, such as `NOT_FOUND`; empty in older APIs.
        message: One line; empty when there is none.
        reasons: Every reason given, in the older form (`errors[].reason`) and the newer (`details[].reason`).
        after: Seconds that Google asks to wait (google.rpc.RetryInfo), if it does.
    """

    status: str = ""
    message: str = ""
    reasons: frozenset[str] = frozenset()
    after: float | None = None


def problem_in(response: Response) -> Problem:
    """The error in an answer, read softly: an answer that is none of Google's gives an empty one."""
    try:
        error = response.json()["error"]
    except (NoJson, LookupError, TypeError):
        return Problem()
    if not isinstance(error, dict):
        return Problem()
    found = [each.get("reason") for name in ("errors", "details") for each in _dicts(error.get(name))]
    return Problem(
        _text(error.get("status")),
        " ".join(_text(error.get("message")).split())[:MAX_MESSAGE],
        frozenset(reason for reason in found if isinstance(reason, str)),
        max((wait for each in _dicts(error.get("details")) if (wait := _retry_info(each)) is not None), default=None),
    )


def about_time(words: str) -> bool:
    """Whether a refusal is about when a statement was signed: its `iat` and `exp` are what our clock says."""
    return "timeframe" in words or "iat and exp" in words or "clock" in words.lower()


def wait_asked(response: Response, problem: Problem, now: int) -> float | None:
    """The seconds that an answer asks to wait, in its body or its header; the longer where they differ."""
    asked = [each for each in (problem.after, retry_after(response.header("Retry-After"), now)) if each is not None]
    return max(asked, default=None)


def _retry_info(detail: dict[str, Any]) -> float | None:
    if not _text(detail.get("@type")).endswith(_RETRY_INFO):
        return None
    found = _DURATION.fullmatch(_text(detail.get("retryDelay")))
    return None if found is None else float(found[1])


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
