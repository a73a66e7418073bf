"""Input that can't be taken: it is refused with its status, in JSON, is counted, and costs nobody else anything."""

from __future__ import annotations

import base64
import gzip
import json
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cloud import Cloud, Target, cloud, eventually
from tests.sse import stream, take

PASSWORD = "correct horse"
DEVICE = "0123456789abcdef01234567"
EVENTS = "/v1/devices/events"
HOOK = {"event": "x", "url": "http://127.0.0.1:1/"}


class Ann(NamedTuple):
    """A user of a cloud, with a device and a webhook."""

    live: Cloud
    client: httpx.Client
    hook: str


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ann]:
    with cloud(tmp_path_factory.mktemp("bad") / "data", login_failures="1000", retry_schedule="0") as live:
        client = live.client(live.user("ann", PASSWORD))
        live.command("device", "add", DEVICE, "--owner", "ann")
        yield Ann(live, client, client.post("/v1/webhooks", json=HOOK).json()["id"])


def refusals(live: Cloud) -> dict[str, float]:
    """How often input was refused, by reason."""
    return {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(httpx.get(f"{live.url}/metrics").text)
        for sample in family.samples
        if sample.name == "wirechamber_input_refused_total"
    }


def check_body(said: dict[str, Any], error: str) -> None:
    assert said["ok"] is False
    assert error in said["error"]
    assert isinstance(said["error_description"], str)
    assert said["error_description"]


def part(body: bytes, *headers: str, name: str = "name") -> bytes:
    """A form of one part."""
    lines = [f'Content-Disposition: form-data; name="{name}"', *headers]
    return b"--x\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + body + b"\r\n--x--\r\n"


def multipart(body: bytes) -> dict[str, Any]:
    return {"headers": {"Content-Type": "multipart/form-data; boundary=x"}, "content": body}


def typed(kind: str, body: bytes) -> dict[str, Any]:
    return {"headers": {"Content-Type": kind}, "content": body}


def encoded(encoding: str, body: bytes) -> dict[str, Any]:
    return {"headers": {"Content-Encoding": encoding}, "content": body}


def keyed(key: bytes) -> dict[str, Any]:
    return {"headers": {"Idempotency-Key": key}, "json": {"name": "x"}}


def log_in(**fields: Any) -> dict[str, Any]:
    return {"json": {"grant_type": "password", "username": "ann", "password": PASSWORD} | fields}


INVALID, UNPACKED = "invalid_request", "unsupported_media_type"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
Case = tuple[str, str, dict[str, Any], int, str, str]

# Method, path, request, and the answer: status, (part of) `error`, and the reason it is counted under.
REFUSED: dict[str, Case] = {
    "a path that is not there": ("GET", "/v1/nothing", {}, 404, "not_found", "not_found"),
    "a method that is not there": (
        "PUT", EVENTS, typed(JSON, b"{}"), 405, "method_not_allowed", "method_not_allowed"),
    "multipart without boundary": ("POST", EVENTS, typed("multipart/form-data", b"x"), 400, INVALID, INVALID),
    "multipart rubbish": ("POST", EVENTS, multipart(b"\0\xff" * 50), 400, INVALID, INVALID),
    "multipart cut off": ("POST", EVENTS, multipart(part(b"x")[:-8]), 400, INVALID, INVALID),
    "multipart, a bad header": ("POST", EVENTS, multipart(part(b"x", "nonsense")), 400, INVALID, INVALID),
    "multipart, unknown charset": (
        "POST", EVENTS, multipart(part(b"x", "Content-Type: text/plain; charset=nonsense")), 400, INVALID, INVALID),
    "multipart, unknown encoding": (
        "POST", EVENTS, multipart(part(b"x", "Content-Transfer-Encoding: nonsense")), 400, INVALID, INVALID),
    "multipart, no UTF-8": ("POST", EVENTS, multipart(part(b"\xff")), 400, INVALID, INVALID),
    "multipart in multipart": (
        "POST", EVENTS, multipart(b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y--\r\n--x--\r\n"),
        400, INVALID, INVALID),
    "multipart too large": ("POST", EVENTS, multipart(part(b"x" * 2**21)), 413, "too_large", "too_large"),
    "multipart of many parts": (
        "POST", EVENTS, multipart(b"".join(part(b"x", name=f"a{n}")[:-7] for n in range(20_000)) + b"--x--\r\n"),
        413, "too_large", "too_large"),
    "multipart, a file for a text": (
        "POST", EVENTS, multipart(part(b"x").replace(b'"name"', b'"name"; filename="f"')), 400, "name is required",
        INVALID),
    "not compressed as it says": ("POST", EVENTS, encoded("gzip", b"rubbish"), 415, UNPACKED, UNPACKED),
    "a compressed bomb": (
        "POST", EVENTS, encoded("gzip", gzip.compress(b"{" + b" " * 50_000_000)), 415, UNPACKED, UNPACKED),
    "compressed, to log in": ("POST", "/oauth/token", encoded("deflate", b"x"), 415, UNPACKED, UNPACKED),
    "compressed, to nowhere": ("POST", "/v1/nothing", encoded("br", b"x"), 415, UNPACKED, UNPACKED),
    "compressed, in another way": ("PATCH", EVENTS, encoded("zstd", b"x"), 415, UNPACKED, UNPACKED),
    "compressed twice": ("POST", EVENTS, encoded("identity, gzip", b"x"), 415, UNPACKED, UNPACKED),
    "compressed, in pieces": (
        "POST", EVENTS, {"headers": {"Content-Encoding": "gzip"}, "content": iter([b"a", b"b"])}, 415, UNPACKED,
        UNPACKED),
    "multipart, a compressed part": (
        "POST", EVENTS, multipart(part(b"x", "Content-Encoding: gzip")), 415, UNPACKED, UNPACKED),
    "multipart, in base64": (
        "POST", EVENTS, multipart(part(b"eA==", "Content-Transfer-Encoding: base64")), 400, INVALID, INVALID),
    "multipart of 501 parts": (
        "POST", EVENTS, multipart(b"".join(part(b"x", name=f"a{n}")[:-7] for n in range(501)) + b"--x--\r\n"),
        400, INVALID, INVALID),
    "JSON of many lists": (
        "POST", EVENTS, typed(JSON, b'{"name":"x","data":[' + b"[]," * 150_000 + b"0]}"), 400, INVALID, INVALID),
    "a form of many escapes": ("POST", EVENTS, typed(FORM, b"name=" + b"%41" * 150_000), 400, INVALID, INVALID),
    "a large body of a stranger": (
        "POST", EVENTS, {"headers": {"Authorization": ""}, "content": b"x" * 200_000}, 413, "too_large", "too_large"),
    "JSON that is a text": ("POST", EVENTS, typed(JSON, b"name=x"), 400, INVALID, INVALID),
    "JSON that is null": ("POST", EVENTS, typed(JSON, b"null"), 400, INVALID, INVALID),
    "JSON, a number out of range": ("POST", EVENTS, typed(JSON, b'{"name":"x","data":1e999}'), 400, INVALID, INVALID),
    "JSON cut off": ("POST", EVENTS, typed(JSON, b'{"name":"x'), 400, INVALID, INVALID),
    "JSON in UTF-16": ("POST", EVENTS, typed(JSON, '{"name":"x"}'.encode("utf-16-le")), 400, INVALID, INVALID),
    "form, no UTF-8": ("POST", EVENTS, typed(FORM, b"name=%ff"), 400, INVALID, INVALID),
    "form, a text and an object": ("POST", EVENTS, typed(FORM, b"name=b&name[a]=c"), 400, INVALID, INVALID),
    "form, an object for a text": ("POST", EVENTS, typed(FORM, b"name[a]=b"), 400, "name is required", INVALID),
    "a list for a text": ("POST", EVENTS, {"json": {"name": ["x"]}}, 400, "name is required", INVALID),
    "ttl, an object": ("POST", EVENTS, {"json": {"name": "x", "ttl": {}}}, 400, INVALID, INVALID),
    "ttl of 5,000 digits": ("POST", EVENTS, {"json": {"name": "x", "ttl": "1" * 5000}}, 400, INVALID, INVALID),
    "key too long": ("POST", EVENTS, keyed(b"k" * 256), 400, INVALID, INVALID),
    "key, no UTF-8": ("POST", EVENTS, keyed(b"\xff\xfe"), 400, INVALID, INVALID),
    "token, no UTF-8": (
        "GET", "/v1/devices", {"headers": {"Authorization": b"Bearer \xff\xfe"}}, 401, "invalid_token",
        "invalid_token"),
    "token in the query, no UTF-8": (
        "GET", "/v1/devices?access_token=%ff%00", {"headers": {"Authorization": ""}}, 401, "invalid_token",
        "invalid_token"),
    "token twice": ("GET", "/v1/devices?access_token=x", {}, 400, INVALID, INVALID),
    "Basic, no ASCII": (
        "GET", "/v1/access_tokens", {"headers": {"Authorization": b"Basic \xff"}}, 401, INVALID, "invalid_token"),
    "Basic, no colon": (
        "GET", "/v1/access_tokens", {"headers": {"Authorization": "Basic QUJD"}}, 401, INVALID, "invalid_token"),
    "login, a number for a text": ("POST", "/oauth/token", log_in(username=5), 400, INVALID, INVALID),
    "login, a list for the grant": (
        "POST", "/oauth/token", log_in(grant_type=["password"]), 400, "unsupported_grant_type",
        "unsupported_grant_type"),
    "login, a long name": (
        "POST", "/oauth/token", log_in(username="a" * 100_000), 400, "invalid_grant", "invalid_grant"),
    "login, a long life": ("POST", "/oauth/token", log_in(expires_in="9" * 5000), 400, INVALID, INVALID),
    "login, a negative life": ("POST", "/oauth/token", log_in(expires_in=-1), 400, INVALID, INVALID),
    "login, no time": ("POST", "/oauth/token", log_in(expires_at="tomorrow"), 400, INVALID, INVALID),
    "login, an unknown scope": (
        "POST", "/oauth/token", log_in(scope="nonsense"), 400, "invalid_scope", "invalid_scope"),
    "account, a list": ("PUT", "/v1/user", {"json": {"account_info": []}}, 400, INVALID, INVALID),
    "account, a short password": (
        "PUT", "/v1/user", {"json": {"password": "x", "current_password": PASSWORD}}, 400, INVALID, INVALID),
    "claim, a list": ("POST", "/v1/devices", {"json": {"id": [DEVICE]}}, 400, "arg.deviceID", INVALID),
    "device, a name too long": ("PUT", f"/v1/devices/{DEVICE}", {"json": {"name": "n" * 129}}, 400, INVALID, INVALID),
    "device, an object for a name": ("PUT", f"/v1/devices/{DEVICE}", {"json": {"name": {}}}, 400, INVALID, INVALID),
    "device, notes too long": ("PUT", f"/v1/devices/{DEVICE}", {"json": {"notes": "n" * 4097}}, 400, INVALID, INVALID),
    "device, a list for notes": ("PUT", f"/v1/devices/{DEVICE}", {"json": {"notes": ["n"]}}, 400, INVALID, INVALID),
    "device, nothing to change": ("PUT", f"/v1/devices/{DEVICE}", {"json": {}}, 400, INVALID, INVALID),
    "device, a name of other bytes": ("GET", "/v1/devices/%ff%00", {}, 403, "Permission Denied", "unauthorized"),
    "page, other digits": ("GET", "/v1/devices?page=%D9%A3", {}, 400, INVALID, INVALID),
    "page, a huge number": ("GET", f"/v1/devices?page={'9' * 5000}", {}, 400, INVALID, INVALID),
    "page, a negative number": ("GET", "/v1/devices?per_page=-1", {}, 400, INVALID, INVALID),
    "logs, an unknown status": ("GET", "/v1/integrations/HOOK/logs?status=odd", {}, 400, INVALID, INVALID),
    "logs, no number": ("GET", "/v1/integrations/HOOK/logs?per_page=all", {}, 400, INVALID, INVALID),
    "stream, other digits": ("GET", f"{EVENTS}?last_event_id=%D9%A3", {}, 400, INVALID, INVALID),
    "stream, other bytes": ("GET", EVENTS, {"headers": {"Last-Event-ID": b"\xff"}}, 400, INVALID, INVALID),
    "switch, no boolean": ("PUT", "/v1/integrations/HOOK", {"json": {"disabled": "maybe"}}, 400, "disabled", INVALID),
    "switch, a list": ("PUT", "/v1/integrations/HOOK", {"json": {"disabled": [True]}}, 400, "disabled", INVALID),
    "another type": (
        "PUT", "/v1/integrations/HOOK", {"json": HOOK | {"integration_type": "Mail"}}, 400, "integration_type",
        INVALID),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_it_is_refused_in_json_and_counted(ann: Ann, case: Case) -> None:
    method, path, request, status, error, reason = case
    before = refusals(ann.live)
    # A connection of its own: one whose body can't be read is closed.
    with httpx.Client(base_url=ann.live.url, headers=ann.client.headers, timeout=20) as client:
        answer = client.request(method, path.replace("HOOK", ann.hook), **request)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    check_body(answer.json(), error)
    after = refusals(ann.live)
    assert {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)} == {
        reason: 1
    }
    assert ann.client.post(EVENTS, json={"name": "fine"}).status_code == 200


FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"event": {}}, "event", "must be a text, not an object"),
    ({"event": "x" * 65}, "event", "at most 64 characters, not 65"),
    ({"name": ["x"]}, "name", "must be a text, not a list"),
    ({"name": "n" * 257}, "name", "at most 256 characters, not 257"),
    ({"deviceID": "kitchen"}, "deviceID", "24 hex digits"),
    ({"integration_type": 5}, "integration_type", "must be one of Webhook"),
    ({"url": ["http://x/"]}, "url", "must be a text, not a list"),
    ({"url": "http://x/" + "y" * 8_192}, "url", "at most 8192 characters, not 8201"),
    ({"url": "gopher://x/"}, "url", "must begin with http:// or https://"),
    ({"requestType": ["POST"]}, "requestType", "must be a text, not a list"),
    ({"headers": [1]}, "headers", "must be an object of names and values, not a list"),
    ({"headers": {f"X-{n}": "x" for n in range(257)}}, "headers", "at most 256 entries, not 257"),
    ({"headers": {"a b": "x"}}, "headers.a b", "is no header name"),
    ({"json": 5}, "json", "must be an object, a list, a template of one, or true, not a number"),
    ({"body": 5}, "body", "must be a text, not a number"),
    ({"query": "a=b"}, "query", "must be an object of names and values"),
    ({"auth": []}, "auth", "must be an object"),
    ({"auth": {"username": "u", "realm": "r"}}, "auth", "must be an object with username and password"),
    ({"secretHeaders": [1]}, "secretHeaders", "must be a list of header names"),
    ({"noDefaults": "maybe"}, "noDefaults", "must be true or false"),
    ({"responseTemplate": 1}, "responseTemplate", "must be a text, an object or a list, not a number"),
]


@pytest.mark.parametrize(("extra", "field", "why"), FIELDS, ids=lambda value: str(value)[:40])
def test_a_field_of_an_integration_is_refused_by_its_name(
    ann: Ann, extra: dict[str, Any], field: str, why: str
) -> None:
    before = len(ann.client.get("/v1/integrations").json())
    for answer in (
        ann.client.post("/v1/integrations", json=HOOK | extra),
        ann.client.put(f"/v1/webhooks/{ann.hook}", json=HOOK | extra),
    ):
        assert answer.status_code == 400, answer.text
        said = answer.json()
        check_body(said, f"{field}: ")
        assert (said["field"], said["error"]) == (field, said["error_description"])
        assert why in said["error"]
    # Nothing was saved.
    assert len(ann.client.get("/v1/integrations").json()) == before
    assert ann.client.get(f"/v1/webhooks/{ann.hook}").json()["webhook"]["url"] == HOOK["url"]


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"body": "x" * 600_000}, "larger than 524288 bytes"),
        ({"json": json.loads('{"a":' * 70 + "1" + "}" * 70)}, "nested more than 64 deep"),
        ({"json": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "nested more than 32 deep"),
        ({"body": "x" * 262_145}, "262144"),
    ],
    ids=["size", "depth", "depth of a body", "one template"],
)
def test_a_configuration_is_bounded(ann: Ann, extra: dict[str, Any], why: str) -> None:
    answer = ann.client.post("/v1/webhooks", json=HOOK | extra)
    assert answer.status_code == 400, answer.text
    assert why in answer.json()["error_description"]


TEMPLATES: list[tuple[str, Any, str, str]] = [
    ("url", "http://x/{{#a}}", "url", "(line 1, column 10)"),
    ("query", {"q": "ab{{"}, "query.q", "(line 1, column 3)"),
    ("form", {"{{#a}}": "x"}, "form", "(line 1, column 1)"),
    ("headers", {"X-A": "{{/a}}"}, "headers.X-A", "(line 1, column 1)"),
    ("json", {"a": {"b": ["ok", "{{{x}}"]}}, "json.a.b", "(line 1, column 1)"),
    ("json", '{\n  "a": "{{#b}}"\n}', "json", "(line 2, column 9)"),
    ("body", "first\nsecond {{#a}}\n{{/b}}", "body", "(line 3, column 1)"),
    ("body", "{{#a}}" * 65 + "{{/a}}" * 65, "body", "(line 1, column 385)"),
    ("auth", {"username": "u{{", "password": "p"}, "auth.username", "(line 1, column 2)"),
    ("responseTopic", "x{{#a}}", "responseTopic", "(line 1, column 2)"),
    ("errorResponseTopic", "{{}}", "errorResponseTopic", "(line 1, column 1)"),
    ("responseTemplate", "é\n{{a", "responseTemplate", "(line 2, column 1)"),
]


@pytest.mark.parametrize(("name", "template", "field", "place"), TEMPLATES, ids=lambda value: str(value)[:30])
def test_a_malformed_template_is_refused_with_its_place(
    ann: Ann, name: str, template: Any, field: str, place: str
) -> None:
    answer = ann.client.post("/v1/integrations", json=HOOK | {name: template})
    assert answer.status_code == 400, answer.text
    said = answer.json()
    check_body(said, place)
    assert "is no valid template" in said["error"]
    assert said["field"] == field


def test_unknown_fields_are_kept_and_named(ann: Ann) -> None:
    sent = HOOK | {"colour": "red", "size": {"width": [1, 2.5, None]}, "_": "a note", "mydevices": True, "query": {}}
    made = ann.client.post("/v1/integrations", json=sent).json()
    assert sorted(made["warnings"]) == [
        f"{name}: is not known; it is stored and does nothing" for name in ("_", "colour", "size")
    ]
    shown = ann.client.get(f"/v1/integrations/{made['id']}").json()["integration"]
    assert {key: shown[key] for key in ("colour", "size", "_", "mydevices")} == {
        key: sent[key] for key in ("colour", "size", "_", "mydevices")
    }
    # As a form, and on replacing; what answers carry is read-only and no reason to warn.
    form = {"event": "x", "url": HOOK["url"], "shape": "round", "id": "f" * 24, "created_at": "never"}
    replaced = ann.client.put(f"/v1/integrations/{made['id']}", data=form).json()
    assert replaced["warnings"] == ["shape: is not known; it is stored and does nothing"]
    assert replaced["id"] == made["id"]
    assert "colour" not in replaced
    assert ann.client.delete(f"/v1/integrations/{made['id']}").status_code == 204


def connect(live: Cloud, data: bytes = b"", timeout_s: float = 20.0) -> socket.socket:
    host, _, port = live.url.removeprefix("http://").partition(":")
    made = socket.create_connection((host, int(port)), timeout=timeout_s)
    made.sendall(data)
    return made


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the next answer."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        more = connection.recv(65536)
        assert more, f"the connection ended after {raw!r}"
        raw += more
    head, _, body = raw.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert headers[b"content-type"] == b"application/json; charset=utf-8", head
    while len(body) < int(headers[b"content-length"]):
        body += connection.recv(65536)
    return int(head.split()[1]), json.loads(body)


POST = b"POST /v1/devices/events HTTP/1.1\r\nHost: x\r\n"
RAW: dict[str, tuple[bytes, int, str]] = {
    "no host": (b"GET /v1/user HTTP/1.1\r\n\r\n", 400, INVALID),
    "another version": (b"GET /v1/user HTTP/9.9\r\nHost: x\r\n\r\n", 400, INVALID),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, INVALID),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50), 400, INVALID),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, INVALID),
    "a length and chunks": (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, INVALID),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", 400, INVALID),
    "a NUL in a header": (b"GET /v1/user HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400, INVALID),
    "a blank in a header's name": (b"GET /v1/user HTTP/1.1\r\nHost : x\r\n\r\n", 400, INVALID),
    "an expectation": (POST + b"Expect: nonsense\r\nContent-Length: 1\r\n\r\n", 417, INVALID),
    "a proxy's CONNECT": (b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n", 404, "not_found"),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found"),
    "an unknown compression": (POST + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\nxx", 415, UNPACKED),
}


@pytest.mark.parametrize(("raw", "status", "error"), RAW.values(), ids=RAW)
def test_what_no_route_sees_is_refused_in_json_and_counted(ann: Ann, raw: bytes, status: int, error: str) -> None:
    before = refusals(ann.live)
    with connect(ann.live, raw) as connection:
        found, said = answer_of(connection)
    assert found == status
    check_body(said, error)
    assert refusals(ann.live).get(error, 0) == before.get(error, 0) + 1


def test_broken_bodies_are_no_fault_of_ours(ann: Ann) -> None:
    token = ann.client.headers["Authorization"].encode()
    for path in (b"/v1/devices/events", b"/nothing"):
        head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nAuthorization: " + token + b"\r\nContent-Encoding: gzip\r\n"
        with connect(ann.live, head + b"Content-Length: 7\r\n\r\nrubbish") as connection:
            status, _ = answer_of(connection)
            assert status == 415
            # Nobody knows where a next request would begin.
            assert connection.recv(10) == b""
    lines = [json.loads(line) for line in ann.live.log_file.read_text().splitlines()]
    assert [line for line in lines if line["level"] in ("error", "critical")] == []


def cpu_of(live: Cloud) -> float:
    """Seconds of CPU that the cloud has used."""
    return next(
        sample.value
        for family in text_string_to_metric_families(httpx.get(f"{live.url}/metrics").text)
        for sample in family.samples
        if sample.name == "wirechamber_process_cpu_seconds_total"
    )


# Each of the first took the loop for a second or more, for anybody who asked, without a token.
DEAR: dict[str, dict[str, Any]] = {
    "text in a coding that takes the square of its length": multipart(
        part(b"a" * 60_000 + b"-" + b"a" * 60_000, "Content-Type: text/plain; charset=punycode")
    ),
    "a type with many parameters": typed("text/plain; " + ";" * 7_800, b"{}"),
    "a type with a parameter in many pieces": typed("text/plain" + "".join(f"; x*{n}*=%61" for n in range(650)), b"{}"),
    "a number too large, and then quotes": typed(JSON, b'{"a":1e400,"b":' + b'\\"' * 60_000),
    "many brackets": typed(JSON, b'{"a":' * 24_000),
    "many escapes": typed(FORM, b"a=" + b"%41" * 30_000),
}


@pytest.mark.parametrize("request_", DEAR.values(), ids=DEAR.keys())
def test_what_a_stranger_sends_is_refused_at_little_cost(ann: Ann, request_: dict[str, Any]) -> None:
    before = cpu_of(ann.live)
    for number in range(5):
        # Each is another one: what was read of the same text may be kept.
        kind = request_["headers"]["Content-Type"].replace(";", f"; n={number};", 1)
        answer = httpx.post(f"{ann.live.url}/oauth/token", content=request_["content"], headers={"Content-Type": kind})
        assert answer.status_code == 400, answer.text
    assert cpu_of(ann.live) - before < 1.0


@pytest.mark.parametrize("charset", ["UTF-8", "us-ascii", "ISO-8859-1", "windows-1252"])
def test_a_part_of_a_form_may_say_how_it_is_written(ann: Ann, charset: str) -> None:
    form = multipart(part(b"spark", f"Content-Type: text/plain; charset={charset}"))
    assert ann.client.post(EVENTS, **form).status_code == 200


def test_a_body_in_many_small_pieces_comes_whole_and_holds_nobody_up(ann: Ann) -> None:
    head = (
        b"POST /v1/devices/events HTTP/1.1\r\nHost: x\r\nAuthorization: " + ann.client.headers["Authorization"].encode()
    )
    body = json.dumps({"name": "pieces", "data": "x" * 16_000}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with (
        stream(ann.client, EVENTS) as source,
        connect(ann.live, head + b"\r\nTransfer-Encoding: chunked\r\n\r\n") as made,
    ):
        # Another request behind it is answered in its turn.
        made.sendall(chunks + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = b""
        while part := made.recv(65536):
            got += part
        assert got.count(b"HTTP/1.1 200 OK") == 2, got
        (event,) = take(source, 1)
        assert (event.name, event.data) == ("pieces", "x" * 16_000)


def flood(connection: socket.socket, piece: bytes, most: int) -> tuple[int, dict[str, Any]] | None:
    """Sends until an answer comes, and returns it.

    None when the connection was reset instead: who closes with unread data before him resets it, and that may overtake
    the answer (RFC 9112, section 9.6).
    """
    sent = 0
    try:
        while not select.select([connection], [], [], 0)[0]:
            assert sent < most, "there was no answer"
            connection.sendall(piece)
            sent += len(piece)
        return answer_of(connection)
    except ConnectionError:
        return None


def test_a_body_without_end_is_cut_off(ann: Ann) -> None:
    before = refusals(ann.live)
    token = ann.client.headers["Authorization"].encode()
    head = POST + b"Authorization: " + token + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(ann.live, head) as connection:
        answered = flood(connection, b"4000\r\n" + b"x" * 0x4000 + b"\r\n", 64 * 2**20)
    if answered is not None:
        assert answered[0] == 413
        check_body(answered[1], "too_large")
    assert refusals(ann.live)["too_large"] == before.get("too_large", 0) + 1


@pytest.mark.parametrize("piece", [b"X-More: y\r\n" * 100, b"z" * 1000], ids=["lines", "one line"])
def test_headers_without_end_are_cut_off(ann: Ann, piece: bytes) -> None:
    before = refusals(ann.live)
    with connect(ann.live, POST + (b"X-Long: " if piece[:1] == b"z" else b"")) as connection:
        answered = flood(connection, piece, 16 * 2**20)
    if answered is not None:
        assert answered[0] in (400, 431)
        check_body(answered[1], INVALID)
    assert refusals(ann.live)[INVALID] == before.get(INVALID, 0) + 1


def test_slow_clients_are_let_go(ann: Ann) -> None:
    token = ann.client.headers["Authorization"].encode()
    good = b"GET /v1/user HTTP/1.1\r\nHost: x\r\nAuthorization: " + token + b"\r\n\r\n"
    body = POST + b"Authorization: " + token + b"\r\nContent-Length: 1000000\r\n\r\n"
    before = refusals(ann.live)
    with ExitStack() as stack:

        def opened(data: bytes) -> socket.socket:
            return stack.enter_context(connect(ann.live, data, 40.0))

        slow = [opened(b""), opened(b"GET /v1/us"), opened(POST)]
        dripping_headers, dripping_body, resting = opened(POST), opened(body), opened(good)
        assert answer_of(resting)[0] == 200
        closed: set[socket.socket] = set()

        def drip() -> bool:
            """One more piece to each that drips, as a network of bad faith would."""
            for connection, piece in ((dripping_headers, b"X: y\r\n"), (dripping_body, b"x")):
                if connection not in closed and not select.select([connection], [], [], 0.2)[0]:
                    with suppress(ConnectionError):
                        connection.sendall(piece)
            for connection in (*slow, dripping_headers):
                if connection not in closed and select.select([connection], [], [], 0)[0]:
                    # Closed without a word: there is no request yet to answer.
                    with suppress(ConnectionError):
                        assert connection.recv(100) == b""
                    closed.add(connection)
            return len(closed) == 4

        eventually(drip, 35.0, "closing the connections without a request")
        # One that rests between two requests is not meant.
        resting.sendall(good)
        assert answer_of(resting)[0] == 200
        eventually(lambda: drip() and select.select([dripping_body], [], [], 0)[0], 35.0, "the end of the body's time")
        status, said = answer_of(dripping_body)
    assert status == 408
    check_body(said, "timed out")
    assert refusals(ann.live)["timed out"] == before.get("timed out", 0) + 1


@pytest.mark.parametrize("answer", [b"\xff caf\xe9", b"half \xf0\x9f\x98", b"\0\x01 \xed\xa0\x80 ok"])
def test_an_answer_that_is_no_utf_8_becomes_text(ann: Ann, target: Target, answer: bytes) -> None:
    target.answer = lambda method, path, body: (200, {"Content-Type": "text/odd"}, answer)
    hooks = [
        ann.client.post("/v1/webhooks", json={"event": "odd", "url": target.url} | extra).json()["id"]
        for extra in ({"responseTopic": "as-text"}, {"responseTopic": "as-url", "dataUrlResponseEvent": True})
    ]
    with stream(ann.client, "/v1/devices/events/as-") as source:
        assert ann.client.post(EVENTS, json={"name": "odd"}).status_code == 200
        seen = {event.name: event.data for event in take(source, 2)}
    # The bytes themselves come through as a data URL only.
    assert seen == {
        "as-text/0": answer.decode("utf-8", "replace"),
        "as-url/0": f"data:text/odd;base64,{base64.b64encode(answer).decode()}",
    }
    for hook in hooks:
        (found,) = eventually(lambda hook=hook: ann.client.get(f"/v1/webhooks/{hook}/logs").json()["logs"])
        assert found["response"]["body"] == answer.decode("utf-8", "replace")
        assert found["response"]["body_length"] == len(answer)
        ann.client.delete(f"/v1/webhooks/{hook}")
