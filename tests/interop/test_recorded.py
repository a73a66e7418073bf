"""Clients that can't be installed here, as the requests that they send (clients.md, section 4) and what they read."""

from __future__ import annotations

import keyword

import httpx
import pytest

from tests.cloud import Cloud, Target
from tests.sse import stream, take

PASSWORD = "correct horse"
DEVICE = "0123456789abcdef01234567"
# What particle-cli 3.51 sends with everything.
CLI = {"User-Agent": "particle-cli/3.51.0 (https://github.com/particle-iot/particle-cli)", "X-Particle-Tool": "cli"}


@pytest.fixture
def ann(live: Cloud) -> Cloud:
    live.user("ann@example.com", PASSWORD)
    live.command("device", "add", DEVICE, "--owner", "ann@example.com", "--name", "kitchen")
    return live


def log_in(live: Cloud, client: str) -> str:
    form = {
        "username": "ann@example.com", "password": PASSWORD, "grant_type": "password",
        "client_id": client, "client_secret": client,
    }  # fmt: skip
    said = httpx.post(f"{live.url}/oauth/token", data=form, headers=CLI).json()
    assert said["expires_in"] > 0
    return str(said["access_token"])


def test_particle_cli_3_51(ann: Cloud, target: Target) -> None:
    token = log_in(ann, "particle-cli")
    target.answer = lambda method, path, body: (200, {}, b"thanks")
    with httpx.Client(base_url=ann.url, headers=CLI | {"Authorization": f"Bearer {token}"}, timeout=10) as cli:
        # Before every command, when it does not know the expiry; an authentication error would erase its token.
        current = cli.get("/v1/access_tokens/current")
        assert current.status_code == 200
        assert current.json()["expires_at"].endswith("Z")
        assert cli.get("/v1/user").json()["username"] == "ann@example.com"
        (listed,) = cli.get("/v1/devices").json()
        assert (listed["id"], listed["name"], listed["connected"]) == (DEVICE, "kitchen", False)
        assert isinstance(listed["product_id"], int)

        sent = {
            "integration_type": "Webhook", "event": "temp", "name": "For temp", "url": target.url,
            "requestType": "POST", "noDefaults": False, "rejectUnauthorized": True,
        }  # fmt: skip
        made = cli.post("/v1/integrations", json=sent).json()
        assert "error" not in made
        assert made["id"]
        (hook,) = cli.get("/v1/integrations").json()
        assert hook["integration_type"] == "Webhook"
        assert {"id", "event", "url", "created_at"} <= hook.keys()
        with stream(cli, "/v1/devices/events") as events:
            assert cli.post("/v1/devices/events", json={"name": "temp", "data": "1", "private": True}).json()["ok"]
            names = {event.name: event.data for event in take(events, 3)}
        assert names.keys() == {"temp", "hook-sent/temp", "hook-response/temp/0"}
        assert names["hook-response/temp/0"] == "thanks"
        assert cli.delete(f"/v1/integrations/{made['id']}").is_success
        assert cli.get("/v1/integrations").json() == []

        assert cli.put(f"/v1/devices/{DEVICE}", json={"name": "hall"}).json()["name"] == "hall"
        unreachable = cli.post(f"/v1/devices/{DEVICE}/led", json={"args": "on"})
        assert unreachable.status_code == 408
        assert "return_value" not in unreachable.json()
        assert cli.get(f"/v1/devices/{DEVICE}/temp").json()["error"]
        # Organisations and products come later: a JSON 404.
        assert cli.post("/v1/orgs/mine/events", json={"name": "x"}).status_code == 404
        for path in ("/v1/libraries/x", "/v1/logic/functions/1", "/v1/sims/1", "/v1/env/1"):
            answer = cli.get(path)
            assert answer.status_code == 404
            assert answer.json()["error"]
        assert cli.delete("/v1/access_tokens/current").json()["ok"] is True
        gone = cli.get("/v1/user")
        assert (gone.status_code, gone.json()["error"]) == (401, "invalid_token")


def test_a_token_is_revoked_by_whoever_holds_it(ann: Cloud) -> None:
    token = log_in(ann, "CLI2")
    assert httpx.delete(f"{ann.url}/v1/access_tokens/{token}", headers=CLI).json()["ok"] is True
    assert httpx.get(f"{ann.url}/v1/user", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_pyparticleio(ann: Cloud) -> None:
    token = log_in(ann, "particle")
    (device,) = httpx.get(f"{ann.url}/v1/devices?access_token={token}").json()
    detail = httpx.get(f"{ann.url}/v1/devices/{device['id']}?access_token={token}").json()
    # It walks over these without looking whether they are there.
    assert list(detail["functions"]) == []
    assert dict(detail["variables"]) == {}
    form = {"name": "temp", "data": "21", "private": "True", "ttl": "60", "access_token": token}
    published = httpx.post(f"{ann.url}/v1/devices/events", data=form)
    assert (published.status_code, published.json()["ok"]) == (200, True)


def test_spyrk(ann: Cloud) -> None:
    answer = httpx.post(
        f"{ann.url}/oauth/token", auth=("spark", "spark"),
        data={"grant_type": "password", "username": "ann@example.com", "password": PASSWORD},
    )  # fmt: skip
    token = answer.json()["access_token"]
    (device,) = httpx.get(f"{ann.url}/v1/devices", headers={"Authorization": f"Bearer {token}"}).json()
    # It makes a namedtuple of them.
    assert all(key.isidentifier() and key[0] != "_" and not keyword.iskeyword(key) for key in device)
    called = httpx.post(
        f"{ann.url}/v1/devices/{DEVICE}/led", data={"params": "on"}, headers={"Authorization": f"Bearer {token}"}
    )
    assert called.status_code == 408


def test_python3_particle(ann: Cloud) -> None:
    log_in(ann, "particle")
    tokens = httpx.get(f"{ann.url}/v1/access_tokens", auth=("ann@example.com", PASSWORD)).json()
    usable = [token for token in tokens if token["client"] == "__PASSWORD_ONLY__"]
    assert usable
    assert {"token", "expires_at", "client"} <= usable[0].keys()
    token = log_in(ann, "particle")
    ann.command("device", "add", "f" * 24)
    # With a slash at the end: a redirect would lose the body.
    claimed = httpx.post(f"{ann.url}/v1/devices/", data={"id": "f" * 24}, headers={"Authorization": f"Bearer {token}"})
    assert (claimed.status_code, claimed.json()["ok"]) == (200, True)


def test_particle_wait(ann: Cloud) -> None:
    token = log_in(ann, "particle")
    lines: list[str] = []
    with (
        ann.client(token) as client,
        client.stream("GET", f"/v1/devices/{DEVICE}/events") as response,
    ):
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines.append(next(response.iter_lines()))
    assert lines == [":ok"]
