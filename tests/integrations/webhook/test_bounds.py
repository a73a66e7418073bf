"""What a tenant can size in a webhook's request and answer, whatever field it is in."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.delivery.builders import NOW, an_event, an_integration
from wirechamber.delivery.index import Trigger
from wirechamber.integrations.base import Context, InvalidConfig, Misconfigured, Refused, Request, Response
from wirechamber.integrations.templates import MAX_TAGS
from wirechamber.integrations.webhook import Webhook
from wirechamber.integrations.webhook.encoding import FORM, QUERY, URL
from wirechamber.integrations.webhook.prepared import MAX_JSON_VALUES

HOOK = Webhook()
CONTEXT = Context(NOW, "test")
ADDRESS = "https://example.com/in"
NUMBERS = json.dumps({"a": [0] * 7_990}).replace(" ", "")
MANY = "{{{a}}}" * 10_000
MOST = "{{{a}}}" * (MAX_TAGS // 2)


def fields(template: str) -> dict[str, dict[str, Any]]:
    """The template in every place where one may stand."""
    return {
        "url": {"url": ADDRESS + "?" + template[:7_000]},
        "query": {"query": {"q": template}},
        "name in query": {"query": {template: "q"}},
        "form": {"form": {"f": template}},
        "headers": {"headers": {"X": template}},
        "body": {"body": template},
        "json": {"json": {"a": [{"b": template}]}},
        "key in json": {"json": {template: 1}},
        "json text": {"json": f'"{template}"'},
        "auth": {"auth": {"username": template, "password": "p"}},
        "password": {"auth": {"username": "u", "password": template}},
    }


@pytest.mark.parametrize(
    "more", [{"responseTopic": MANY}, {"errorResponseTopic": MANY}, {"responseTemplate": MANY},
             {"responseTemplate": {"a": MANY}}, *(found for name, found in fields(MANY).items() if name != "url")],
)  # fmt: skip
def test_too_many_tags_are_refused_when_it_is_saved(more: dict[str, Any]) -> None:
    reading = HOOK.read({"url": ADDRESS} | more, {})
    with pytest.raises(InvalidConfig, match=f"more than {MAX_TAGS} tags"):
        HOOK.prepare(reading.config)


def test_tags_are_counted_over_all_fields() -> None:
    some = "{{a}}" * (MAX_TAGS // 3 + 1)
    reading = HOOK.read({"url": ADDRESS, "body": some, "headers": {"X": some}, "responseTopic": some}, {})
    with pytest.raises(InvalidConfig, match=r"responseTopic.*tags"):
        HOOK.prepare(reading.config)


@pytest.mark.parametrize("more", fields(MOST).values(), ids=fields(MOST))
def test_what_takes_too_much_is_refused_for_good(more: dict[str, Any]) -> None:
    prepared = HOOK.prepare(HOOK.read({"url": ADDRESS} | more, {}).config)
    for data in (NUMBERS, json.dumps({"a": "x" * 16_000})):
        refused = HOOK.request(an_event(data=data), prepared, CONTEXT)
        assert isinstance(refused, Refused), refused
        HOOK.target(an_event(data=data), prepared, CONTEXT)


def test_an_answer_that_takes_too_much_is_refused_for_good() -> None:
    prepared = HOOK.prepare(HOOK.read({"url": ADDRESS, "responseTemplate": MOST}, {}).config)
    body = json.dumps({"a": [0] * 30_000}).encode()
    assert isinstance(HOOK.outcome(an_event(), Response(200, (), body, len(body)), prepared, CONTEXT), Refused)


def test_topics_that_take_too_much_are_the_default_ones() -> None:
    prepared = HOOK.prepare(HOOK.read({"url": ADDRESS, "responseTopic": MOST}, {}).config)
    assert HOOK.topics(an_event(data=NUMBERS), prepared, CONTEXT).response == "hook-response/temperature"


def test_nine_hundred_lists_in_each_other_are_refused_for_good() -> None:
    prepared = HOOK.prepare(HOOK.read({"url": ADDRESS, "body": "{{a}}"}, {}).config)
    refused = HOOK.request(an_event(data='{"a":' + "[" * 900 + "]" * 900 + "}"), prepared, CONTEXT)
    assert isinstance(refused, Refused)
    assert "nested more than" in refused.why


def test_values_of_a_json_object_are_bounded() -> None:
    with pytest.raises(InvalidConfig, match=f"json: may hold at most {MAX_JSON_VALUES} values"):
        HOOK.prepare(HOOK.read({"url": ADDRESS, "json": {"a": [0] * MAX_JSON_VALUES}}, {}).config)


def test_what_was_saved_before_there_were_bounds_is_misconfigured_and_says_why() -> None:
    settings = {"url": ADDRESS, "body": MANY}
    found = Trigger(an_integration(settings=settings), HOOK, 0).prepared()
    assert isinstance(found, Misconfigured)
    assert found.why.startswith("body: is no valid template: there are more than")


def test_a_whole_form_of_what_must_be_encoded_is_paid_for() -> None:
    """Encoding a request of the largest size would take fifty times what a rendering may."""
    many = {f"k{index}": "{{{PARTICLE_EVENT_VALUE}}}" for index in range(50)}
    for more in ({"form": many}, {"query": many}):
        prepared = HOOK.prepare(HOOK.read({"url": ADDRESS} | more, {}).config)
        assert isinstance(HOOK.request(an_event(data="é" * 8_000), prepared, CONTEXT), Refused)
        assert isinstance(HOOK.request(an_event(data="é" * 200), prepared, CONTEXT), Request)


def test_a_host_of_any_length_is_refused() -> None:
    prepared = HOOK.prepare(HOOK.read({"url": "https://{{{a}}}/"}, {}).config)
    refused = HOOK.request(an_event(data=json.dumps({"a": "ü" * 5_000})), prepared, CONTEXT)
    assert isinstance(refused, Refused)


def test_an_object_without_tags_is_sent_as_it_is() -> None:
    value: dict[str, Any] = {"a": [1, 2.5, None, True, "x", {"b": [], "c": {}}], "d": {"e": "f"}, "g": {}}
    prepared = HOOK.prepare(HOOK.read({"url": ADDRESS, "json": value, "noDefaults": True}, {}).config)
    request = HOOK.request(an_event(), prepared, CONTEXT)
    assert isinstance(request, Request)
    assert json.loads(request.body or b"") == value


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_encodings_are_those_of_the_library(text: str) -> None:
    assert QUERY.encode(text) == quote(text, safe="")
    assert FORM.encode(text) == quote_plus(text)
    assert URL.encode(text) == quote(text, safe="%/:?#[]@!$&'()*+,;=-._~")
