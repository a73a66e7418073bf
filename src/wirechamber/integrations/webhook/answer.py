"""From the target's answer to what goes back to the device: integrations.md, sections 6, 8 and 9."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from wirechamber.integrations.base import Answer, Context, Delivered, Outcome, Refused, Response, TryLater
from wirechamber.integrations.templates import OutputTooLarge, Room
from wirechamber.integrations.variables import parsed
from wirechamber.integrations.webhook.prepared import Prepared, Scene
from wirechamber.model.events import Event

# Not the target's last word: it is busy, or it may have been a matter of time.
RETRIED = frozenset((408, 425, 429))
MAX_ANSWER_CHARACTERS = 100_000
UNKNOWN_TYPE = "application/octet-stream"


def outcome_by_status(response: Response, host: str, now: int) -> Outcome | None:
    """What a status other than 2xx means; None for a success.

    Args:
        host: As the error's text names it.
        now: Milliseconds since 1970, for a Retry-After that is a date.
    """
    status = response.status
    if 200 <= status < 300:
        return None
    why = f"error status {status} from {host}"
    if status in RETRIED or status >= 500:
        return TryLater(why, retry_after(response.header("Retry-After"), now))
    return Refused(why)


def retry_after(value: str | None, now: int) -> float | None:
    """The seconds that a Retry-After header asks for (RFC 9110, section 10.2.3); None when it says nothing usable."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - now / 1000)
    except (ValueError, TypeError, OverflowError):
        return None


def delivered(event: Event, response: Response, prepared: Prepared, context: Context) -> Outcome:
    """The outcome of a 2xx, with the answer for the device if there is one."""
    if not response.body:
        return Delivered()
    config = prepared.config
    try:
        data = _data(event, response, prepared, context)
    except OutputTooLarge as problem:
        return Refused(f"responseTemplate: {problem.description}")
    return Delivered(Answer(data, chunked=not config.unchunked)) if data else Delivered()


def _data(event: Event, response: Response, prepared: Prepared, context: Context) -> str:
    if prepared.config.data_url_response_event:
        kind = (response.header("Content-Type") or UNKNOWN_TYPE).partition(";")[0].strip()
        return f"data:{kind};base64,{base64.b64encode(response.body).decode()}"
    text = response.body.decode("utf-8", "replace")
    if prepared.answer_text is None and prepared.answer_tree is None:
        return text
    value = parsed(text)
    if value is None:
        # The template speaks of JSON; what is none comes as it is.
        return text
    predefined: Mapping[str, Any] = prepared.answer_names.predefined(event, context.extra)
    scene = Scene((value, predefined), Room(MAX_ANSWER_CHARACTERS))
    if prepared.answer_text is not None:
        return scene.render(prepared.answer_text)
    assert prepared.answer_tree is not None
    return msgspec.json.encode(prepared.answer_tree.render(scene)).decode()
