"""What holds for every kind of integration, on one running cloud: nothing is lost, and no secret is shown."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.cloud import Cloud, cloud, eventually
from tests.sse import stream, take
from tests.standins.geolocation import PATH, Geolocation
from tests.standins.iothub import IotHub
from tests.standins.plain import Plain
from tests.standins.pubsub import TOPIC, Account, PubSub
from tests.standins.server import Asked, Said, Standin, times

_names = itertools.count(1)
_numbers = itertools.count(10)


class Rig:
    """A kind, and the service that it speaks to."""

    kind: str
    service: Standin

    def settings(self) -> dict[str, Any]:
        raise NotImplementedError

    def wrong(self) -> dict[str, Any]:
        """Settings whose credentials are not good."""
        raise NotImplementedError

    def secrets(self) -> list[str]:
        raise NotImplementedError

    def data(self, number: int) -> str:
        return f"n{number}"

    def taken(self) -> list[str]:
        """The data of all events that the service took."""
        raise NotImplementedError


class WebhookRig(Rig):
    kind = "Webhook"

    def __init__(self) -> None:
        self.service = self.plain = Plain()

    def settings(self) -> dict[str, Any]:
        return {"url": self.plain.url, "body": "{{{PARTICLE_EVENT_VALUE}}}", "headers": {"Authorization": Plain.token}}

    def wrong(self) -> dict[str, Any]:
        return self.settings() | {"headers": {"Authorization": "Bearer wrong-token"}}

    def secrets(self) -> list[str]:
        return [Plain.token.split()[1], "wrong-token"]

    def taken(self) -> list[str]:
        return self.plain.taken


class MapsRig(Rig):
    kind = "GoogleMaps"

    def __init__(self) -> None:
        self.service = self.google = Geolocation()

    def settings(self) -> dict[str, Any]:
        return {"api_key": self.google.key}

    def wrong(self) -> dict[str, Any]:
        return {"api_key": "AIza-some-other-key"}

    def secrets(self) -> list[str]:
        return [self.google.key, "AIza-some-other-key"]

    def data(self, number: int) -> str:
        # By one network alone nobody is placed, so it would not be asked.
        networks = [("3c:37:86:5d:75:d4", -number), ("94:b4:0f:fd:c1:40", -50)]
        return json.dumps({"w": {"a": [{"m": mac, "s": strength, "c": 1} for mac, strength in networks]}})

    def taken(self) -> list[str]:
        return [self.data(-each["wifiAccessPoints"][0]["signalStrength"]) for each in self.google.answered]


class PubSubRig(Rig):
    kind = "GoogleCloudPubSub"

    def __init__(self) -> None:
        self.account, self.other = Account(), Account()
        self.service = self.google = PubSub(self.account)

    def settings(self) -> dict[str, Any]:
        return {"topic": TOPIC, "credentials": self.account.text}

    def wrong(self) -> dict[str, Any]:
        return {"topic": TOPIC, "credentials": self.other.text}

    def secrets(self) -> list[str]:
        lines = [line for each in (self.account, self.other) for line in each.file["private_key"].split("\n")[1:-2]]
        return lines + [bearer.rpartition(".")[2] for bearer in self.google.bearers]

    def taken(self) -> list[str]:
        return self.google.data


class HubRig(Rig):
    kind = "AzureIotHub"

    def __init__(self) -> None:
        self.service = self.hub = IotHub()

    def settings(self) -> dict[str, Any]:
        key = self.hub.keys["iothubowner"]
        return {"hub_name": "test-hub", "policy_name": "iothubowner", "policy_key": key}

    def wrong(self) -> dict[str, Any]:
        return self.settings() | {"policy_key": self.hub.keys["readonly"]}

    def secrets(self) -> list[str]:
        signatures = [asked.header("Authorization").partition("sig=")[2].split("&")[0] for asked in self.hub.asked]
        return [*self.hub.keys.values(), *signatures]

    def taken(self) -> list[str]:
        return [body["data"] for _, _, body in self.hub.messages]


class Place:
    """The cloud and all services."""

    def __init__(self, live: Cloud, token: str, rigs: dict[str, Rig]) -> None:
        self.live = live
        self.token = token
        self.rigs = rigs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    rigs: dict[str, Rig] = {rig.kind: rig for rig in (WebhookRig(), MapsRig(), PubSubRig(), HubRig())}
    url = {kind: rig.service.url for kind, rig in rigs.items()}
    settings = {
        "geolocation_url": url["GoogleMaps"] + PATH, "pubsub_url": url["GoogleCloudPubSub"],
        "iothub_url": url["AzureIotHub"], "retry_schedule": ",".join(["0", *["0.3"] * 40]), "request_timeout": "1",
    }  # fmt: skip
    for rig in rigs.values():
        rig.service.__enter__()
    with cloud(tmp_path_factory.mktemp("every") / "data", **settings) as live:
        yield Place(live, live.user("ann"), rigs)
    for rig in rigs.values():
        rig.service.__exit__()


@pytest.fixture(params=["Webhook", "GoogleMaps", "GoogleCloudPubSub", "AzureIotHub"])
def rig(place: Place, request: pytest.FixtureRequest) -> Iterator[Rig]:
    found = place.rigs[request.param]
    found.service.mode = None
    yield found
    found.service.mode = None


class Made:
    """An integration for events of a name of its own."""

    def __init__(self, place: Place, rig: Rig, **settings: Any) -> None:
        self.place, self.rig = place, rig
        self.name = f"suite{next(_names)}x"
        sent = {"integration_type": rig.kind, "event": self.name} | (settings or rig.settings())
        made = self.client.post("/v1/integrations", json=sent)
        assert made.status_code == 201, made.text
        self.id = made.json()["id"]

    @property
    def client(self) -> httpx.Client:
        return self.place.live.client(self.place.token)

    def publish(self, count: int) -> list[str]:
        """Publishes so many events; returns their data."""
        data = [self.rig.data(next(_numbers)) for _ in range(count)]
        with self.client as client:
            for each in data:
                answer = client.post("/v1/devices/events", json={"name": self.name, "data": each})
                assert answer.status_code == 200
        return data

    def attempts(self) -> list[dict[str, Any]]:
        return list(self.client.get(f"/v1/integrations/{self.id}/logs?per_page=100").json()["logs"])

    def shown(self) -> dict[str, Any]:
        return dict(self.client.get(f"/v1/integrations/{self.id}").json()["integration"])

    def taken(self, data: list[str], timeout_s: float = 30.0) -> None:
        """Every event arrived, at least once."""
        eventually(lambda: set(data) <= set(self.rig.taken()), timeout_s, "the delivery of all events")

    def end(self) -> None:
        """No secret is in the log, an attempt, an event, an error, or what is shown."""
        # All that was ever published, up to one that triggers nothing.
        events = ""
        with self.client as client, stream(client, Last_Event_ID="0") as source:
            client.post("/v1/devices/events", json={"name": f"end-{self.name}"})
            for event in source:
                events += str(event)
                if event.name == f"end-{self.name}":
                    break
        text = json.dumps(self.attempts()) + json.dumps(self.shown()) + events + self.place.live.log_file.read_text()
        for secret in self.rig.secrets():
            assert len(secret) > 7
            assert secret not in text
        with self.client as client:
            assert client.delete(f"/v1/integrations/{self.id}").status_code == 204


def test_it_arrives(place: Place, rig: Rig) -> None:
    made = Made(place, rig)
    made.taken(made.publish(20))
    eventually(lambda: made.shown()["todayCounters"] == {"success": 20, "error": 0})
    made.end()


def test_bad_credentials_are_told(place: Place, rig: Rig) -> None:
    made = Made(place, rig, **rig.wrong())
    with made.client as client, stream(client, f"/v1/devices/events/hook-error/{made.name}") as source:
        made.publish(1)
        (told,) = take(source, 1)
    assert "error status 4" in told.data
    if rig.kind != "Webhook":
        # A webhook's target may refuse one event and take the next; a service's credentials are good or not.
        eventually(lambda: made.shown()["paused"] == told.data)
    tried = made.client.post(f"/v1/integrations/{made.id}/test", json={}).json()
    assert (tried["ok"], tried["error"]) == (False, told.data)
    made.end()


def test_a_service_that_is_away_for_a_while_misses_nothing(place: Place, rig: Rig) -> None:
    made = Made(place, rig)
    rig.service.down()
    try:
        data = made.publish(15)
        eventually(lambda: made.attempts())
        assert "ECONN" in made.attempts()[0]["error"]
    finally:
        rig.service.up()
    made.taken(data)
    made.end()


@pytest.mark.parametrize("asks", [True, False], ids=["with Retry-After", "without"])
def test_a_service_that_throttles_is_given_time(place: Place, rig: Rig, asks: bool) -> None:
    rig.service.mode = times(1, Said(429, b"{}", (("Retry-After", "1"),) if asks else ()))
    made = Made(place, rig)
    started = time.monotonic()
    data = made.publish(1)
    (first,) = eventually(made.attempts)
    assert (first["status"], first["final"]) == (429, False)
    if asks or rig.kind == "Webhook":
        made.taken(data)
        assert time.monotonic() - started >= (1 if asks else 0.2)
    else:
        # Each service has a time of its own, 10 seconds at least: the event waits and is not lost.
        assert made.shown()["waiting"] == 1
        assert made.shown()["paused"] is None
    made.end()


def test_a_service_that_hangs_is_asked_again(place: Place, rig: Rig) -> None:
    hanging = iter(range(2))

    def hang(asked: Asked) -> Said | None:
        if next(hanging, None) is None:
            return None
        # Longer than a request may take.
        time.sleep(1.5)
        return Said(200, drop=True)

    rig.service.mode = hang
    made = Made(place, rig)
    data = made.publish(2)
    made.taken(data)
    eventually(lambda: len(made.attempts()) >= 3)
    assert "ESOCKETTIMEDOUT" in [each["error"] for each in made.attempts()]
    made.end()


@pytest.mark.parametrize(
    "garbage",
    [Said(500, b"\xff\xfe{"), Said(502, b"<html>"), Said(503, b"[" * 50_000), Said(0, drop=True)],
    ids=["no text", "html", "deep", "cut off"],
)
def test_garbage_is_no_answer(place: Place, rig: Rig, garbage: Said) -> None:
    rig.service.mode = times(2, garbage)
    made = Made(place, rig)
    made.taken(made.publish(2))
    made.end()


def test_a_killed_server_delivers_what_was_in_flight(place: Place, rig: Rig) -> None:
    made = Made(place, rig)
    asked: list[Asked] = []

    def hold(question: Asked) -> Said | None:
        asked.append(question)
        time.sleep(0.5)
        return Said(0, drop=True)

    rig.service.mode = hold
    data = made.publish(10)
    eventually(lambda: asked)
    place.live.kill()
    rig.service.mode = None
    place.live.start()
    made.taken(data)
    eventually(lambda: made.shown()["waiting"] == 0)
    made.end()
