"""Reading a webhook's configuration: every field and spelling of integrations.md, section 4."""

from __future__ import annotations

from typing import Any

import pytest

from wirechamber.integrations.base import MASK, InvalidConfig
from wirechamber.integrations.fields import common
from wirechamber.integrations.webhook import Webhook

HOOK = Webhook()
URL = "https://example.com/in"
# As Particle's console exports it, in its order, with its empty texts.
EXPORT: dict[str, Any] = {
    "name": "temp", "event": "Anomaly score: ", "responseTopic": "", "disabled": False, "template": "webhook",
    "url": URL, "requestType": "POST", "noDefaults": False, "rejectUnauthorized": True, "unchunked": False,
    "dataUrlResponseEvent": False, "errorResponseTopic": "", "headers": {"Authorization": "Bearer abc"},
    "auth": {"username": "u", "password": "p"}, "query": {"q": "{{x}}"}, "json": True, "responseTemplate": "{{y}}",
}  # fmt: skip


def read(**fields: Any) -> Any:
    return HOOK.read({"url": URL} | fields, {}).config


def test_a_console_export_imports_as_it_is() -> None:
    shared = common(EXPORT)
    assert (shared.event, shared.name, shared.device, shared.disabled) == ("Anomaly score: ", "temp", None, False)
    reading = HOOK.read(shared.rest, {})
    assert reading.warnings == ()
    assert reading.config.response_topic is None
    assert reading.config.json is True
    assert reading.settings["headers"] == {"Authorization": MASK}
    assert reading.settings["auth"] == {"username": "u", "password": MASK}
    assert reading.secrets == {"headers.Authorization": "Bearer abc", "auth.password": "p"}


def test_a_whole_template_file_of_the_cli_is_taken_and_the_unknown_is_named() -> None:
    sent = {"event": "x", "eventName": "x", "url": URL, "rejectUnauthorized": "true", "mydevices": True, "_": "note"}
    reading = HOOK.read(common(sent).rest, {})
    assert reading.config.reject_unauthorized is True
    assert reading.settings["_"] == "note"
    assert reading.settings["mydevices"] is True
    assert [warning.partition(":")[0] for warning in reading.warnings] == ["_"]


@pytest.mark.parametrize("spelling", ["event", "eventName"])
def test_a_spelling_of_the_event(spelling: str) -> None:
    assert common({spelling: " keeps blanks "}).event == " keeps blanks "


@pytest.mark.parametrize("spelling", ["deviceID", "deviceid", "deviceId", "coreID"])
def test_a_spelling_of_the_device(spelling: str) -> None:
    assert common({"event": "x", spelling: "ABCDEF0123456789ABCDEF01"}).device == "abcdef0123456789abcdef01"


@pytest.mark.parametrize(
    ("spelling", "attribute"),
    [
        ("method", "request_type"), ("requestType", "request_type"), ("responseEvent", "response_topic"),
        ("responseTopic", "response_topic"), ("errorResponseTopic", "error_response_topic"),
        ("errorResponseEvent", "error_response_topic"), ("errorTopic", "error_response_topic"),
    ],
)  # fmt: skip
def test_a_spelling_of_a_text(spelling: str, attribute: str) -> None:
    assert getattr(read(**{spelling: "PUT"}), attribute) == "PUT"


@pytest.mark.parametrize("spelling", ["dataUrlResponseEvent", "dataUriResponseEvent", "data_url_response_event"])
@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("1", True), (1, True), ("false", False)])
def test_a_boolean_in_any_spelling(spelling: str, text: Any, value: bool) -> None:
    assert read(**{spelling: text}).data_url_response_event is value


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": ""}, "url"), ({"url": "ftp://x/"}, "url"), ({"url": "x"}, "url"), ({"url": "http://x/\n"}, ""),
        ({"url": "http://x/" + "y" * 9000}, "url"), ({"url": 5}, "url"), ({"requestType": "HEAD"}, "requestType"),
        ({"json": {"a": 1}, "form": {"a": "1"}}, "form"), ({"json": "x", "body": "y"}, "body"),
        ({"json": 5}, "json"), ({"json": [1], "form": {"a": "1"}}, "form"),
        ({"body": "x", "requestType": "GET"}, "body"), ({"form": "nonsense"}, "form"), ({"form": [1]}, "form"),
        ({"headers": {"a b": "c"}}, "headers.a b"), ({"headers": {"a": "b\r\nc: d"}}, "headers.a"),
        ({"auth": "x"}, "auth"), ({"auth": {"password": "x"}}, "auth"), ({"auth": {"username": "u", "x": 1}}, "auth"),
        ({"noDefaults": "maybe"}, "noDefaults"), ({"responseTemplate": 5}, "responseTemplate"),
        ({"responseTopic": ["x"]}, "responseTopic"), ({"secretHeaders": 5}, "secretHeaders"),
        ({"auth": {"username": "u", "password": MASK}}, "auth.password"),
    ],
)  # fmt: skip
def test_what_can_not_be_taken_is_refused_by_its_field(fields: dict[str, Any], field: str) -> None:
    if not field:
        assert read(**fields).url == "http://x/"
        return
    with pytest.raises(InvalidConfig) as refused:
        read(**fields)
    assert refused.value.field == field
    assert refused.value.description.startswith(f"{field}: ")


@pytest.mark.parametrize("sent", [{}, {"event": ""}, {"event": "x" * 65}, {"event": ["x"]}])
def test_what_every_kind_has_is_validated_too(sent: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        common(sent)


TEMPLATED = {
    "url": "http://x/{{#a}}", "query": {"q": "{{"}, "form": {"{{#a}}": "x"}, "json": {"a": {"b": ["{{/x}}"]}},
    "body": "{{", "headers": {"X": "{{#a}}"}, "auth": {"username": "{{", "password": "x"}, "responseTopic": "{{#a}}",
    "errorResponseTopic": "{{}}", "responseTemplate": {"a": "{{{x}}"},
}  # fmt: skip


@pytest.mark.parametrize("field", TEMPLATED)
def test_a_malformed_template_is_refused_with_its_place_when_saved(field: str) -> None:
    with pytest.raises(InvalidConfig, match=r"line \d+, column \d+") as refused:
        HOOK.prepare(read(**{field: TEMPLATED[field]}))
    assert refused.value.field.startswith(field)


def test_the_mask_sent_back_keeps_the_stored_value() -> None:
    first = HOOK.read({"url": URL, "auth": {"username": "u", "password": "p"}, "headers": {"cookie": "c"}}, {})
    again = HOOK.read(first.settings, first.secrets)
    assert again.config == first.config
    assert again.secrets == first.secrets


def test_headers_named_as_secret_are_kept_out_of_sight() -> None:
    reading = HOOK.read({"url": URL, "headers": {"X-Key": "k", "X-Open": "o"}, "secretHeaders": ["x-key"]}, {})
    assert reading.settings["headers"] == {"X-Key": MASK, "X-Open": "o"}
    assert reading.secrets == {"headers.X-Key": "k"}


def test_a_password_in_the_url_moves_to_auth() -> None:
    reading = HOOK.read({"url": "https://user:pass@example.com/x"}, {})
    assert reading.settings["url"] == "https://example.com/x"
    assert reading.secrets == {"auth.password": "pass"}
    assert reading.warnings


@pytest.mark.parametrize(
    "name",
    [
        "X-Api-Key", "x-aio-key", "Ocp-Apim-Subscription-Key", "X-Auth-Token", "aeg-sas-key", "apikey", "X-Key",
        "API_TOKEN", "x-functions-key", "X-Shared-Secret",
    ],
)  # fmt: skip
def test_a_header_whose_name_says_that_it_is_a_key_is_secret(name: str) -> None:
    reading = HOOK.read({"url": URL, "headers": {name: "abcdefgh", "X-Plain": "v"}}, {})
    assert reading.settings["headers"] == {name: MASK, "X-Plain": "v"}
    assert reading.secrets == {f"headers.{name}": "abcdefgh"}
    # Sent back as it was shown.
    assert HOOK.read(reading.settings, reading.secrets).config.headers == {name: "abcdefgh", "X-Plain": "v"}


@pytest.mark.parametrize("name", ["Idempotency-Key", "X-Partition-Key", "X-Device", "Monkey", "X-Keyboard", "Tokens"])
def test_other_headers_are_shown(name: str) -> None:
    reading = HOOK.read({"url": URL, "headers": {name: "v"}}, {})
    assert (reading.settings["headers"], reading.secrets) == ({name: "v"}, {})


def test_keys_that_everybody_sees_are_warned_of() -> None:
    for fields in (
        {"query": {"api_key": "WRITEKEY01", "field1": "2"}},
        {"form": {"token": "a1b2c3"}, "query": {"token": "{{{t}}}"}},
        {"json": {"accessToken": "a1b2c3", "key": 5, "list": ["x"]}},
        {"url": f"{URL}?code=1&key=a1b2c3#x"},
    ):
        ((warning),) = HOOK.read({"url": URL} | fields, {}).warnings
        assert "looks like a key" in warning
        assert "a1b2c3" not in warning


@pytest.mark.parametrize("value", ["a\0b", "a\nb", "a\rb"])
def test_a_header_that_no_request_can_have_is_refused(value: str) -> None:
    with pytest.raises(InvalidConfig, match="line breaks or null"):
        read(headers={"X-Plain": value})


@pytest.mark.parametrize("url", [URL + "/{{{v}}}", URL + "?a={{ where.name }}", URL + "?a={{&v}}"])
def test_data_in_the_url_is_warned_of(url: str) -> None:
    ((warning),) = HOOK.read({"url": url}, {}).warnings
    assert "changes the address" in warning


@pytest.mark.parametrize(
    "url", [URL + "/{{{PARTICLE_DEVICE_ID}}}", URL + "?{{#on}}a=1{{/on}}", "{{{url}}}", "http://{{{h}}}/x"]
)
def test_what_the_cloud_prints_into_the_url_is_not(url: str) -> None:
    assert HOOK.read({"url": url}, {}).warnings == ()
