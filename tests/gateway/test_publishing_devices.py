"""Events that devices publish: stored before they are acknowledged, in all forms (device-protocol.md, section 7.3)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import cloud
from tests.gateway.peer import Peer, a_publish, path_of
from tests.gateway.town import Town, logged, never, new_device_id, until
from tests.sse import stream, take
from wirechamber.protocols.coap.message import Code, Message, Option, Type, uint
from wirechamber.protocols.deviceos.messages import path


def reliable(peer: Peer, name: str, data: bytes = b"", **fields: Any) -> None:
    """Publishes, and holds that it was taken."""
    assert peer.publish(name, data, **fields).code == Code.EMPTY


def test_an_acknowledged_event_is_in_the_log(tmp_path: Path) -> None:
    # The process is killed as soon as the acknowledgement is here, five times.
    with cloud(tmp_path / "data", provisioning="true", publish_rate="1000", publish_burst="1000") as running:
        peer = Town(running).device()
        for number in range(5):
            reliable(peer, "count", str(number).encode())
            running.kill()
            assert [event["data"] for event in logged(running, peer.device, "count")] == [
                str(each) for each in range(number + 1)
            ]
            running.start()
        peer.close()


def test_an_event_as_streams_show_it(town: Town) -> None:
    peer = town.device()
    with stream(town.client, f"/v1/devices/{peer.device}/events/temp") as source:
        reliable(peer, "temp/out", b"21.5")
        (event,) = take(source, 1)
    assert (event.name, event.data, event.body["coreid"]) == ("temp/out", "21.5", peer.device)
    (stored,) = town.events(peer, "temp/out")
    assert (stored["origin"], stored["device"], stored.get("ttl", 60)) == ("device", peer.device, 60)
    assert stored["owner"] == town.show(peer)["owner"]


def test_an_event_without_acknowledgement(town: Town) -> None:
    peer = town.device()
    peer.send(a_publish("non", b"fire and forget", peer.next_id(), confirmable=False))
    until(lambda: town.events(peer, "non"), "the event")
    assert peer.silent()


def test_a_non_that_the_network_doubled_is_stored_once(town: Town) -> None:
    peer = town.device()
    message = a_publish("non", b"twice", peer.next_id(), confirmable=False)
    for _ in range(3):
        peer.send(message)
    reliable(peer, "after")
    until(lambda: town.events(peer, "non"), "the event")
    never(lambda: len(town.events(peer, "non")) > 1)


@pytest.mark.parametrize(
    ("content_format", "payload", "data", "mime"),
    [
        (None, b"plain", "plain", "text/plain"),
        (None, b"", None, "text/plain"),
        (0, "grüß".encode(), "grüß", "text/plain"),
        (None, b"not \xff utf-8", "not � utf-8", "text/plain"),
        (50, b'{"a":1}', '{"a":1}', "application/json"),
        (41, b"<a/>", "<a/>", "application/xml"),
        (42, bytes(range(8)), "data:application/octet-stream;base64,AAECAwQFBgc=", "application/octet-stream"),
        (22, b"\xff\xd8", "data:image/jpeg;base64,/9g=", "image/jpeg"),
        (23, b"\x89PNG", "data:image/png;base64,iVBORw==", "image/png"),
        (65001, bytes.fromhex("a361610161626374776f6163f5"), '{"a":1,"b":"two","c":true}', "application/json"),
        (65001, b"\xff\xff", "data:application/cbor;base64,//8=", "application/cbor"),
        (12345, b"\x01", "data:application/octet-stream;base64,AQ==", "application/octet-stream"),
    ],
)
def test_content_types(town: Town, content_format: int | None, payload: bytes, data: str | None, mime: str) -> None:
    peer = town.device()
    reliable(peer, "form", payload, content_format=content_format)
    (stored,) = town.events(peer, "form")
    assert (stored["data"], stored.get("content_type", "text/plain")) == (data, mime)


def test_structured_data_on_a_stream(town: Town) -> None:
    peer = town.device()
    with stream(town.client, "/v1/devices/events/structured") as source:
        reliable(peer, "structured", bytes.fromhex("a361610161626374776f6163f5"), content_format=65001)
        (event,) = take(source, 1)
    assert json.loads(event.data) == {"a": 1, "b": "two", "c": True}


@pytest.mark.parametrize(
    ("max_age", "ttl"), [(60, 60), (0, 0), (3600, 3600), (16_777_215, 16_777_215), (2**32 - 1, 16_777_215)]
)
def test_time_to_live(town: Town, max_age: int, ttl: int) -> None:
    peer = town.device()
    reliable(peer, "lives", max_age=max_age)
    (stored,) = town.events(peer, "lives")
    assert stored.get("ttl", 60) == ttl


def test_a_name_in_one_option_or_in_several(town: Town) -> None:
    peer = town.device()
    for segments in (("a/b/c",), ("a", "b", "c"), ("a/b", "c")):
        message = Message(Type.CON, Code.POST, peer.next_id(), b"", path("E", *segments), b"x")
        assert peer.ask(message).code == Code.EMPTY
    assert [event["name"] for event in town.events(peer) if event["name"] != "spark/status"] == ["a/b/c"] * 3


def test_public_and_private_events_of_older_firmware(town: Town) -> None:
    peer = town.device()
    for private in (True, False):
        reliable(peer, "either", private=private, max_age=120)
    assert len(town.events(peer, "either")) == 2


def test_a_long_name_and_much_data(town: Town) -> None:
    peer = town.device()
    reliable(peer, "n" * 64, b"d" * 1024)
    (stored,) = town.events(peer, "n" * 64)
    assert stored["data"] == "d" * 1024
    assert peer.publish("n" * 65, b"").code == Code.BAD_REQUEST


@pytest.mark.parametrize("name", ["line\nbreak", "tab\t", "umläut", "\x7f"])
def test_a_name_that_no_event_may_have(town: Town, name: str) -> None:
    peer = town.device()
    assert peer.publish(name).code == Code.BAD_REQUEST
    assert town.events(peer, name) == []


def test_a_long_event_in_blocks(town: Town) -> None:
    # Newer firmware publishes up to 16 KB; the blocks go through the exchanges.
    peer = town.device()
    body = base64.b64encode(bytes(range(256)) * 9)[:3000]
    pieces = [body[at : at + 1024] for at in range(0, len(body), 1024)]
    for number, piece in enumerate(pieces):
        more = 8 if number + 1 < len(pieces) else 0
        reliable(peer, "long", piece, block1=uint(number << 4 | more | 6))
    (stored,) = town.events(peer, "long")
    assert stored["data"] == body.decode()


# --- once ---


def test_a_retransmission_is_acknowledged_and_stored_once(town: Town) -> None:
    peer = town.device()
    id = peer.next_id()
    for _ in range(3):
        reliable(peer, "once", b"x", id=id)
    assert len(town.events(peer, "once")) == 1


def test_a_burst_of_retransmissions_is_stored_once(town: Town) -> None:
    # They come before the first is stored: one answer is enough, two do no harm.
    peer = town.device()
    message = a_publish("once", b"x", peer.next_id())
    for _ in range(20):
        peer.send(message)
    assert peer.answer(message.id).code == Code.EMPTY
    reliable(peer, "after")
    assert len(town.events(peer, "once")) == 1


def test_many_outstanding_events_are_all_acknowledged_and_kept_in_order(town: Town) -> None:
    # Device OS has no limit of its own (device-protocol.md, Q28).
    peer = town.device()
    ids = [peer.next_id() for _ in range(100)]
    for number, id in enumerate(ids):
        peer.send(a_publish("burst", str(number).encode(), id))
    for id in ids:
        assert peer.answer(id).code == Code.EMPTY
    assert [event["data"] for event in town.events(peer, "burst")] == [str(number) for number in range(100)]


def test_devices_in_lockstep_lose_nothing(town: Town) -> None:
    # All have sent as many records as the others, and publish in the same millisecond.
    peers = [town.device() for _ in range(8)]
    messages = [[a_publish("step", str(number).encode(), peer.next_id()) for number in range(40)] for peer in peers]
    for number in range(40):
        for peer, mine in zip(peers, messages, strict=True):
            peer.send(mine[number])
    for peer, mine in zip(peers, messages, strict=True):
        for message in mine:
            assert peer.answer(message.id).code == Code.EMPTY
        assert [event["data"] for event in town.events(peer, "step")] == [str(number) for number in range(40)]


def test_message_ids_may_wrap_around(town: Town) -> None:
    peer = town.device()
    peer.message_id = 0xFFFD
    for number in range(6):
        reliable(peer, "wrap", str(number).encode())
    assert [event["data"] for event in town.events(peer, "wrap")] == [str(number) for number in range(6)]


# --- reserved names ---


@pytest.mark.parametrize(
    "name", ["spark/status", "particle/internal", "spark/flash", "spark/", "particle/x/device/name", "wirechamber/gap"]
)
def test_names_that_only_the_cloud_may_use_are_refused(town: Town, name: str) -> None:
    peer = town.device()
    assert peer.publish(name, b"online").code == Code.FORBIDDEN
    assert [event for event in town.events(peer, name) if event["origin"] == "device"] == []


def test_names_that_only_look_like_it_are_taken(town: Town) -> None:
    peer = town.device()
    for name in ("sparkling", "particles", "wirechambers", "hook-response/x/0", "mine/spark/device/name"):
        reliable(peer, name)
        assert len(town.events(peer, name)) == 1


def test_what_firmware_tells_at_connect_is_taken(town: Town) -> None:
    peer = town.device()
    told = {
        "particle/device/updates/enabled": b"true",
        "particle/device/updates/forced": b"false",
        "spark/device/last_reset": b"power_down",
        "spark/hardware/max_binary": b"1048576",
        "spark/device/safemode": b"",
    }
    for name, data in told.items():
        reliable(peer, name, data)
    for name, data in told.items():
        (stored,) = town.events(peer, name)
        assert (stored["data"] or "").encode() == data


@pytest.mark.parametrize("family", ["spark", "particle"])
def test_questions_of_applications_are_answered_to_that_device_alone(town: Town, family: str) -> None:
    peer, other = town.device(), town.device()
    for each in (peer, other):
        each.subscribe("spark")
        each.subscribe("particle")
    name = f"lamp-{peer.device[:6]}"
    assert town.client.put(f"/v1/devices/{peer.device}", json={"name": name}).status_code == 200
    answers = {}
    for question in ("name", "ip", "random"):
        reliable(peer, f"{family}/device/{question}")
        answer = peer.request()
        answers[path_of(answer).removeprefix("e/")] = answer.payload
    assert answers[f"{family}/device/name"] == name.encode()
    assert answers[f"{family}/device/ip"] == b"127.0.0.1"
    assert len(answers[f"{family}/device/random"]) == 40
    assert other.silent()


# --- claim codes ---


def test_a_claim_code_makes_the_device_its_users_and_is_in_no_log(town: Town) -> None:
    peer = town.kept(Peer.of(town.cloud, new_device_id())).start()
    code = town.client.post("/v1/device_claims", json={}).json()["claim_code"]
    reliable(peer, "spark/device/claim/code", code.encode())
    answer = peer.request()
    assert path_of(answer).startswith("e/spark/device/claim/")
    until(lambda: town.client.get(f"/v1/devices/{peer.device}").status_code == 200, "being claimed")
    reliable(peer, "mine", b"now")
    (stored,) = town.events(peer, "mine")
    assert stored["owner"] == town.show(peer)["owner"]
    assert code not in (town.cloud.folder / "events.db").read_bytes().decode("latin-1")
    assert code not in (town.cloud.folder / "events.db-wal").read_bytes().decode("latin-1")
    assert code not in town.cloud.log_file.read_text()


def test_a_claim_code_that_is_none_changes_nothing(town: Town) -> None:
    peer = town.device()
    reliable(peer, "spark/device/claim/code", b"A" * 63)
    peer.request()
    assert town.show(peer)["owner"] is not None
    reliable(peer, "after")


# --- too much ---


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A cloud with narrow limits."""
    narrow = {"publish_rate": "1", "publish_burst": "4"}
    with cloud(tmp_path_factory.mktemp("strict") / "data", provisioning="true", **narrow) as running:
        made = Town(running)
        yield made
        made.leave()


def test_a_device_that_publishes_too_fast_is_told_when_to_try_again(strict: Town) -> None:
    peer = strict.device()
    for number in range(4):
        reliable(peer, "fast", str(number).encode())
    refused = peer.publish("fast", b"4")
    assert (refused.type, refused.code) == (Type.ACK, Code.TOO_MANY_REQUESTS)
    assert refused.uint(Option.MAX_AGE) == 1
    assert [event["data"] for event in strict.events(peer, "fast")] == ["0", "1", "2", "3"]
    # Then it may, and the same message id is not held against it.
    until(lambda: peer.publish("fast", b"later", id=peer.message_id).code == Code.EMPTY, "being let in again", 5.0)
    assert [event["data"] for event in strict.events(peer, "fast")] == ["0", "1", "2", "3", "later"]
    # Others are not slowed down, and names of the firmware's own have their own measure.
    other = strict.device()
    reliable(other, "fast")
    for _ in range(30):
        reliable(other, "particle/device/updates/enabled", b"true")


def test_a_non_that_is_too_much_is_dropped_without_a_word(strict: Town) -> None:
    peer = strict.device()
    for number in range(8):
        peer.send(a_publish("non", str(number).encode(), peer.next_id(), confirmable=False))
    until(lambda: len(strict.events(peer, "non")) == 4, "four events")
    assert peer.silent()
    assert len(strict.events(peer, "non")) == 4


def test_what_is_refused_is_told_of_each_device_once_a_minute_and_counted(strict: Town) -> None:
    peer, quiet = strict.device(), strict.device()
    quiet.publish("quiet")
    for number in range(10):
        peer.send(a_publish("many", str(number).encode(), peer.next_id()))
    until(lambda: strict.show(peer)["publishes_refused"] == 6, "six that were refused")
    assert peer.publish("spark/reserved").code == Code.FORBIDDEN
    until(lambda: strict.show(peer)["publishes_refused"] == 7, "another one")
    assert json.loads(strict.cloud.command("device", "show", peer.device))["publishes_refused"] == 7
    assert strict.show(quiet)["publishes_refused"] == 0
    lines = [json.loads(line) for line in strict.cloud.log_file.read_text().splitlines() if "publish_refused" in line]
    told = [(line["reason"], line["name"], line["level"]) for line in lines if line["device"] == peer.device]
    assert told == [("rate", "many", "warning"), ("reserved", "spark/reserved", "warning")]
    assert [line for line in lines if line["device"] == quiet.device] == []


def test_data_larger_than_this_cloud_takes(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", provisioning="true", max_event_bytes="100") as running:
        town = Town(running)
        peer = town.device()
        assert peer.publish("big", b"x" * 101).code == Code.REQUEST_ENTITY_TOO_LARGE
        assert peer.publish("big", b"x" * 100).code == Code.EMPTY
        assert len(town.events(peer, "big")) == 1
        town.leave()
