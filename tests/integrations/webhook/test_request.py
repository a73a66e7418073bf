"""The outgoing request: the tables of integrations.md, section 5, row by row."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.delivery.builders import an_event
from wirechamber.integrations.base import MASK, Context, DeviceInfo, InvalidConfig, Refused, Request
from wirechamber.integrations.webhook import Webhook
from wirechamber.model.events import Event

HOOK = Webhook()
CONTEXT = Context(1_700_000_000_000, "Wirechamber/test")
PUBLISHED = "2023-11-14T22:13:20.000Z"
EVENT = an_event("temperature", '{"t":21.50,"s":"a \\"b\\" & c"}')
DEFAULTS = {"event": "temperature", "data": EVENT.data, "published_at": PUBLISHED, "coreid": "api"}


def sent(event: Event = EVENT, **fields: Any) -> Request:
    made = outcome(event, **fields)
    assert isinstance(made, Request), made
    return made


def outcome(event: Event = EVENT, **fields: Any) -> Any:
    reading = HOOK.read({"url": "https://example.com/in"} | fields, {})
    return HOOK.request(event, HOOK.prepare(reading.config), CONTEXT)


def headers(request: Request) -> dict[str, str]:
    return dict(request.headers)


def form(request: Request) -> dict[str, str]:
    assert request.body is not None
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


def query(request: Request) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_nothing_configured_sends_the_defaults_as_a_form(method: str) -> None:
    request = sent(requestType=method)
    assert request.method == method
    assert request.body is not None
    assert request.body.startswith(b"event=temperature&data=")
    assert form(request) == DEFAULTS
    assert headers(request)["Content-Type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_no_defaults_and_nothing_configured_sends_an_empty_body(method: str) -> None:
    assert sent(requestType=method, noDefaults=True).body == b""


def test_form_fields_join_the_defaults_and_win() -> None:
    assert form(sent(form={"t": "{{t}}", "coreid": "mine"})) == {**DEFAULTS, "coreid": "mine", "t": "21.5"}
    assert form(sent(form={"t": "{{t}}"}, noDefaults="true")) == {"t": "21.5"}


def test_json_true_is_the_defaults_alone() -> None:
    request = sent(json=True)
    assert json.loads(request.body or b"") == DEFAULTS
    assert headers(request)["Content-Type"] == headers(request)["Accept"] == "application/json"
    assert json.loads(sent(json=True, noDefaults=True).body or b"x") == {}


def test_a_json_object_renders_each_leaf_and_key_and_escapes_by_itself() -> None:
    body = json.loads(sent(json={"{{s}}": "{{{s}}}", "n": 5, "l": ["{{t}}", True, None]}).body or b"")
    assert body == {**DEFAULTS, "a &quot;b&quot; &amp; c": 'a "b" & c', "n": 5, "l": ["21.5", True, None]}


def test_the_default_template_works_when_the_value_is_json_itself() -> None:
    assert json.loads(sent(json={"data": "{{{PARTICLE_EVENT_VALUE}}}"}).body or b"")["data"] == EVENT.data


def test_a_json_text_is_rendered_whole_and_parsed() -> None:
    assert json.loads(sent(json='{"v": {{{t}}}}').body or b"") == {**DEFAULTS, "v": 21.5}
    assert sent(json='{"v": {{{t}}}}', noDefaults=True).body == b'{"v": 21.5}'
    assert sent(json="{{{PARTICLE_EVENT_VALUE}}}", noDefaults=True).body == (EVENT.data or "").encode()


def test_a_json_text_that_does_not_render_to_json_is_refused_and_not_sent() -> None:
    refused = outcome(json='{"v": {{{missing}}}}')
    assert isinstance(refused, Refused)
    assert "json" in refused.why


def test_a_body_is_sent_as_it_renders_without_a_type() -> None:
    request = sent(body="t={{t}}")
    assert request.body == b"t=21.5"
    assert "Content-Type" not in headers(request)
    assert headers(sent(body="x", headers={"content-type": "text/csv"}))["content-type"] == "text/csv"


def test_get_puts_defaults_form_and_query_into_the_query_and_sends_no_body() -> None:
    request = sent(requestType="GET", url="https://example.com/in?a=1", query={"q": "{{t}}"}, form={"f": "x y"})
    assert request.body is None
    assert query(request) == {"a": "1", "q": "21.5", "f": "x y", **DEFAULTS}
    assert query(sent(requestType="get", query={"q": "1"}, noDefaults=True)) == {"q": "1"}


def test_on_other_methods_the_query_gets_no_defaults() -> None:
    assert query(sent(query={"q": "1"})) == {"q": "1"}


def test_delete_sends_a_body_only_when_one_is_configured() -> None:
    assert sent(requestType="DELETE").body is None
    assert json.loads(sent(requestType="DELETE", json={"a": "b"}).body or b"") == {**DEFAULTS, "a": "b"}


def test_query_values_are_percent_encoded_after_rendering() -> None:
    assert sent(query={"at": "39.7,-104.9"}).url == "https://example.com/in?at=39.7%2C-104.9"


def test_headers_are_sent_as_given_and_win_over_ours() -> None:
    request = sent(json=True, headers={"user-agent": "mine", "X-{{t}}": "{{t}}", "Accept": "text/plain"})
    assert headers(request)["user-agent"] == "mine"
    assert headers(request)["X-21.5"] == "21.5"
    assert headers(request)["Accept"] == "text/plain"
    assert "User-Agent" not in headers(request)
    assert headers(sent())["User-Agent"] == "Wirechamber/test"


def test_a_header_that_renders_to_a_line_break_is_refused() -> None:
    assert isinstance(outcome(an_event(data='{"x":"a\\r\\nEvil: 1"}'), headers={"X": "{{{x}}}"}), Refused)


def test_auth_is_basic_and_its_secrets_are_named_for_masking() -> None:
    request = sent(auth={"username": "u", "password": "pä ss"})
    assert headers(request)["Authorization"] == "Basic dTpww6Qgc3M="
    assert {"pä ss", "dTpww6Qgc3M=", "p%C3%A4%20ss"} <= set(request.secrets)


def test_a_url_is_rendered_and_encoded() -> None:
    assert sent(url="http://example.com/{{{PARTICLE_EVENT_NAME}}}/ü x?q=a b").url == (
        "http://example.com/temperature/%C3%BC%20x?q=a%20b"
    )
    assert sent(url="http://münchen.example/").url == "http://xn--mnchen-3ya.example/"
    assert isinstance(outcome(url="{{{nowhere}}}"), Refused)
    assert isinstance(outcome(an_event(data='{"h":"x"}'), url="http://{{{h}}}:99999/"), Refused)


def test_an_event_without_data_has_an_empty_text() -> None:
    assert form(sent(an_event(data=None)))["data"] == ""


def test_a_data_url_goes_as_it_is() -> None:
    picture = an_event(data="data:image/png;base64,AAAA")
    assert json.loads(sent(picture, json=True).body or b"")["data"] == "data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARTICLE_DEVICE_ID", "api"), ("SPARK_CORE_ID", "api"), ("PARTICLE_EVENT_NAME", "temperature"),
        ("SPARK_EVENT_NAME", "temperature"), ("PARTICLE_EVENT_VALUE", "v"), ("SPARK_EVENT_VALUE", "v"),
        ("PARTICLE_EVENT_DATA", "v"), ("PARTICLE_PUBLISHED_AT", PUBLISHED), ("SPARK_PUBLISHED_AT", PUBLISHED),
        ("PARTICLE_EVENT_ID", "0" * 32), ("PRODUCT_ID", "32"), ("PRODUCT_USER_ID", "owner-1"), ("PRODUCT_VERSION", ""),
        ("PARTICLE_EVENT_JSON",
         f'{{"name":"temperature","data":"v","ttl":60,"published_at":"{PUBLISHED}","coreid":"api"}}'),
    ],
)  # fmt: skip
def test_a_predefined_variable(name: str, value: str) -> None:
    assert sent(an_event(data="v", product=32), body=f"{{{{{{{name}}}}}}}").body == value.encode()


@pytest.mark.parametrize(
    ("template", "product", "known", "sent_as"),
    [
        ('{"v": {{{PRODUCT_VERSION}}}, "p": {{{PRODUCT_ID}}}}', 32, "7", {"v": 7, "p": 12345}),
        ('{"v": "{{{PRODUCT_VERSION}}}", "p": "{{{PRODUCT_ID}}}"}', 32, "7", {"v": "7", "p": "12345"}),
        ('{"v": {{{PRODUCT_VERSION}}}, "p": {{{PRODUCT_ID}}}}', 12345, None, {"v": None, "p": 12345}),
        ('{"v":{{{PRODUCT_VERSION}}},"q":"a \\"{{PRODUCT_VERSION}}\\" b"}', 1, None, {"v": None, "q": 'a "" b'}),
        ('[{{PRODUCT_VERSION}}, "{{PRODUCT_ID}}"]', None, None, [None, ""]),
        ('{"v": "{{{PRODUCT_VERSION}}}", "p": "{{{PRODUCT_ID}}}"}', None, None, {"v": "", "p": ""}),
    ],
)
def test_a_product_that_is_not_known_is_null_in_json(
    template: str, product: int | None, known: str | None, sent_as: Any
) -> None:
    device = None if known is None else DeviceInfo("lamp", known, 12345, "owner-1")
    reading = HOOK.read({"url": "https://example.com/in", "json": template, "noDefaults": True}, {})
    request = HOOK.request(
        an_event(data="v", product=product), HOOK.prepare(reading.config), structs.replace(CONTEXT, device=device)
    )
    assert isinstance(request, Request), request
    assert json.loads(request.body or b"") == sent_as


def test_json_that_is_wrong_for_another_reason_stays_wrong() -> None:
    refused = outcome(an_event(data="v"), json='{"v": {{{PRODUCT_VERSION}}}, "w": {{{nothing}}}}')
    assert isinstance(refused, Refused)
    assert "does not render to JSON" in refused.why


def test_the_events_keys_never_win_over_predefined_variables() -> None:
    spoof = an_event(data='{"PARTICLE_DEVICE_ID":"spoofed"}')
    assert sent(spoof, body="{{PARTICLE_DEVICE_ID}}").body == b"api"


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.sampled_from(["{{a}}", "{{", MASK])
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
FIELDS = st.sampled_from(
    ["url", "requestType", "json", "form", "body", "query", "headers", "auth", "noDefaults", "responseTopic",
     "rejectUnauthorized", "responseTemplate", "unchunked", "dataUrlResponseEvent", "secretHeaders", "else"]
)  # fmt: skip


@settings(max_examples=300)
@given(
    fields=st.dictionaries(FIELDS, VALUES, max_size=5),
    url=st.sampled_from(["http://example.com/", "https://u:p@example.com/{{a}}", "http://[::1]:80/{{{b}}}"]),
    data=st.none() | st.text(max_size=20) | VALUES.map(json.dumps),
)
def test_any_configuration_and_any_event_give_a_request_or_say_why_not(
    fields: dict[str, Any], url: str, data: str | None
) -> None:
    try:
        reading = HOOK.read({"url": url} | fields, {})
        prepared = HOOK.prepare(reading.config)
    except InvalidConfig as refused:
        assert str(refused).startswith(f"{refused.field}: ")  # noqa: PT017 either outcome is right
        return
    event = an_event(data=data)
    assert isinstance(HOOK.request(event, prepared, CONTEXT), Request | Refused)
    assert HOOK.topics(event, prepared, CONTEXT).response
    HOOK.target(event, prepared, CONTEXT)
    # What is shown can be sent back, with the secrets in their place.
    again = HOOK.read(reading.settings, reading.secrets)
    assert again.config == reading.config


@pytest.mark.parametrize("where", ["json", "form", "headers"])
def test_all_templates_of_a_request_share_one_room(where: str) -> None:
    # None of them is too long alone.
    many = {f"k{index}": "{{{data}}}" for index in range(200)}
    refused = outcome(an_event("e", '{"data":"%s"}' % ("x" * 16_000)), **{where: many})
    assert isinstance(refused, Refused)
    assert "characters" in refused.why


@pytest.mark.parametrize("where", ["form", "query", "headers"])
def test_the_number_of_fields_is_bounded(where: str) -> None:
    with pytest.raises(InvalidConfig, match=rf"{where}.*at most 256"):
        HOOK.read({"url": "https://example.com", where: {f"k{index}": "v" for index in range(257)}}, {})


def test_the_number_of_texts_in_a_json_object_is_bounded() -> None:
    with pytest.raises(InvalidConfig, match=r"json.*at most"):
        sent(json={"list": ["{{a}}"] * 2_001})


def test_empty_credentials_are_none() -> None:
    assert "Authorization" not in headers(sent(auth={"username": "", "password": ""}))


@pytest.mark.parametrize(
    ("url", "fields", "sent_url"),
    [
        ("http://x/?", {"query": {"a": "1"}, "noDefaults": True}, "http://x/?a=1"),
        ("http://x/?b=2&", {"query": {"a": "1"}, "noDefaults": True}, "http://x/?b=2&a=1"),
        ("http://x/p?&&b=2#f", {"query": {"a": "1"}, "noDefaults": True}, "http://x/p?b=2&a=1#f"),
        ("http://x?", {"noDefaults": True}, "http://x?"),
        # The more explicit one of a name wins, and the rest of the URL's query stays as it was written.
        ("http://x/?a=old&sig=a%2Fb+c&flag", {"query": {"a": "1"}, "noDefaults": True}, "http://x/?sig=a%2Fb+c&flag&a=1"),
        ("http://x/?q%5B%5D=1&q%5B%5D=2", {"query": {"q[]": "3"}, "noDefaults": True}, "http://x/?q%5B%5D=3"),
        ("http://x/?a=1&a=2", {"form": {"b": "3"}, "noDefaults": True}, "http://x/?a=1&a=2&b=3"),
    ],
)  # fmt: skip
def test_a_query_in_the_url_is_merged_with_the_fields(url: str, fields: dict[str, Any], sent_url: str) -> None:
    assert sent(url=url, requestType="GET", **fields).url == sent_url


@pytest.mark.parametrize("own", ["event=mine", "event=mine&x=1", "x=1&e%76ent=mine"])
def test_of_the_defaults_only_those_are_added_that_the_url_does_not_have(own: str) -> None:
    request = sent(url=f"http://x/in?{own}", requestType="GET")
    found = query(request)
    assert {name: found[name] for name in DEFAULTS} == {**DEFAULTS, "event": "mine"}
    assert request.url.count("ent=") == 1


def test_a_query_of_an_address_stays_as_it_is_on_other_methods() -> None:
    assert sent(url="http://x/in?event=mine&").url == "http://x/in?event=mine&"


@pytest.mark.parametrize("method", ["PATCH", "patch"])
def test_patch_is_sent_like_post(method: str) -> None:
    request = sent(requestType=method, json={"t": "{{t}}"}, noDefaults=True)
    assert (request.method, json.loads(request.body or b"")) == ("PATCH", {"t": "21.5"})
    assert form(sent(requestType=method)) == DEFAULTS


def test_a_list_is_rendered_leaf_by_leaf_and_has_no_defaults() -> None:
    request = sent(json=[{"measurement": "t", "fields": {"value": "{{t}}", "n": 5}}, "{{{s}}}"])
    assert json.loads(request.body or b"") == [{"measurement": "t", "fields": {"value": "21.5", "n": 5}}, 'a "b" & c']
    assert json.loads(sent(json=[1, {"a": None}]).body or b"") == [1, {"a": None}]
    assert json.loads(sent(json=[]).body or b"") == []


@pytest.mark.parametrize("nothing", [True, {}, [], False, "", None, "true", "{}", " [] "])
def test_on_get_an_empty_json_is_none(nothing: Any) -> None:
    request = sent(json=nothing, requestType="GET")
    assert (query(request), request.body) == (DEFAULTS, None)
    assert "Content-Type" not in headers(request)


@pytest.mark.parametrize("nothing", [True, {}, [], False, ""])
def test_an_empty_json_beside_another_body_is_none(nothing: Any) -> None:
    assert form(sent(json=nothing, form={"a": "1"}, noDefaults=True)) == {"a": "1"}
    assert sent(json=nothing, body="x").body == b"x"


def test_with_many_secrets_no_large_answer_is_read() -> None:
    def read(secrets: int, **fields: Any) -> int:
        given = {f"X-Key-{number}": "s3cret" for number in range(secrets)}
        return sent(headers=given, secretHeaders=list(given), **fields).answer_bytes

    assert read(8, responseTemplate="{{t}}") == 1_000_000
    assert read(9, responseTemplate="{{t}}") == read(0) == 100_000


def test_json_with_get_is_its_body_and_the_defaults_are_in_the_query() -> None:
    request = sent(json={"q": "{{t}}"}, requestType="GET")
    assert (request.method, json.loads(request.body or b""), query(request)) == ("GET", {"q": "21.5"}, DEFAULTS)
    assert headers(request)["Content-Type"] == "application/json"
    (warning,) = HOOK.read({"url": "http://x/", "json": {"q": 1}, "requestType": "GET"}, {}).warnings
    assert warning.startswith("json: is sent as the body of a GET")


@pytest.mark.parametrize("password", ["a{{b", "{{", "}}{{", "{{#x}}", "{{/x}}y", "a{{}}b", "{{=x}}", "p{{{w"])
def test_a_secret_that_is_no_template_is_meant_as_it_is(password: str) -> None:
    credentials = base64.b64encode(f"u:{password}".encode()).decode()
    assert headers(sent(auth={"username": "u", "password": password}))["Authorization"] == f"Basic {credentials}"
    assert headers(sent(headers={"Authorization": password}))["Authorization"] == password
    assert headers(sent(headers={"X-Key": password}, secretHeaders=["x-key"]))["X-Key"] == password
    with pytest.raises(InvalidConfig, match=r"headers\.X-Open"):
        sent(headers={"X-Open": "{{"})


def test_user_and_password_in_the_url_are_percent_decoded() -> None:
    credentials = base64.b64encode(b"user@corp:p@ss:w").decode()
    request = sent(url="http://user%40corp:p%40ss%3Aw@host/")
    assert (request.url, headers(request)["Authorization"]) == ("http://host/", f"Basic {credentials}")


@pytest.mark.parametrize(("part", "sent_as"), [("50%", "50%25"), ("a%2Fb", "a%2Fb"), ("%zz%20%", "%25zz%20%25")])
def test_a_percent_sign_that_encodes_nothing_is_encoded(part: str, sent_as: str) -> None:
    assert sent(url=f"http://host/{part}/x?q={part}").url == f"http://host/{sent_as}/x?q={sent_as}"
