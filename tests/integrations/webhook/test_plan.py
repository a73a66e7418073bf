"""A webhook's plan, played by hand: what it asks of the device, and what it says of an event that is no JSON."""

from __future__ import annotations

from typing import Any

import pytest

from tests.delivery.builders import NOW, OWNER, an_event
from wirechamber.integrations.base import (
    About,
    Answer,
    Call,
    Context,
    Delivered,
    DeviceInfo,
    Refused,
    Response,
    TryLater,
)
from wirechamber.integrations.webhook import Webhook

HOOK = Webhook()
CONTEXT = Context(NOW, "test")
DEVICE = "0123456789abcdef01234567"
LAMP = DeviceInfo("lamp & co", "7", 12345, OWNER)


def played(event: Any, *replies: Any, **fields: Any) -> tuple[list[Any], Any]:
    """The steps of the plan, sent these replies, and the outcome."""
    prepared = HOOK.prepare(HOOK.read({"url": "http://x/"} | fields, {}).config)
    plan = HOOK.deliver([event], prepared, CONTEXT)
    steps = [next(plan)]
    try:
        for reply in replies:
            steps.append(plan.send(reply))  # noqa: PERF401
    except StopIteration as stop:
        return steps, stop.value[0]
    raise AssertionError(f"it goes on after {steps}")


def from_device(data: str | None = "1", **rest: Any) -> Any:
    return an_event("temp", data, device=DEVICE, coreid=DEVICE, product=32, **rest)


def test_what_is_known_of_the_device_can_be_named() -> None:
    template = "{{{PARTICLE_DEVICE_NAME}}} {{PRODUCT_ID}} {{PRODUCT_VERSION}}"
    steps, outcome = played(
        from_device(), LAMP, Response(200, (), b"{}", 2), body=template, responseTemplate="for {{PARTICLE_DEVICE_NAME}}"
    )
    assert steps[0] == About(DEVICE)
    assert steps[1].request.body == b"lamp & co 12345 7"
    assert outcome == Delivered(Answer("for lamp &amp; co"))


@pytest.mark.parametrize("info", [None, DeviceInfo("theirs", "7", 9, "somebody else")])
def test_of_a_device_that_is_unknown_or_another_s_by_now_only_the_event_is_told(info: Any) -> None:
    template = "{{PARTICLE_DEVICE_NAME}}|{{PRODUCT_ID}}|{{PRODUCT_VERSION}}"
    steps, _ = played(from_device(), info, Response(200), body=template)
    assert steps[1].request.body == b"|32|"


def test_nobody_asks_where_nothing_of_it_is_named_or_no_device_published() -> None:
    for event, template in ((from_device(), "{{PARTICLE_DEVICE_ID}}"), (an_event("temp"), "{{PARTICLE_DEVICE_NAME}}")):
        steps, _ = played(event, Response(200), body=template)
        assert [type(step) for step in steps] == [Call]


def test_a_device_can_t_choose_its_name_in_its_data() -> None:
    steps, _ = played(
        from_device('{"PARTICLE_DEVICE_NAME":"fake","PARTICLE_PUBLISHED_AT_MS":"1","PRODUCT_VERSION":"1"}'), LAMP,
        Response(200), body="{{{PARTICLE_DEVICE_NAME}}} {{PARTICLE_PUBLISHED_AT_MS}} {{PRODUCT_VERSION}}",
    )  # fmt: skip
    assert steps[1].request.body == f"lamp & co {NOW} 7".encode()


def test_topics_may_name_the_device() -> None:
    prepared = HOOK.prepare(
        HOOK.read({"url": "http://x/", "responseTopic": "to/{{{PARTICLE_DEVICE_NAME}}}"}, {}).config
    )
    event = from_device()
    known = Context(NOW, "test", device=LAMP)
    assert HOOK.topics(event, prepared, known).response == "to/lamp & co"
    theirs = Context(NOW, "test", device=DeviceInfo("theirs", owner="somebody else"))
    assert HOOK.topics(event, prepared, theirs).response == "to/"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ('{"t":nan}', "the event's data is no JSON: "),
        ('{"t":21,}', "the event's data is no JSON: "),
        ("test-event", "the event's data is no JSON: "),
        ("", "the event has no data"),
        (None, "the event has no data"),
    ],
)
def test_the_attempt_says_that_there_was_nothing_to_be_named(data: str | None, says: str) -> None:
    body = {"json": {"t": "{{t}}"}}
    _, outcome = played(from_device(data), Response(200), **body)
    assert isinstance(outcome, Delivered)
    assert outcome.doubt is not None
    assert outcome.doubt.startswith(says)
    assert outcome.doubt.endswith("what the templates name of it is empty")
    for status, kind in ((400, Refused), (503, TryLater)):
        _, outcome = played(from_device(data), Response(status), **body)
        assert isinstance(outcome, kind)
        assert outcome.why.startswith(f"error status {status} from x; {says}")


@pytest.mark.parametrize(
    ("message", "doubted"), [('the \\"door\\"', True), ("two\\nlines", True), ("closed", False), ("x" * 60_000, False)]
)
def test_a_body_that_says_it_is_json_and_is_none_is_told(message: str, doubted: bool) -> None:
    fields = {"body": '{"msg": "{{{msg}}}"}', "headers": {"content-type": "application/json"}}
    event = from_device(f'{{"msg":"{message}"}}')
    _, outcome = played(event, Response(200), **fields)
    assert isinstance(outcome, Delivered)
    assert (outcome.doubt or "").startswith("the body says that it is JSON, and it is none: ") == doubted
    _, refused = played(event, Response(400), **fields)
    assert isinstance(refused, Refused)
    assert ("; the body says that it is JSON, and it is none: " in refused.why) == doubted
    # Of one that says nothing, or several lines of JSON, nothing is known.
    for headers in ({}, {"Content-Type": "application/x-ndjson"}):
        _, outcome = played(event, Response(200), body=fields["body"], headers=headers)
        assert isinstance(outcome, Delivered)
        assert outcome.doubt is None


def test_a_request_that_can_t_be_made_of_no_json_says_so() -> None:
    reading = HOOK.read({"url": "http://x/", "json": '{"t":{{t}}}'}, {})
    refused = HOOK.request(from_device('{"t":nan}'), HOOK.prepare(reading.config), CONTEXT)
    assert isinstance(refused, Refused)
    assert refused.why.startswith("the json template does not render to JSON: ")
    assert "; the event's data is no JSON: " in refused.why


@pytest.mark.parametrize("data", ["{}", "null", "21.5", '"text"', "[1]", '{"other":1}'])
def test_data_that_is_json_is_in_no_doubt(data: str) -> None:
    assert played(from_device(data), Response(200), json={"t": "{{t}}"})[1] == Delivered()
    assert played(from_device("no json"), Response(200), json={"t": "{{PARTICLE_EVENT_VALUE}}"})[1] == Delivered()


@pytest.mark.parametrize(
    ("name", "text"),
    [("PARTICLE_PUBLISHED_AT_S", "1700000000"), ("PARTICLE_PUBLISHED_AT_MS", "1700000000123"),
     ("PARTICLE_PUBLISHED_AT_NS", "1700000000123000000")],
)  # fmt: skip
def test_the_time_as_databases_want_it(name: str, text: str) -> None:
    line = f"weather t={{{{t}}}} {{{{{name}}}}}"
    steps, _ = played(from_device('{"t":21.5}', published_at=NOW + 123), Response(204), body=line)
    assert steps[0].request.body == f"weather t=21.5 {text}".encode()
