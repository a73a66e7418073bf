"""What particle-cli 3.51 decides by an answer: when it forgets its token, what it prints, what it takes for a failure.

Its everyday commands are in test_recorded.py; here are the rest of its requests (clients.md, sections 3 and 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.cloud import Cloud, Target, cloud
from tests.sse import stream, take

USER = "ann@example.com"
PASSWORD = "correct horse"
DEVICE = "0123456789abcdef01234567"
TOOL = {"User-Agent": "particle-cli/3.51.0 (https://github.com/particle-iot/particle-cli)", "X-Particle-Tool": "cli"}


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("cli") / "data", retry_schedule="0", login_failures="1000") as live:
        live.user(USER, PASSWORD)
        live.command("device", "add", DEVICE, "--owner", USER, "--name", "kitchen")
        yield live


def log_in(live: Cloud, token: str | None = None, **fields: str) -> httpx.Response:
    """`particle login`; `token` is an old one that it still sends."""
    form = {
        "username": USER, "password": PASSWORD, "grant_type": "password",
        "client_id": "particle-cli", "client_secret": "particle-cli",
    }  # fmt: skip
    headers = TOOL if token is None else TOOL | {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{live.url}/oauth/token", data=form | fields, headers=headers)


@pytest.fixture
def cli(ann: Cloud) -> Iterator[httpx.Client]:
    token = log_in(ann).json()["access_token"]
    headers = TOOL | {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=ann.url, headers=headers, timeout=10) as client:
        yield client


def wants_login(answer: httpx.Response) -> bool:
    """Whether the CLI takes an answer for an authentication error: it then asks to log in again."""
    said = answer.json() if answer.content else {}
    return (
        answer.status_code == 401
        or said.get("error") in ("invalid_token", "expired_token")
        or "access token" in said.get("error_description", "").lower()
    )


def shown(answer: httpx.Response) -> str:
    """What the CLI prints of an error."""
    said: dict[str, Any] = answer.json()
    return str(said.get("error_description") or said.get("error") or (said.get("errors") or [said.get("info")])[0])


def test_an_old_token_beside_the_login_is_ignored(ann: Cloud) -> None:
    for old in ("null", "f" * 40):
        answer = log_in(ann, old)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert (said["token_type"], said["expires_in"]) == ("bearer", 90 * 86_400)
        assert len(said["access_token"]) == len(said["refresh_token"]) == 40


def test_a_wrong_password_is_shown_as_such(ann: Cloud) -> None:
    refused = log_in(ann, password="wrong")
    assert (refused.status_code, shown(refused)) == (400, "User credentials are invalid")
    # It would go on to ask for a second factor otherwise.
    assert refused.json()["error"] != "mfa_required"
    assert "mfa_token" not in refused.json()
    assert not wants_login(refused)


@pytest.mark.parametrize(("asked", "never"), [("0", True), ("600", False)])
def test_a_token_says_when_it_ends(ann: Cloud, asked: str, never: bool) -> None:
    said = log_in(ann, expires_in=asked).json()
    # The CLI keeps now + expires_in; 0 is printed as "never expires".
    assert said["expires_in"] == int(asked)
    headers = TOOL | {"Authorization": f"Bearer {said['access_token']}"}
    current = httpx.get(f"{ann.url}/v1/access_tokens/current", headers=headers)
    assert current.status_code == 200
    ends = current.json()["expires_at"]
    assert (ends is None) is never
    assert never or ends.endswith("Z")


def test_only_a_bad_token_makes_it_ask_to_log_in_again(ann: Cloud, cli: httpx.Client) -> None:
    for path in ("/v1/access_tokens/current", "/v1/user", "/v1/devices", "/v1/devices/events"):
        bad = httpx.get(ann.url + path, headers=TOOL | {"Authorization": f"Bearer {'0' * 40}"})
        assert wants_login(bad), path
        assert bad.json()["error"] == "invalid_token"
    # An authentication error erases the saved token, so no other error may look like one.
    for method, path, body in (
        ("GET", f"/v1/devices/{'f' * 24}", None), ("POST", "/v1/devices", {"id": "f" * 24}),
        ("GET", "/v1/nothing", None), ("PATCH", "/v1/user", None), ("POST", "/v1/devices/events", {}),
        ("GET", "/v1/integrations/nothing", None),
        ("POST", f"/v1/devices/{DEVICE}/led", {"args": "on"}), ("GET", f"/v1/devices/{DEVICE}/temp", None),
        ("PUT", f"/v1/devices/{DEVICE}", {"signal": "1"}), ("GET", "/v1/products/1/devices", None),
        ("GET", "/v1/orgs/mine/events", None), ("POST", "/v1/integrations", {"event": "x"}),
        ("PATCH", "/v1/access_tokens/current", None), ("GET", "/v1/access_tokens/x/y", None),
    ):  # fmt: skip
        answer = cli.request(method, path, json=body)
        assert answer.status_code >= 400, path
        assert not wants_login(answer), (path, answer.text)
        assert shown(answer) not in ("", "None")
    assert cli.get("/v1/user").json()["username"] == USER


@pytest.mark.parametrize(
    ("kind", "named"),
    [("GoogleMaps", "api_key"), ("GoogleCloudPubSub", "topic"), ("AzureIotHub", "hub_name"), ("Losant", "Webhook")],
)
def test_an_integration_that_can_not_be_made_is_a_failure_that_says_why(
    cli: httpx.Client, kind: str, named: str
) -> None:
    answer = cli.post("/v1/integrations", json={"integration_type": kind, "event": "x", "name": "n", "api_key": "k k"})
    assert answer.status_code == 400
    # Without an id and with an error: the CLI prints the latter.
    assert "id" not in answer.json()
    assert named in shown(answer)


def test_webhook_commands_on_the_integrations_routes(cli: httpx.Client, target: Target) -> None:
    # A JSON file as users have it: keys as they are, booleans as text, comments.
    file = {
        "eventName": "from-file", "url": target.url, "requestType": "POST", "mydevices": "true",
        "rejectUnauthorized": "true", "noDefaults": "false", "_": "a comment", "body": "{{{PARTICLE_EVENT_VALUE}}}",
    }  # fmt: skip
    made = cli.post("/v1/integrations", json=file | {"integration_type": "Webhook"}).json()
    assert "error" not in made
    (listed,) = [each for each in cli.get("/v1/integrations").json() if each["id"] == made["id"]]
    assert (listed["integration_type"], listed["event"], listed["rejectUnauthorized"]) == ("Webhook", "from-file", True)
    # The older commands see the same one.
    assert made["id"] in [each["id"] for each in cli.get("/v1/webhooks").json()]
    with stream(cli, "/v1/devices/events/hook-sent") as events:
        assert cli.post("/v1/devices/events", json={"name": "from-file", "data": "é", "private": True}).is_success
        take(events, 1)
    assert target.requests[0][3] == "é".encode()
    removed = cli.delete(f"/v1/integrations/{made['id']}")
    assert (removed.status_code, removed.content) == (204, b"")
    again = cli.delete(f"/v1/integrations/{made['id']}")
    assert (again.status_code, again.json()["error"]) == (404, "Webhook not found")


def test_device_commands(ann: Cloud, cli: httpx.Client) -> None:
    free = "f" * 24
    ann.command("device", "add", free)
    # The CLI lowers ids on claiming; users type them in capitals elsewhere.
    claimed = cli.post("/v1/devices", json={"id": free, "request_transfer": False}).json()
    assert claimed["ok"] is True
    assert {"id", "connected", "user_id"} <= claimed.keys()
    assert cli.put(f"/v1/devices/{free.upper()}", json={"name": "hall"}).json()["name"] == "hall"
    by_name = cli.get("/v1/devices/hall").json()
    assert (by_name["id"], by_name["functions"], by_name["variables"]) == (free, [], {})
    # Of the platform: it prints a name for those it knows.
    assert by_name["product_id"] == by_name["platform_id"]
    assert cli.delete("/v1/devices/hall").json()["ok"] is True
    gone = cli.get(f"/v1/devices/{free}")
    assert "I didn't recognize that device name or ID" in gone.json()["info"]


def test_subscribing_to_one_device_and_to_what_is_not_here(cli: httpx.Client) -> None:
    with stream(cli, f"/v1/devices/{DEVICE}/events/temp?nonce=1234567890") as events:
        assert events.response.status_code == 200
        assert events.response.headers["Content-Type"].startswith("text/event-stream")
    for path in ("/v1/orgs/mine/events", "/v1/products/1/events/temp", "/v1/products/1/devices/x/events"):
        answer = cli.get(path)
        assert (answer.status_code, shown(answer)) == (404, "Product not found.")


def test_revoking_and_logging_out(ann: Cloud, cli: httpx.Client) -> None:
    other = log_in(ann).json()["access_token"]
    assert httpx.delete(f"{ann.url}/v1/access_tokens/{other}", headers=TOOL).json()["ok"] is True
    assert wants_login(httpx.get(f"{ann.url}/v1/user", headers=TOOL | {"Authorization": f"Bearer {other}"}))
    # Its own goes on until it logs out.
    assert cli.get("/v1/user").status_code == 200
    assert cli.delete("/v1/access_tokens/current").json()["ok"] is True
    assert wants_login(cli.get("/v1/user"))
