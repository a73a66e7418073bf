"""`Particle.publishVitals()`: what a device measured is told, shown and kept."""

from __future__ import annotations

import json
import threading

import httpx
import pytest

from tests.gateway.peer import Peer, path_of
from tests.gateway.town import Town, until
from tests.sse import stream, take
from wirechamber.protocols.coap.message import Code, Message, Option, Type, uint
from wirechamber.protocols.deviceos.messages import Describe, Kind, write_describe
from wirechamber.protocols.deviceos.metrics import Metric, write_metrics

EVENT = "spark/device/diagnostics/update"


def publish_vitals(peer: Peer, uptime: int) -> None:
    told = Describe(Kind.METRICS, write_metrics((Metric(6, uptime), Metric(10, 2), Metric(33, None, -210))))
    assert peer.ask(write_describe(told, peer.next_id(), b"\1")).code == Code.EMPTY


def uptimes(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [each["payload"]["device"]["system"]["uptime"] for each in answer.json()["diagnostics"]]


def test_it_is_told_and_shown(town: Town) -> None:
    peer, other = town.device(), town.device()
    other.subscribe("spark/")
    publish_vitals(peer, 3600)
    (event,) = until(lambda: town.events(peer, EVENT), "the event")
    expected = {
        "network": {"signal": {"strength": {"err": -210}}},
        "cloud": {"connection": {"status": "connected"}},
        "system": {"uptime": 3600},
    }
    told = json.loads(event["data"])
    assert (told["device"], told["service"]["device"]) == (expected, {"status": "ok"})
    assert event["origin"] == "system"
    with stream(town.client, f"/v1/devices/{peer.device}/events/{EVENT}?last_event_id=0") as events:
        (streamed,) = take(events, 1)
    assert (streamed.name, streamed.body["coreid"], json.loads(streamed.data)) == (EVENT, peer.device, told)
    last = town.client.get(f"/v1/diagnostics/{peer.device}/last").json()["diagnostics"]
    assert (last["deviceID"], last["payload"]["device"]) == (peer.device, expected)
    assert last["payload"]["service"]["cloud"]["uptime"] >= 0
    shown = json.loads(town.cloud.command("device", "show", peer.device))
    assert shown["vitals"]["device"] == expected
    assert shown["vitals"]["updated_at"] == last["updated_at"]
    # Devices are not told of each other.
    assert other.silent()


def test_what_came_before_is_kept(town: Town) -> None:
    peer = town.device()
    path = f"/v1/diagnostics/{peer.device}"
    assert town.client.get(f"{path}/last").status_code == 404
    assert town.client.get(path).json() == {"diagnostics": []}
    assert json.loads(town.cloud.command("device", "show", peer.device))["vitals"] is None
    for uptime in (1, 2, 3):
        publish_vitals(peer, uptime)
    assert uptimes(town.client.get(path)) == [3, 2, 1]
    times = [each["updated_at"] for each in town.client.get(path).json()["diagnostics"]]
    assert uptimes(town.client.get(path, params={"start_date": times[1]})) == [3, 2]
    assert uptimes(town.client.get(path, params={"end_date": times[1]})) == [1]
    assert uptimes(town.client.get(path, params={"start_date": times[2], "end_date": times[0]})) == [2, 1]
    refused = town.client.get(path, params={"start_date": "yesterday"})
    assert (refused.status_code, refused.json()["error"]) == (400, "bad_request")
    assert "start_date" in refused.json()["description"]
    # By its name, too.
    assert town.client.put(f"/v1/devices/{peer.device}", json={"name": "measured"}).is_success
    assert uptimes(town.client.get("/v1/diagnostics/measured")) == [3, 2, 1]


def asking(town: Town, peer: Peer) -> tuple[threading.Thread, list[httpx.Response]]:
    got: list[httpx.Response] = []
    url = f"/v1/diagnostics/{peer.device}/update"
    caller = threading.Thread(target=lambda: got.append(town.client.post(url)), daemon=True)
    caller.start()
    return caller, got


def answer(peer: Peer, request: Message, payload: bytes, *options: tuple[int, bytes]) -> None:
    response = Message(Type.CON, Code.CONTENT, peer.next_id(), request.token, options, payload)
    assert peer.ask(response).type is Type.ACK


def test_a_device_can_be_asked(town: Town) -> None:
    peer = town.device()
    caller, got = asking(town, peer)
    request = peer.request()
    assert (path_of(request), request.option(Option.URI_QUERY)) == ("d", b"\4")
    answer(peer, request, write_metrics((Metric(6, 77),)))
    caller.join(20)
    assert (got[0].status_code, got[0].json()) == (200, {"ok": True})
    # It is stored before anybody is told that it is.
    assert uptimes(town.client.get(f"/v1/diagnostics/{peer.device}")) == [77]
    until(lambda: town.events(peer, EVENT), "the event")


def test_it_may_answer_in_blocks(town: Town) -> None:
    peer = town.device()
    body = write_metrics((Metric(6, 78), *(Metric(32_768 + number, number) for number in range(200))))
    caller, got = asking(town, peer)
    for number in (0, 1):
        request = peer.request()
        part = body[number * 1024 : (number + 1) * 1024]
        more = 8 if number == 0 else 0
        answer(peer, request, part, (Option.ETAG.value, b"e"), (Option.BLOCK2.value, uint(number << 4 | more | 6)))
    caller.join(20)
    assert got[0].json() == {"ok": True}
    (found,) = town.client.get(f"/v1/diagnostics/{peer.device}").json()["diagnostics"]
    assert found["payload"]["device"]["other"]["app:199"] == 199


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.CONTENT])
def test_one_that_can_not_tell_is_not_taken_for_one_that_did(town: Town, code: Code) -> None:
    peer = town.device()
    caller, got = asking(town, peer)
    request = peer.request()
    assert peer.ask(Message(Type.CON, code, peer.next_id(), request.token, (), b"no metrics")).type is Type.ACK
    caller.join(20)
    assert (got[0].status_code, got[0].json()["error"]) == (408, "timed out")


def test_one_that_is_away_is_not_waited_for(town: Town) -> None:
    peer = town.peer()
    refused = town.client.post(f"/v1/diagnostics/{peer.device}/update")
    assert (refused.status_code, refused.json()["error"]) == (408, "timed out")


@pytest.mark.parametrize("told", [b'{"sys:uptime":9}', b"\xa1jsys:uptime\x09"])
def test_names_and_numbers_will_do(town: Town, told: bytes) -> None:
    peer = town.device()
    assert peer.ask(write_describe(Describe(Kind.METRICS, told), peer.next_id(), b"\1")).code == Code.EMPTY
    assert uptimes(town.client.get(f"/v1/diagnostics/{peer.device}")) == [9]
