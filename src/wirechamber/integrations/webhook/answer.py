"""From the target's answer to what goes back to the device: integrations.md, sections 6, 8 and 9."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from wirechamber.integrations.base import Answer, Context, Delivered, Outcome, Refused, Response
from wirechamber.integrations.templates import OutputTooLarge, Room
from wirechamber.integrations.variables import parsed
from wirechamber.integrations.webhook.prepared import Prepared, Scene
from wirechamber.model.events import Event

MAX_ANSWER_CHARACTERS = 100_000
UNKNOWN_TYPE = "application/octet-stream"


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
