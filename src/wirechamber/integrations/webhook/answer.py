"""From the target's answer to what goes back to the device: integrations.md, sections 6, 8 and 9."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from wirechamber.integrations.base import Answer, Context, Delivered, NoJson, Outcome, Refused, Response
from wirechamber.integrations.templates import OutputTooLarge, Room
from wirechamber.integrations.webhook.prepared import Prepared, Scene
from wirechamber.model.events import Event

MAX_ANSWER_CHARACTERS = 100_000
UNKNOWN_TYPE = "application/octet-stream"


def delivered(event: Event, response: Response, prepared: Prepared, context: Context) -> Outcome:
    """The outcome of a 2xx, with the answer for the device if there is one."""
    config = prepared.config
    if response.unreadable and not prepared.has_answer_template:
        return Delivered(no_answer=f"the answer can't be read: {response.unreadable}")
    if not (response.body or response.unreadable) or (prepared.has_answer_template and response.body.isspace()):
        return Delivered()
    try:
        data = _data(event, response, prepared, context)
    except OutputTooLarge as problem:
        return Refused(f"responseTemplate: {problem.description}")
    except NoJson as problem:
        return Refused(f"responseTemplate: the answer can't be used: {problem}")
    return Delivered(Answer(data, chunked=not config.unchunked)) if data else Delivered()


def _data(event: Event, response: Response, prepared: Prepared, context: Context) -> str:
    if prepared.config.data_url_response_event:
        kind = (response.header("Content-Type") or UNKNOWN_TYPE).partition(";")[0].strip()
        return f"data:{kind};base64,{base64.b64encode(response.body).decode()}"
    if not prepared.has_answer_template:
        return response.text()
    names = prepared.answer_names
    # A template that names nothing of the answer is content with any.
    value = response.json() if names.needs_data else None
    predefined: Mapping[str, Any] = names.predefined(event, context.extra, context.device)
    scene = Scene((value, predefined), Room(MAX_ANSWER_CHARACTERS))
    if prepared.answer_text is not None:
        return scene.render(prepared.answer_text)
    assert prepared.answer_tree is not None
    return msgspec.json.encode(prepared.answer_tree.render(scene)).decode()
