"""Every documented error, as clients read it: always JSON, always `error` and `error_description` as text."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.cloud import Cloud, eventually

UNKNOWN_DEVICE = "0123456789abcdef01234567"
Case = tuple[str, str, dict[str, Any], int, dict[str, Any]]

WITHOUT_TOKEN: list[Case] = [
    ("GET", "/v1/devices", {}, 400,
     {"error": "invalid_request", "error_description": "The access token was not found"}),
    ("GET", "/v1/devices", {"headers": {"Authorization": "Bearer null"}}, 401,
     {"error": "invalid_token", "error_description": "The access token provided is invalid."}),
    ("GET", "/v1/devices/events", {"headers": {"Authorization": "Bearer"}}, 400, {"error": "invalid_request"}),
    ("GET", "/v1/nothing", {}, 404, {"error": "not_found"}),
    ("PATCH", "/v1/devices", {}, 405, {"error": "method_not_allowed"}),
    ("POST", "/oauth/token", {"data": {"grant_type": "password", "username": "shared", "password": "wrong"}}, 400,
     {"error": "invalid_grant", "error_description": "User credentials are invalid"}),
    ("POST", "/oauth/token", {"data": {"grant_type": "authorization_code"}}, 400, {"error": "unsupported_grant_type"}),
    ("POST", "/oauth/token", {"data": {"grant_type": "client_credentials"}}, 400, {"error": "invalid_request"}),
    ("POST", "/oauth/token", {"data": {"grant_type": "client_credentials", "client_id": "x"}}, 400,
     {"error": "invalid_client"}),
    ("POST", "/oauth/token", {"data": {"grant_type": "refresh_token"}}, 400, {"error": "invalid_request"}),
    ("POST", "/oauth/token", {"data": {"grant_type": "refresh_token", "refresh_token": "x"}}, 400,
     {"error": "invalid_grant"}),
    ("POST", "/oauth/token", {"data": {"grant_type": "password"}}, 400, {"error": "invalid_request"}),
    ("POST", "/v1/users", {"json": {"username": "x", "password": "y"}}, 403, {"error": "unauthorized"}),
    ("GET", "/v1/access_tokens", {}, 401, {}),
    ("GET", "/v1/access_tokens", {"auth": ("shared", "wrong")}, 401, {"errors": ["Bad password"]}),
]  # fmt: skip

WITH_TOKEN: list[Case] = [
    ("GET", f"/v1/devices/{UNKNOWN_DEVICE}", {}, 403, {"error": "Permission Denied"}),
    ("GET", "/v1/devices/nothing", {}, 403, {"error": "Permission Denied"}),
    ("POST", "/v1/devices", {"json": {"id": UNKNOWN_DEVICE}}, 404, {"errors": ["device does not exist"]}),
    ("POST", "/v1/devices", {"json": {}}, 400, {"errors": ["arg.deviceID is empty"]}),
    ("GET", "/v1/integrations/nothing", {}, 404, {"error": "Webhook not found"}),
    ("DELETE", "/v1/webhooks/nothing", {}, 404, {"error": "Webhook not found"}),
    ("GET", "/v1/products/1/devices", {}, 404,
     {"ok": False, "error": "Product not found.", "error_description": "Product not found."}),
    ("POST", "/v1/products/1/events", {"json": {"name": "x"}}, 404, {"error": "Product not found."}),
    ("GET", "/v1/orgs/mine/events", {}, 404, {"error": "Product not found."}),
    ("POST", "/v1/products", {"json": {}}, 404, {"error": "Product not found."}),
    ("POST", "/v1/user/products", {"json": {"product": {"name": "x"}}}, 404, {"error": "Product not found."}),
    ("POST", "/v1/devices/events", {"content": b"{"}, 400, {"error": "invalid_request"}),
    ("POST", "/v1/devices/events", {"content": b"[1]"}, 400, {"error": "invalid_request"}),
    ("POST", "/v1/devices/events", {"content": b"\xff\xfe=1"}, 400, {"error": "invalid_request"}),
    ("POST", "/v1/devices/events", {"content": b'{"name": "\xff"}'}, 400, {"error": "invalid_request"}),
    ("POST", "/v1/devices/events", {"content": b"{" + b'"a":{' * 5000}, 400, {"error": "invalid_request"}),
    ("POST", "/v1/devices/events", {"json": {}}, 400, {"error": "name is required"}),
    ("POST", "/v1/devices/events", {"json": {"name": ""}}, 400, {"error": "name is required"}),
    ("POST", "/v1/devices/events", {"json": {"name": 5}}, 400, {}),
    ("POST", "/v1/devices/events", {"json": {"name": "x" * 65}}, 400, {}),
    ("POST", "/v1/devices/events", {"json": {"name": "a\nb"}}, 400, {}),
    ("POST", "/v1/devices/events", {"json": {"name": "é"}}, 400, {}),
    ("POST", "/v1/devices/events", {"json": {"name": "x", "data": "d" * 16_385}}, 400, {}),
    ("POST", "/v1/devices/events", {"json": {"name": "x", "data": "é" * 8_193}}, 400, {}),
    ("POST", "/v1/devices/events", {"json": {"name": "x", "ttl": "soon"}}, 400, {}),
    ("POST", "/v1/devices/events", {"json": {"name": "x", "ttl": 1.5}}, 400, {}),
    ("POST", "/v1/devices/events", {"json": {"name": "x", "ttl": True}}, 400, {}),
    ("POST", "/v1/devices/events", {"json": {"name": "x", "ttl": {}}}, 400, {}),
    ("POST", "/v1/devices/events", {"content": b'{"name":"x","data":"\\ud800"}'}, 400, {}),
    ("POST", "/v1/devices/events", {"content": b"x" * (1024 * 1024 + 1)}, 413, {"error": "too_large"}),
    ("POST", "/v1/devices/events", {"content": b"&".join(b"a%d=1" % i for i in range(600))}, 400, {}),
    ("POST", "/v1/devices/events", {"content": b"name=x&a" + b"[b]" * 20 + b"=1"}, 400, {}),
    ("GET", "/v1/devices?access_token=abc", {}, 400, {"error": "invalid_request"}),
    ("GET", "/v1/devices?page=zero", {}, 400, {}),
    ("GET", "/v1/events/" + "p" * 65, {}, 400, {}),
    ("POST", "/v1/integrations", {"json": {"integration_type": "Webhook", "url": "http://x/"}}, 400,
     {"field": "event"}),
    ("POST", "/v1/integrations", {"json": {"integration_type": "Nothing", "event": "x"}}, 400,
     {"field": "integration_type"}),
    ("POST", "/v1/webhooks", {"json": {"event": "x"}}, 400, {"field": "url"}),
    ("POST", "/v1/webhooks", {"json": {"event": "x", "url": "http://x/", "json": "{{#a}}"}}, 400, {"field": "json"}),
    ("POST", "/v1/webhooks", {"json": {"event": "x", "url": "http://x/", "requestType": "NONSENSE"}}, 400,
     {"field": "requestType"}),
    ("POST", "/v1/webhooks", {"json": {"event": "x", "url": "http://x/", "json": {}, "body": "x", "form": {"a": "b"}}},
     400, {"field": "body"}),
    ("PUT", "/v1/user", {"json": {"password": "a new password"}}, 400, {}),
    ("PUT", "/v1/user", {"json": {"username": ["x"], "current_password": "correct horse"}}, 400, {}),
    ("PUT", "/v1/user", {"json": {"account_info": {"first_name": "x" * 20_000}}}, 400, {}),
    ("PUT", "/v1/user", {"json": {"password": "a new password", "current_password": "wrong"}}, 400,
     {"error": "invalid_grant"}),
]  # fmt: skip


def check(answer: httpx.Response, status: int, body: dict[str, Any]) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    said = answer.json()
    assert isinstance(said["error"], str)
    assert isinstance(said["error_description"], str)
    assert said["error_description"]
    assert body.items() <= said.items()


@pytest.mark.parametrize("case", WITHOUT_TOKEN, ids=lambda case: f"{case[0]} {case[1]} {case[3]}")
def test_an_error_without_a_token(live_shared: tuple[Cloud, str], case: Case) -> None:
    method, path, rest, status, body = case
    check(httpx.request(method, live_shared[0].url + path, **rest), status, body)


@pytest.mark.parametrize("case", WITH_TOKEN, ids=lambda case: f"{case[0]} {case[1][:40]} {case[3]} {str(case[2])[:30]}")
def test_an_error_with_a_token(live_shared: tuple[Cloud, str], case: Case) -> None:
    method, path, rest, status, body = case
    cloud, token = live_shared
    with cloud.client(token) as client:
        check(client.request(method, path, **rest), status, body)


def test_an_expired_token_says_so(live_shared: tuple[Cloud, str]) -> None:
    cloud, _ = live_shared
    token = cloud.command("token", "create", "--user", "shared", "--expires-in", "1").strip()
    # Whether it was good meanwhile is a matter of how busy the machine is; one that never was is told otherwise.
    with cloud.client(token) as client:
        refused = eventually(lambda: (a := client.get("/v1/devices")).status_code == 401 and a)
    check(refused, 401, {"error": "invalid_token", "error_description": "The access token provided has expired."})


def test_an_expired_token_still_says_so_after_a_restart(live: Cloud) -> None:
    live.user("ann")
    token = live.command("token", "create", "--user", "ann", "--expires-in", "1").strip()
    with live.client(token) as client:
        eventually(lambda: client.get("/v1/devices").status_code == 401)
    # A server tidies up as it starts.
    assert live.stop() == 0
    live.start()
    with live.client(token) as client:
        refused = client.get("/v1/devices")
    check(refused, 401, {"error": "invalid_token", "error_description": "The access token provided has expired."})


@pytest.mark.parametrize(
    "raw",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Long: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"p" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(2_000)) + b"\r\n",
        b"POST /v1/devices/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_answered_in_json_and_costs_nobody_anything(
    live_shared: tuple[Cloud, str], raw: bytes
) -> None:
    import socket

    cloud, token = live_shared
    host, _, port = cloud.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(raw)
        answer = b""
        while part := connection.recv(65536):
            answer += part
            if b"}" in part:
                break
    assert answer.split(b" ")[1] in (b"400", b"431", b"413")
    assert b'"error_description"' in answer
    with cloud.client(token) as client:
        assert client.get("/v1/devices").status_code == 200
