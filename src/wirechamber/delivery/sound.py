"""What a kind hands over is looked at before anybody relies on it: a kind may come from anywhere.

Its mistake then is a failed attempt whose text names it, and not an error in the middle of everybody's deliveries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import GeneratorType
from typing import Any

import msgspec
from msgspec import structs

from wirechamber.integrations.base import (
    MAX_LARGE_ANSWER_BYTES,
    Answer,
    Delivered,
    Misconfigured,
    Outcome,
    Refused,
    Request,
    Topics,
    TryLater,
)
from wirechamber.model.names import is_reserved

# Lanes are told apart by it, and it is no place for data.
MAX_LANE_TEXT = 512


class Unsound(TypeError):
    """A kind handed something over that can't be used; the text says what."""


def fault(what: str) -> TryLater:
    """The outcome of a kind's own mistake: a later version of it may do better, and nobody else is concerned."""
    return TryLater(f"internal error: {what}")


def raised(problem: BaseException) -> str:
    """What a kind's exception is called. Its text is left out: it may hold secrets."""
    return type(problem).__name__


def outcomes_of(given: Any, events: int) -> Sequence[Outcome]:
    """One outcome for each event, whatever a plan returned."""
    if isinstance(given, Outcome):
        return [_outcome(given)] * events
    if not isinstance(given, (list, tuple)):
        return [fault(f"the plan returned {type(given).__name__} in place of outcomes")] * events
    if len(given) != events:
        return [fault("the plan lost count of its events")] * events
    return [_outcome(each) for each in given]


def told(problem: BaseException, method: str) -> str:
    """What is said of an exception that came out of a kind's method."""
    return str(problem) if isinstance(problem, Unsound) else f"{method} raised {raised(problem)}"


def plan_of(given: Any) -> str | None:
    """What is wrong with what `deliver` returned, if it is no plan."""
    if type(given) is GeneratorType or all(hasattr(given, name) for name in ("send", "close")):
        return None
    return f"deliver returned {type(given).__name__} in place of a plan"


def request_problem(request: Any) -> str | None:
    """What is wrong with a request, if it can't be sent."""
    if type(request) is not Request:
        return f"a call of {type(request).__name__} in place of a request"
    if type(request.method) is not str or type(request.url) is not str:
        return "a request's method and url must be texts"
    headers: Any = request.headers
    if type(headers) is not tuple and type(headers) is not list:
        return "a request's headers must be pairs of texts, in a tuple"
    for header in headers:
        if type(header) is not tuple or len(header) != 2 or type(header[0]) is not str or type(header[1]) is not str:
            return "a request's headers must be pairs of texts, in a tuple"
    if type(request.answer_bytes) is not int or not 0 < request.answer_bytes <= MAX_LARGE_ANSWER_BYTES:
        return f"a request's answer_bytes must be a number from 1 to {MAX_LARGE_ANSWER_BYTES}"
    body = request.body
    if body is not None and type(body) is not bytes:
        return "a request's body must be bytes"
    for name, texts in (("secrets", request.secrets), ("hidden", request.hidden)):
        if type(texts) is not tuple or not all(type(each) is str for each in texts):
            return f"a request's {name} must be texts, in a tuple"
    if request.parts and not all(type(each) is bytes for each in request.parts):
        return "a request's parts must be bytes"
    return None


def small_json(value: Any, most: int) -> bool:
    """Whether a value can be stored as JSON in so many bytes."""
    try:
        return len(msgspec.json.encode(value)) <= most
    except Exception:
        return False


def lane_text(given: Any, name: str) -> str:
    """A target or an order as a kind gave it.

    Raises:
        Unsound: It is no text.
    """
    if type(given) is not str:
        raise Unsound(f"{name} returned {type(given).__name__} in place of a text")
    return given[:MAX_LANE_TEXT]


def topics_of(given: Any, default: Topics) -> Topics:
    """The names of result events as a kind gave them.

    A template may make a reserved name of what was published; then the default one stands.

    Raises:
        Unsound: They are no topics.
    """
    if not isinstance(given, Topics) or not all(
        type(each) is str for each in (given.sent, given.response, given.error)
    ):
        raise Unsound("topics returned something else than names")
    if not any(map(is_reserved, (given.sent, given.response, given.error))):
        return given
    return Topics(
        *(
            usual if is_reserved(name) else name
            for name, usual in zip(
                (given.sent, given.response, given.error), (default.sent, default.response, default.error), strict=True
            )
        )
    )


def text(given: str) -> str:
    """A text that can be stored: half characters, which UTF-8 has no bytes for, are replaced."""
    return given if given.isascii() else given.encode("utf-8", "replace").decode()


def _outcome(given: Any) -> Outcome:
    kind = type(given)
    if isinstance(given, Delivered):
        return _delivered(given)
    if isinstance(given, TryLater):
        after = given.after
        whole = after is None or (type(after) in (int, float) and math.isfinite(after))
        if type(given.why) is not str or not whole:
            return fault("an outcome TryLater with values of the wrong type")
        return given if given.why.isascii() else structs.replace(given, why=text(given.why))
    if isinstance(given, (Refused, Misconfigured)):
        if type(given.why) is not str:
            return fault(f"an outcome {kind.__name__} without a text")
        return given if given.why.isascii() else structs.replace(given, why=text(given.why))
    return fault(f"{kind.__name__} in place of an outcome")


def _delivered(given: Delivered) -> Outcome:
    answer, none = given.answer, given.no_answer
    if none is not None and type(none) is not str:
        return fault("an outcome Delivered whose no_answer is no text")
    if given.doubt is not None:
        if type(given.doubt) is not str:
            return fault("an outcome Delivered whose doubt is no text")
        given = structs.replace(given, doubt=text(given.doubt))
    if answer is None:
        return given if none is None or none.isascii() else structs.replace(given, no_answer=text(none))
    if type(answer) is not Answer or type(answer.data) is not str:
        return fault("an Answer that is no text")
    if answer.data.isascii():
        return given
    return structs.replace(given, answer=structs.replace(answer, data=text(answer.data)))
