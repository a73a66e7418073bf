"""What a target's answer means, and what goes back to the device (integrations.md, sections 6, 8, 9)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.delivery.builders import NOW, an_event
from wirechamber.integrations.base import Answer, Context, Delivered, Refused, Response, TryLater
from wirechamber.integrations.webhook import Webhook

HOOK = Webhook()
CONTEXT = Context(NOW, "test")
EVENT = an_event("temp", "x")


def outcome(status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None, **fields: Any) -> Any:
    reading = HOOK.read({"url": "https://Example.com/in"} | fields, {})
    response = Response(status, tuple((headers or {}).items()), body, len(body))
    return HOOK.outcome(EVENT, response, HOOK.prepare(reading.config), CONTEXT)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_status_that_is_tried_again(status: int) -> None:
    assert outcome(status) == TryLater(f"error status {status} from example.com")


@pytest.mark.parametrize("status", [300, 301, 302, 304, 307, 400, 401, 403, 404, 409, 410, 418, 451])
def test_a_status_that_is_final(status: int) -> None:
    assert outcome(status) == Refused(f"error status {status} from example.com")


@pytest.mark.parametrize(
    ("header", "after"),
    [("120", 120.0), ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0), ("Tue, 14 Nov 2000 22:14:20 GMT", 0.0), ("soon", None)],
)
def test_retry_after_is_seconds_or_a_date(header: str, after: float | None) -> None:
    assert outcome(503, headers={"retry-after": header}).after == after


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_success_without_a_body_says_nothing_more(status: int) -> None:
    assert outcome(status) == Delivered(None)


@pytest.mark.parametrize(
    ("body", "fields", "data"),
    [
        (b"plain", {}, "plain"),
        (b'{"results":[{"elevation":12.50}]}', {"responseTemplate": "{{{results.0.elevation}}}"}, "12.5"),
        (b"no json", {"responseTemplate": "{{PARTICLE_EVENT_NAME}}!"}, "temp!"),
        (b"\xef\xbb\xbf" + b'{"x":"y"}', {"responseTemplate": "{{x}}"}, "y"),
        (b"\xef\xbb\xbfplain", {}, "plain"),
        (b"null", {"responseTemplate": "[{{x}}]"}, "[]"),
        (b"null", {}, "null"),
        (b'{"x":"y"}', {"responseTemplate": "{{x}} for {{PARTICLE_EVENT_NAME}}"}, "y for temp"),
        (b"\xff\xfe", {}, "��"),
        (b"\x00\x01", {"dataUrlResponseEvent": True}, "data:application/octet-stream;base64,AAE="),
    ],
)
def test_the_answer(body: bytes, fields: dict[str, Any], data: str) -> None:
    assert outcome(200, body, **fields) == Delivered(Answer(data))


def test_the_charset_of_the_answer_counts() -> None:
    latin = {"Content-Type": "application/json; charset=ISO-8859-1"}
    body = '{"city":"Zürich"}'.encode("latin-1")
    assert outcome(200, body, latin, responseTemplate="{{city}}") == Delivered(Answer("Zürich"))
    assert outcome(200, body, latin) == Delivered(Answer('{"city":"Zürich"}'))


@pytest.mark.parametrize("template", ["{{x}}", {"x": "{{x}}"}, "{{.}}", "{{#x}}{{/x}}"])
@pytest.mark.parametrize("body", [b"no json", b'{"x":1', b"<html></html>"])
def test_an_answer_that_is_no_json_where_the_template_names_it_is_an_error_that_says_so(
    body: bytes, template: Any
) -> None:
    refused = outcome(200, body, responseTemplate=template)
    assert isinstance(refused, Refused)
    assert refused.why.startswith("responseTemplate: the answer can't be used: it is no JSON: ")


def test_a_part_of_an_answer_is_an_error_only_where_the_whole_is_needed() -> None:
    reading = HOOK.read({"url": "https://example.com/in", "responseTemplate": "{{x}}"}, {})
    response = Response(200, (), b'{"x":1}', 1_000_001)
    told = HOOK.outcome(EVENT, response, HOOK.prepare(reading.config), CONTEXT)
    assert told == Refused(
        "responseTemplate: the answer can't be used: it is longer than the 7 bytes that were read of it"
    )
    plain = HOOK.read({"url": "https://example.com/in"}, {})
    assert HOOK.outcome(EVENT, response, HOOK.prepare(plain.config), CONTEXT) == Delivered(Answer('{"x":1}'))


def test_an_answer_of_blanks_is_none_for_a_template() -> None:
    assert outcome(200, b"\r\n", responseTemplate="{{x}}") == Delivered(None)


def test_an_object_as_template_gives_json_with_texts() -> None:
    answer = outcome(200, b'{"lat":39.7}', responseTemplate={"lat": "{{{lat}}}"}).answer
    assert json.loads(answer.data) == {"lat": "39.7"}


def test_a_data_url_has_the_type_of_the_answer() -> None:
    answer = outcome(200, b"x", {"Content-Type": "image/png; q=1"}, dataUrlResponseEvent=True).answer
    assert answer.data == "data:image/png;base64,eA=="


def test_unchunked_is_one_event() -> None:
    assert outcome(200, b"x", unchunked=True) == Delivered(Answer("x", chunked=False))


@pytest.mark.parametrize(
    ("fields", "response", "error"),
    [
        ({}, "hook-response/temp", "hook-error/temp"),
        (
            {"responseTopic": "a/{{PARTICLE_DEVICE_ID}}", "errorResponseTopic": "b/{{SPARK_EVENT_NAME}}"},
            "a/api",
            "b/temp",
        ),
        ({"responseTopic": "{{nothing}}"}, "hook-response/temp", "hook-error/temp"),
    ],
)
def test_the_topics(fields: dict[str, Any], response: str, error: str) -> None:
    reading = HOOK.read({"url": "http://x/"} | fields, {})
    topics = HOOK.topics(EVENT, HOOK.prepare(reading.config), CONTEXT)
    assert (topics.sent, topics.response, topics.error) == ("hook-sent/temp", response, error)
