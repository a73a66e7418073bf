"""What GET answers about an integration, sent to POST or PUT as it is."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.cloud import Cloud, Target
from tests.sse import stream, take


@pytest.fixture(scope="module")
def client(live_shared: tuple[Cloud, str]) -> httpx.Client:
    return live_shared[0].client(live_shared[1])


def settings(shown: dict[str, Any]) -> dict[str, Any]:
    """What is neither an id, a date nor a count."""
    told = {"id", "created_at", "updated_at", "hookUrl", "ok", "warnings", "todayCounters", "waiting", "logs", "errors",
            "counters"}  # fmt: skip
    return {key: value for key, value in shown.items() if key not in told}


@pytest.mark.parametrize(("area", "wrapper"), [("integrations", "integration"), ("webhooks", "webhook")])
@pytest.mark.parametrize("sent_to", ["integrations", "webhooks"])
def test_it_is_unwrapped(client: httpx.Client, target: Target, area: str, wrapper: str, sent_to: str) -> None:
    hook = {
        "event": "sent-back", "name": "mine", "url": target.url, "requestType": "PUT", "json": {"v": "{{{v}}}"},
        "auth": {"username": "ann", "password": "secret"}, "deviceID": "a" * 24, "disabled": True,
    }  # fmt: skip
    made = client.post(f"/v1/{area}", json=hook).json()
    shown = client.get(f"/v1/{area}/{made['id']}").json()
    assert shown.keys() == {wrapper}
    # Put back: the mask keeps the stored password.
    put = client.put(f"/v1/{sent_to}/{made['id']}", json=shown)
    assert put.status_code == 200, put.text
    assert settings(put.json()) == settings(shown[wrapper])
    assert put.json()["id"] == made["id"]
    # Made again: another one of the same settings, once the password is there.
    refused = client.post(f"/v1/{sent_to}", json=shown)
    assert (refused.status_code, refused.json()["field"]) == (400, "auth.password")
    shown[wrapper]["auth"]["password"] = "secret"
    again = client.post(f"/v1/{sent_to}", json=shown)
    assert again.status_code == 201, again.text
    assert again.json()["id"] != made["id"]
    assert settings(again.json()) == settings(put.json())
    for each in (made, again.json()):
        client.delete(f"/v1/{area}/{each['id']}")


def test_a_switch_may_be_wrapped_and_the_password_goes_on(client: httpx.Client, target: Target) -> None:
    hook = {"event": "switched", "url": target.url, "auth": {"username": "ann", "password": "secret"}, "disabled": True}
    made = client.post("/v1/integrations", json=hook).json()
    shown = client.get(f"/v1/integrations/{made['id']}").json()
    client.put(f"/v1/integrations/{made['id']}", json=shown)
    assert (
        client.put(f"/v1/integrations/{made['id']}", json={"integration": {"disabled": False}}).json()["disabled"]
        is False
    )
    with stream(client, "/v1/devices/events/hook-sent/switched") as events:
        client.post("/v1/devices/events", json={"name": "switched"})
        take(events, 1)
    assert target.requests[0][2]["Authorization"] == "Basic YW5uOnNlY3JldA=="
    client.delete(f"/v1/integrations/{made['id']}")


def test_what_stands_beside_the_wrapped_wins(client: httpx.Client) -> None:
    """As particle-api-js sends it: the event of its own, and the settings as they were read."""
    body = {
        "event": "outside",
        "integration": {"event": "inside", "url": "http://127.0.0.1:1/", "integration_type": "Webhook"},
    }
    made = client.post("/v1/integrations", json=body).json()
    assert (made["event"], made["url"]) == ("outside", "http://127.0.0.1:1/")
    client.delete(f"/v1/integrations/{made['id']}")


def test_a_setting_of_that_name_stays_one(client: httpx.Client) -> None:
    body = {"event": "kept", "url": "http://127.0.0.1:1/", "integration": {"note": "mine"}}
    made = client.post("/v1/integrations", json=body).json()
    assert made["integration"] == {"note": "mine"}
    client.delete(f"/v1/integrations/{made['id']}")
