"""Plans for several devices against one hub, played without a cloud: who is refused, and for whom that counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.delivery.builders import an_event
from tests.standins.iothub import IotHub, new_key, problem
from tests.standins.server import Asked
from wirechamber.clock import SystemClock
from wirechamber.delivery.runner import Bucket
from wirechamber.integrations.azure_iot_hub import AzureIotHub
from wirechamber.integrations.azure_iot_hub.kind import REFUSED_AT_ONCE
from wirechamber.integrations.base import (
    About,
    Allow,
    Call,
    Context,
    Delivered,
    Misconfigured,
    Outcome,
    Recall,
    Refused,
    Remember,
    Response,
    Token,
    TryLater,
)

GOOD, BAD = "a" * 24, "b" * 24


class Player:
    """Performs the steps of plans as the runner does, on a hub that is at hand."""

    def __init__(self, hub: IotHub, key: str | None = None) -> None:
        self.hub = hub
        self.kind = AzureIotHub("")
        settings = {"hub_name": "test-hub", "policy_name": "iothubowner"}
        settings["policy_key"] = key or hub.keys["iothubowner"]
        self.prepared = self.kind.prepare(self.kind.read(settings, {}).config)
        self.memory: dict[str, Any] = {}
        self.buckets: dict[str, Bucket] = {}
        self.token: str | None = None
        self.clock = SystemClock()
        self.ahead_ms = 0

    def send(self, device: str, data: str = "1") -> Outcome:
        now = self.clock.now() + self.ahead_ms
        event = an_event(device=device, coreid=device, data=data)
        plan = self.kind.deliver((event,), self.prepared, Context(now, "test"))
        reply: Any = None
        while True:
            try:
                reply = self.perform(plan.send(reply), now)
            except StopIteration as ended:
                (outcome,) = ended.value
                return outcome  # type: ignore[no-any-return]

    def perform(self, step: Any, now: int) -> Any:
        match step:
            case About():
                return None
            case Recall(key):
                return self.memory.get(key)
            case Remember(key, value):
                # As it is written down.
                self.memory[key] = json.loads(json.dumps(value))
                return None
            case Allow(key):
                return self.buckets.setdefault(key, Bucket(float(step.burst), now)).take(step, now)
            case Token():
                if self.token is None or self.token == step.instead_of:
                    plan = step.plan()
                    try:
                        next(plan)
                    except StopIteration as ended:
                        self.token = ended.value[0]
                return self.token
            case Call(request):
                parts = urlsplit(request.url)
                query = dict(parse_qsl(parts.query))
                asked = Asked(request.method, parts.path, query, dict(request.headers), request.body or b"")
                said = self.hub.take(asked)
                return Response(said.status, said.headers, said.body, len(said.body))
        raise AssertionError(step)


@pytest.fixture
def hub() -> Iterator[IotHub]:
    with IotHub() as service:
        yield service


@pytest.fixture
def player(hub: IotHub) -> Player:
    return Player(hub)


def refusing(hub: IotHub, device: str, status: int, *, everything: bool = False) -> None:
    def mode(asked: Asked) -> Any:
        mine = device in asked.path and (everything or asked.path.endswith("/events"))
        return problem(status, status * 1000 + 3, "Nope", "This device is not welcome.") if mine else None

    hub.mode = mode


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("first", [GOOD, BAD])
def test_one_device_that_is_refused_is_held_back_alone(hub: IotHub, player: Player, status: int, first: str) -> None:
    refusing(hub, BAD, status)
    player.send(first)
    outcome = player.send(BAD)
    assert isinstance(outcome, TryLater), outcome
    assert (outcome.throttled, outcome.rest) == (False, False)
    assert f"error status {status} from test-hub.azure-devices.net" in outcome.why
    assert f"the device {BAD}" in outcome.why
    assert "Nope: This device is not welcome." in outcome.why
    assert isinstance(player.send(GOOD), Delivered)


@pytest.mark.parametrize("status", [401, 403])
def test_one_that_may_not_even_have_an_identity(hub: IotHub, player: Player, status: int) -> None:
    assert isinstance(player.send(GOOD), Delivered)
    refusing(hub, BAD, status, everything=True)
    outcome = player.send(BAD)
    assert isinstance(outcome, TryLater)
    assert "This device is not welcome." in outcome.why
    assert isinstance(player.send(GOOD), Delivered)
    hub.mode = None
    assert isinstance(player.send(BAD), Delivered)
    assert set(hub.identities) == {GOOD, BAD}


def test_one_that_is_disabled_is_told_as_that(hub: IotHub, player: Player) -> None:
    assert isinstance(player.send(BAD), Delivered)
    hub.identities[BAD]["status"] = "disabled"
    outcome = player.send(BAD)
    assert isinstance(outcome, TryLater)
    assert f"the device {BAD} is disabled there" in outcome.why
    assert "the device is disabled" in outcome.why


def test_one_that_is_refused_is_asked_for_seldom_until_it_is_let_in(hub: IotHub, player: Player) -> None:
    assert isinstance(player.send(GOOD), Delivered)
    refusing(hub, BAD, 401)
    for _ in range(REFUSED_AT_ONCE + 1):
        player.send(BAD)
    asked = len(hub.asked)
    outcome = player.send(BAD)
    assert isinstance(outcome, TryLater)
    assert outcome.throttled
    assert 0 < (outcome.after or 0) <= 60
    assert len(hub.asked) == asked
    hub.mode = None
    player.ahead_ms = 61_000
    assert isinstance(player.send(BAD), Delivered)
    # Let in, it is as any other.
    assert [isinstance(player.send(BAD), Delivered) for _ in range(REFUSED_AT_ONCE * 2)] == [True] * 10


@pytest.mark.parametrize("status", [401, 403])
def test_when_all_are_refused_it_is_the_integration(hub: IotHub, player: Player, status: int) -> None:
    assert isinstance(player.send(GOOD), Delivered)
    assert isinstance(player.send(BAD), Delivered)
    hub.mode = lambda asked: problem(status, 0, "Nope", "Nobody is welcome.")
    for device in (GOOD, BAD, "c" * 24):
        outcome = player.send(device)
        assert isinstance(outcome, Misconfigured), outcome
        assert "Nobody is welcome." in outcome.why


def test_a_key_that_was_changed_at_the_hub_is_the_integration_s(hub: IotHub, player: Player) -> None:
    assert isinstance(player.send(GOOD), Delivered)
    assert isinstance(player.send(BAD), Delivered)
    hub.keys["iothubowner"] = new_key()
    assert isinstance(player.send(GOOD), Misconfigured)
    assert isinstance(player.send(BAD), Misconfigured)


def test_a_hub_that_does_not_know_a_new_identity_yet_is_asked_again(hub: IotHub, player: Player) -> None:
    hub.mode = lambda asked: problem(404, 404001, "DeviceNotFound") if asked.path.endswith("/events") else None
    for _ in range(2):
        outcome = player.send(GOOD)
        assert isinstance(outcome, TryLater), outcome
        assert "does not know the device" in outcome.why
    hub.mode = None
    assert isinstance(player.send(GOOD), Delivered)
    assert [each[0] for each in hub.messages] == [GOOD]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"Message": "ErrorCode:Nope;It can't be."}, "(Nope: It can't be.)"),
        ({"message": "It\ncan't  be."}, "(It can't be.)"),
        ({"Message": json.dumps({"errorCode": 400004, "message": "It can't be."})}, "(400004: It can't be.)"),
        ({"Message": "ErrorCode:Nope"}, "(Nope)"),
        ({"Message": ["x"]}, "take it"),
        ([], "take it"),
    ],
)
def test_the_hub_s_own_sentence_is_shown(hub: IotHub, player: Player, body: Any, says: str) -> None:
    hub.mode = lambda asked: problem(400, 0, "x")._replace(body=json.dumps(body).encode(), headers=())
    outcome = player.send(GOOD)
    assert isinstance(outcome, Refused)
    assert outcome.why.endswith(says)


def test_a_clock_that_is_off_is_told_as_that(hub: IotHub, player: Player) -> None:
    hub.mode = lambda asked: problem(401, 401003, "Nope", "", ("Date", "Tue, 24 Nov 2020 10:00:00 GMT"))
    outcome = player.send(GOOD)
    assert isinstance(outcome, TryLater), outcome
    assert "the clock of this server is" in outcome.why
    assert "ahead of the service's" in outcome.why
