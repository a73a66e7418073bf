"""AzureIotHub on a running cloud, against a stand-in that refuses what Azure would."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cloud import Cloud, cloud, eventually
from tests.sse import Seen, stream, take
from tests.standins.iothub import IotHub, problem
from tests.standins.server import Asked, Said, times


@pytest.fixture
def hub() -> Iterator[IotHub]:
    with IotHub() as service:
        yield service


@pytest.fixture
def live(tmp_path: Path, hub: IotHub) -> Iterator[Cloud]:
    with cloud(tmp_path / "data", iothub_url=hub.url, retry_schedule="0,0.1,0.2") as running:
        yield running


@pytest.fixture
def client(live: Cloud) -> httpx.Client:
    return live.client(live.user("ann"))


def make(client: httpx.Client, hub: IotHub, policy: str = "iothubowner", **rest: Any) -> str:
    settings = {"integration_type": "AzureIotHub", "event": "temp", "hub_name": "test-hub", "policy_name": policy}
    made = client.post("/v1/integrations", json=settings | {"policy_key": hub.keys[policy]} | rest)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def results(client: httpx.Client, *data: str, count: int | None = None, name: str = "temp") -> list[Seen]:
    with stream(client, "/v1/devices/events/hook-") as source:
        for each in data:
            assert client.post("/v1/devices/events", json={"name": name, "data": each}).status_code == 200
        return take(source, len(data) if count is None else count)


def attempts(client: httpx.Client, made: str) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/integrations/{made}/logs").json()["logs"])


def calls(hub: IotHub) -> list[str]:
    return [f"{asked.method} {asked.path}" for asked in hub.asked]


def test_the_first_event_makes_the_identity_and_all_become_messages(
    client: httpx.Client, hub: IotHub, live: Cloud
) -> None:
    made = make(client, hub)
    assert [each.name for each in results(client, "21.5", name="temp/a b")] == ["hook-sent/temp/a b"]
    assert calls(hub) == ["PUT /devices/api", "POST /devices/api/messages/events"]
    results(client, "22")
    (device, headers, body), second = hub.messages
    assert device == "api"
    assert body["published_at"].endswith("Z")
    assert {key: body[key] for key in body if key != "published_at"} == {
        "data": "21.5", "device_id": "api", "event": "temp/a b",
    }  # fmt: skip
    assert headers["iothub-app-event"] == "temp%2Fa%20b"
    assert len(headers["iothub-messageid"]) == 32
    assert second[2]["data"] == "22"
    # Remembered, over a restart too.
    live.stop()
    live.start()
    results(client, "23")
    assert Counter(calls(hub)) == {"PUT /devices/api": 1, "POST /devices/api/messages/events": 3}
    found = json.dumps(eventually(lambda: len(logs := attempts(client, made)) == 3 and logs))
    for asked in hub.asked:
        signature = asked.header("Authorization").partition("sig=")[2].partition("&")[0]
        assert signature
        assert signature not in found
    assert hub.keys["iothubowner"] not in client.get(f"/v1/integrations/{made}").text + found
    assert hub.keys["iothubowner"] not in live.log_file.read_text()


def test_an_identity_that_is_there_already_or_was_removed(client: httpx.Client, hub: IotHub) -> None:
    make(client, hub)
    hub.identities["api"] = {"status": "enabled", "authentication": {}, "etag": "1"}
    results(client, "1")
    assert len(hub.messages) == 1
    hub.identities.clear()
    results(client, "2")
    assert [body["data"] for _, _, body in hub.messages] == ["1", "2"]
    assert calls(hub)[-3:] == [
        "POST /devices/api/messages/events", "PUT /devices/api", "POST /devices/api/messages/events",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"policy_key": base64.b64encode(bytes(32)).decode()}, "check the policy's name, key and rights"),
        ({"policy_name": "nobody"}, "does not let the policy nobody create devices (registry write)"),
    ],
)
def test_bad_credentials_pause_and_are_mended(
    client: httpx.Client, hub: IotHub, settings: dict[str, Any], says: str
) -> None:
    made = make(client, hub, **settings)
    (told,) = results(client, "1")
    assert (told.name, says in told.data) == ("hook-error/temp/0", True), told.data
    shown = eventually(lambda: (it := client.get(f"/v1/integrations/{made}").json()["integration"])["paused"] and it)
    assert shown["paused"] == told.data
    # Once with the token, once with a new one.
    assert calls(hub) == ["PUT /devices/api"] * 2
    with stream(client, "/v1/devices/events/hook-sent") as source:
        mended = {"event": "temp", "hub_name": "test-hub", "policy_name": "iothubowner"}
        mended["policy_key"] = hub.keys["iothubowner"]
        assert client.put(f"/v1/integrations/{made}", json=mended).status_code == 200
        take(source, 1)
    assert [body["data"] for _, _, body in hub.messages] == ["1"]


def test_a_policy_that_lacks_a_right_is_told_which(client: httpx.Client, hub: IotHub) -> None:
    made = make(client, hub, "readonly")
    said = client.post(f"/v1/integrations/{made}/test", json={}).json()
    assert said["ok"] is False
    assert "does not let the policy readonly create devices (registry write)" in said["error"]


def test_throttling_is_respected_and_is_no_attempt(client: httpx.Client, hub: IotHub) -> None:
    made = make(client, hub)
    results(client, "0")
    hub.mode = times(1, problem(429, 429001, "ThrottlingException", "", ("Retry-After", "1")))
    assert [each.name for each in results(client, *"12345")] == ["hook-sent/temp"] * 5
    assert sorted(body["data"] for _, _, body in hub.messages) == list("012345")
    found = eventually(lambda: [each for each in attempts(client, made) if each["status"] == 429])
    assert "the hub is throttling (ThrottlingException)" in found[0]["error"]


def test_a_quota_of_the_day_waits_for_midnight(client: httpx.Client, hub: IotHub) -> None:
    made = make(client, hub)
    hub.quota = 1
    results(client, "0")
    for number in range(5):
        client.post("/v1/devices/events", json={"name": "temp", "data": str(number)})
        eventually(lambda: [each for each in attempts(client, made) if each["status"] == 403])
    # The first was refused; the others did not even ask.
    asked = len(hub.asked)
    shown = eventually(
        lambda: (it := client.get(f"/v1/integrations/{made}").json()["integration"])["waiting"] == 5 and it
    )
    assert shown["paused"] is None
    assert len(hub.asked) == asked == 3


def test_an_expired_token_is_replaced(client: httpx.Client, hub: IotHub) -> None:
    make(client, hub)
    results(client, "1")
    hub.mode = times(1, problem(401, 401003, "IotHubUnauthorizedAccess"))
    results(client, "2")
    assert len(hub.messages) == 2


def test_many_new_devices_wait_for_their_turn(client: httpx.Client, hub: IotHub) -> None:
    """More identities than the hub makes at once: the rest is put off without asking the hub."""
    made = make(client, hub)

    def throttled(asked: Asked) -> Said | None:
        return problem(429, 429001, "ThrottlingException") if asked.method == "PUT" else None

    hub.mode = throttled
    client.post("/v1/devices/events", json={"name": "temp", "data": "1"})
    (found,) = eventually(lambda: attempts(client, made))
    assert (found["status"], found["final"], found["attempt"]) == (429, False, 1)
    assert client.get(f"/v1/integrations/{made}").json()["integration"]["waiting"] == 1


def test_what_is_larger_than_a_message_is_refused_before_it_is_sent(tmp_path: Path, hub: IotHub) -> None:
    with cloud(tmp_path / "data", iothub_url=hub.url, max_event_bytes="300000") as live:
        client = live.client(live.user("ann"))
        make(client, hub)
        (told,) = results(client, "x" * 270_000)
        assert "the event is too large" in told.data
        assert calls(hub) == []


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("hub_name", "evil.example.com", "hub_name: must be the hub's name"),
        ("hub_name", "my-hub.azure-devices.net/x", "hub_name: must be the hub's name"),
        ("hub_name", "", "hub_name: is required: name of the hub"),
        ("policy_key", "not base64!", "policy_key: must be a key as the portal shows it"),
        ("policy_key", None, "policy_key: is required"),
        ("policy_name", "a b", "policy_name: must be a policy's name"),
    ],
)
def test_settings_are_checked(live_shared: tuple[Cloud, str], hub: IotHub, field: str, value: Any, says: str) -> None:
    running, token = live_shared
    settings = {"event": "t", "hub_name": "test-hub", "policy_name": "p", "policy_key": hub.keys["readonly"]}
    sent = settings | {"integration_type": "azureiothub", field: value}
    answer = running.client(token).post("/v1/integrations", json=sent)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(says)
    assert answer.json()["field"] == field


def test_a_device_that_the_hub_refuses_pauses_nothing(client: httpx.Client, hub: IotHub) -> None:
    made = make(client, hub)
    results(client, "1")
    hub.identities["api"]["status"] = "disabled"
    (told,) = results(client, "2")
    assert told.name == "hook-error/temp/0"
    assert "the device api is disabled there" in told.data
    shown = client.get(f"/v1/integrations/{made}").json()["integration"]
    assert shown["paused"] is None
    hub.identities["api"]["status"] = "enabled"
    assert [each.name for each in results(client, "3")] == ["hook-sent/temp"]


def test_a_new_identity_that_is_not_known_yet_loses_nothing(client: httpx.Client, hub: IotHub) -> None:
    made = make(client, hub)
    unknown = times(1, problem(404, 404001, "DeviceNotFound"))
    hub.mode = lambda asked: unknown(asked) if asked.path.endswith("/events") else None
    assert [each.name for each in results(client, "1")] == ["hook-sent/temp"]
    assert [body["data"] for _, _, body in hub.messages] == ["1"]
    found = eventually(lambda: len(logs := attempts(client, made)) == 2 and logs)
    assert [each["status"] for each in found] == [204, 404]
