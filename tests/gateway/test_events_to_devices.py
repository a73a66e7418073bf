"""Events on their way to the devices that subscribed: to exactly these, in their form and order, at least once, and
not after their time (device-protocol.md, section 8; the outbox)."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import Target, cloud
from tests.gateway.peer import Peer, a_publish, path_of
from tests.gateway.town import Town, in_store, new_device_id, until
from wirechamber.protocols.coap.message import Code, Option, Type, ack, ping
from wirechamber.protocols.deviceos.messages import Goodbye, write_goodbye

# What a device may be given once more after a restart.
PASSED = (b"had", b"not had", b"live", b"away")


def given(peer: Peer, count: int) -> list[bytes]:
    """The data of the next so many events."""
    return [peer.request().payload for _ in range(count)]


def given_at_last(peer: Peer, data: bytes) -> bool:
    """Whether an event comes, maybe after others that come twice: at least once is what is promised over a restart."""
    while (found := peer.request().payload) != data:
        assert found in PASSED, found
    return True


def leave(peer: Peer) -> None:
    assert peer.ask(write_goodbye(Goodbye(cloud=2), peer.next_id())).code == Code.EMPTY


def come_back(peer: Peer) -> None:
    """By the session that it has."""
    id = peer.next_id()
    peer.send(ping(id))
    assert peer.answer(id).code == Code.EMPTY


# --- whose, and which ---


def test_the_form_of_the_message(town: Town) -> None:
    # Name in one option, no token, no content format for text (device-protocol.md, section 8).
    peer = town.device()
    peer.subscribe("to/")
    town.publish("to/me/now", "hello")
    message = peer.request()
    assert (message.type, message.code, message.token) == (Type.CON, Code.POST, b"")
    assert message.options == ((Option.URI_PATH, b"e"), (Option.URI_PATH, b"to/me/now"))
    assert message.payload == b"hello"


def test_only_the_owners_events_reach_a_device(town: Town) -> None:
    bob = town.someone("bob@example.com")
    mine, his = town.device(), town.device(client=bob)
    free = town.kept(Peer.of(town.cloud, "f" * 24)).start()
    for each in (mine, his, free):
        each.subscribe("whose")
    town.publish("whose", "alice's")
    town.publish("whose", "bob's", client=bob)
    his.publish("whose/device", b"bob's too")
    assert given(mine, 1) == [b"alice's"]
    assert given(his, 2) == [b"bob's", b"bob's too"]
    for each in (mine, his, free):
        assert each.silent(0.1)


def test_a_device_that_changes_hands_gets_the_new_owners_events(town: Town) -> None:
    carol = town.someone("carol@example.com")
    # It came with its key by itself; one that its old owner had bound would end with the claim.
    peer = town.kept(Peer.of(town.cloud, new_device_id())).start()
    assert town.client.post("/v1/devices", json={"id": peer.device}).status_code == 200
    peer.publish("any")
    peer.subscribe("hands")
    town.publish("hands", "1")
    assert given(peer, 1) == [b"1"]
    assert town.client.delete(f"/v1/devices/{peer.device}").status_code == 200
    assert carol.post("/v1/devices", json={"id": peer.device}).status_code == 200
    # The cloud learns of it with the next event of the device at the latest.
    peer.publish("any")
    town.publish("hands", "2")
    town.publish("hands", "3", client=carol)
    assert given(peer, 1) == [b"3"]
    assert peer.silent()


def test_prefixes_are_case_sensitive_and_on_the_whole_name(town: Town) -> None:
    peer = town.device()
    peer.subscribe("Temp/in")
    for name in ("temp/in", "x/Temp/in", "Temp/i", "Temp/in", "Temp/inside"):
        town.publish(name, name)
    assert given(peer, 2) == [b"Temp/in", b"Temp/inside"]
    assert peer.silent()


def test_the_empty_prefix_is_everything_but_what_is_the_clouds(town: Town) -> None:
    peer, other = town.device(), town.device()
    peer.subscribe("")
    other.publish("spark/device/last_reset", b"watchdog")
    other.publish("sparkling", b"water")
    assert given(peer, 1) == [b"water"]
    assert peer.silent()


@pytest.mark.parametrize("name", ["spark/device/reset", "particle/device/updates/forced"])
def test_what_firmware_acts_upon_never_comes_from_the_owner(town: Town, name: str) -> None:
    peer = town.device()
    peer.subscribe("spark")
    peer.subscribe("particle")
    town.client.post("/v1/devices/events", json={"name": name, "data": "reboot"})
    assert peer.silent()


def test_two_subscriptions_that_match_bring_the_event_once(town: Town) -> None:
    peer = town.device()
    peer.subscribe("dou")
    peer.subscribe("double")
    town.publish("double/x", "1")
    assert given(peer, 1) == [b"1"]
    assert peer.silent()


def test_a_device_gets_its_own_event_back_if_it_asked_for_it(town: Town) -> None:
    peer = town.device()
    peer.subscribe("echo")
    peer.publish("echo", b"me")
    assert given(peer, 1) == [b"me"]


# --- forms ---

BINARY = b"\x00\x01\xff"
STRUCTURED = bytes.fromhex("a361610161626374776f6163f5")
LOST = ("too_large", "format", "unacknowledged")


def publish_all_kinds(town: Town, name: str) -> None:
    source = town.device()
    assert source.publish(name, b"text").code == Code.EMPTY
    assert source.publish(name, BINARY, content_format=42).code == Code.EMPTY
    assert source.publish(name, STRUCTURED, content_format=65001).code == Code.EMPTY


@pytest.mark.parametrize(
    ("wants", "expected"),
    [
        ({}, [(None, b"text"), (50, b'{"a":1,"b":"two","c":true}')]),
        ({"binary": True}, [(None, b"text"), (42, BINARY), (50, b'{"a":1,"b":"two","c":true}')]),
        ({"cbor": True}, [(60, b"\x64text"), (60, b"\x43" + BINARY), (60, STRUCTURED)]),
    ],
)
def test_each_subscription_gets_the_form_that_it_takes(
    town: Town, wants: dict[str, bool], expected: list[tuple[int | None, bytes]]
) -> None:
    name = "form-" + "-".join(wants)
    peer = town.device()
    peer.subscribe(name, **wants)
    publish_all_kinds(town, name)
    got = [peer.request() for _ in expected]
    assert [(message.uint(Option.CONTENT_FORMAT), message.payload) for message in got] == expected
    assert peer.silent()


def test_plain_and_structured_handlers_of_one_device_both_get_theirs(town: Town) -> None:
    peer = town.device()
    peer.subscribe("both")
    peer.subscribe("both/", cbor=True)
    town.device().publish("both/x", STRUCTURED, content_format=65001)
    got = sorted(message.uint(Option.CONTENT_FORMAT) or 0 for message in (peer.request(), peer.request()))
    assert got == [50, 60]


@pytest.mark.parametrize(
    ("data", "cbor"),
    [
        ('{"a":123,"b":"testing"}', "a26161187b616267" + b"testing".hex()),
        ("21.5", "f94d60"),
        ("[true,null]", "82f5f6"),
        ("on", "626f6e"),
        ("", "60"),
    ],
)
def test_a_structured_handler_gets_what_the_api_and_other_devices_publish_as_text(
    town: Town, data: str, cbor: str
) -> None:
    before = [
        town.metric("wirechamber_device_input_refused_total", part="to_devices", reason=reason) for reason in LOST
    ]
    peer = town.device()
    peer.subscribe("demo/var", cbor=True)
    town.publish("demo/var", data)
    town.device().publish("demo/var/too", data.encode())
    for _ in range(2):
        message = peer.request()
        assert (message.uint(Option.CONTENT_FORMAT), message.payload.hex()) == (60, cbor)
    after = [town.metric("wirechamber_device_input_refused_total", part="to_devices", reason=reason) for reason in LOST]
    assert before == after


def test_what_no_handler_of_a_device_takes_is_counted_as_that(town: Town) -> None:
    before = [
        town.metric("wirechamber_device_input_refused_total", part="to_devices", reason=reason) for reason in LOST
    ]
    peer = town.device()
    peer.subscribe("plain")
    town.device().publish("plain", BINARY, content_format=42)
    town.publish("plain", "text")
    assert given(peer, 1) == [b"text"]
    after = [town.metric("wirechamber_device_input_refused_total", part="to_devices", reason=reason) for reason in LOST]
    assert [now - then for now, then in zip(after, before, strict=True)] == [0, 1, 0]
    log = town.cloud.log_file.read_text().splitlines()
    assert len([line for line in log if "event_of_no_use_to_device" in line and peer.device in line]) == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_subscriptions_of_one_prefix_for_several_forms_stand_side_by_side(town: Town, order: tuple[int, ...]) -> None:
    ways: tuple[dict[str, bool], ...] = ({}, {"binary": True}, {"cbor": True})
    name = f"side-{order[0]}"
    peer = town.device()
    for each in order:
        peer.subscribe(name, **ways[each])
    town.publish(name, "text")
    town.device().publish(name, BINARY, content_format=42)
    forms = [(message.uint(Option.CONTENT_FORMAT), message.payload) for message in (peer.request() for _ in range(4))]
    assert forms == [(None, b"text"), (60, b"\x64text"), (42, BINARY), (60, b"\x43" + BINARY)]
    assert peer.silent()
    told = in_store(town.cloud, lambda store: store.links.get(peer.device))
    assert told is not None
    assert len(told.subscriptions) == 3


def test_firmware_before_6_2_gets_text_and_no_options_but_the_path(town: Town) -> None:
    peer = town.peer().connect()
    peer.hello(system_version=6103)
    peer.subscribe("old")
    town.device().publish("old", STRUCTURED, content_format=65001)
    message = peer.request()
    assert {number for number, _ in message.options} == {Option.URI_PATH}
    assert message.payload == b'{"a":1,"b":"two","c":true}'
    town.device().publish("old", BINARY, content_format=42)
    data_url = b"data:application/octet-stream;base64," + base64.b64encode(BINARY)
    assert given(peer, 1) == [data_url]


def test_data_that_no_device_can_hold_is_left_out(town: Town) -> None:
    peer = town.device()
    peer.subscribe("size")
    town.publish("size", "x" * 1025)
    town.publish("size", "y" * 1024)
    assert given(peer, 1) == [b"y" * 1024]


# --- order, and at least once ---


def test_in_order_one_after_the_other(town: Town) -> None:
    peer = town.device()
    peer.subscribe("order")
    for number in range(30):
        town.publish("order", str(number))
    # Without its acknowledgement no other follows: if this one is lost, none overtakes it.
    first = peer.receive()
    assert peer.silent()
    peer.send(ack(first.id))
    assert [first.payload, *given(peer, 29)] == [str(number).encode() for number in range(30)]
    assert peer.silent(0.1)


def test_an_event_that_is_not_acknowledged_is_sent_again(town: Town) -> None:
    peer = town.device()
    peer.subscribe("again")
    town.publish("again", "x")
    first = peer.receive()
    # 4 to 6 s (device-protocol.md, section 12).
    second = peer.receive(8.0)
    assert (first.id, first.payload) == (second.id, second.payload)
    peer.send(ack(second.id))


def test_what_was_missed_while_away_follows(town: Town) -> None:
    peer = town.device()
    peer.subscribe("missed")
    town.publish("missed", "before")
    assert given(peer, 1) == [b"before"]
    leave(peer)
    until(lambda: not town.show(peer)["online"], "being offline")
    for number in range(150):
        town.publish("missed", str(number))
    assert peer.silent(0.1)
    come_back(peer)
    assert given(peer, 150) == [str(number).encode() for number in range(150)]
    assert peer.silent(0.1)


def test_what_was_missed_follows_a_new_session_too(town: Town) -> None:
    # The device lost its session (power loss); its subscriptions come in one burst after Hello.
    peer = town.device()
    peer.subscribe("first/")
    peer.subscribe("second/")
    leave(peer)
    until(lambda: not town.show(peer)["online"], "being offline")
    town.publish("first/x", "1")
    town.publish("second/x", "2")
    peer.start()
    peer.subscribe("first/")
    peer.subscribe("second/")
    assert given(peer, 2) == [b"1", b"2"]


def test_what_was_sent_and_not_acknowledged_when_it_left_comes_again(town: Town) -> None:
    peer = town.device()
    peer.subscribe("unsure")
    town.publish("unsure", "1")
    town.publish("unsure", "2")
    assert peer.receive().payload == b"1"
    leave(peer)
    come_back(peer)
    assert given(peer, 2) == [b"1", b"2"]


def test_who_comes_back_elsewhere_gets_what_waited_there_and_nowhere_else(town: Town) -> None:
    peer = town.device()
    peer.subscribe("elsewhere")
    leave(peer)
    until(lambda: not town.show(peer)["online"], "being offline")
    town.publish("elsewhere", "1")
    old, peer.host = peer.socket, "127.0.0.3"
    peer.socket = peer._new_socket()
    with old:
        assert peer.publish("here").code == Code.EMPTY
        # Once is enough: it need not be repeated.
        assert given(peer, 1) == [b"1"]
        old.setblocking(False)
        with pytest.raises(BlockingIOError):
            old.recv(2048)
    until(lambda: town.show(peer)["last_ip_address"] == "127.0.0.3", "the address")
    # It came before what it said.
    assert [event["name"] for event in town.events(peer)][-2:] == ["spark/status", "here"]


def test_messages_of_one_who_is_back_keep_their_order(town: Town) -> None:
    peer = town.device()
    for _ in range(5):
        leave(peer)
        peer.move()
        ids = [peer.next_id() for _ in range(5)]
        for id in ids:
            peer.send(a_publish("order", str(id).encode(), id))
        for id in ids:
            assert peer.answer(id).code == Code.EMPTY
    assert [event["data"] for event in town.events(peer, "order")] == sorted(
        (event["data"] for event in town.events(peer, "order")), key=int
    )
    assert len(town.events(peer, "order")) == 25


def test_a_sign_of_life_brings_what_the_device_missed(town: Town) -> None:
    peer = town.device()
    peer.subscribe("missed")
    town.publish("missed", "1")
    town.publish("missed", "2")
    # It hears neither this one nor the first repetition, after 4 to 6 s; the second would come 8 to 12 s after that.
    assert [peer.receive(20).payload for _ in range(2)] == [b"1", b"1"]
    peer.publish("I am here")
    assert peer.receive(7).payload == b"1"
    peer.publish("here I am")
    assert given(peer, 2) == [b"1", b"2"]


def test_what_went_to_where_a_device_was_is_sent_to_where_it_is(town: Town) -> None:
    peer = town.device()
    peer.subscribe("moving")
    town.publish("moving", "1")
    assert peer.receive().payload == b"1"
    peer.move()
    peer.publish("moved")
    # At once: otherwise it would be repeated after 4 s.
    assert peer.receive(3.5).payload == b"1"


def test_an_event_whose_time_is_over_is_not_delivered(town: Town) -> None:
    peer = town.device()
    peer.subscribe("late")
    leave(peer)
    town.publish("late", "short", ttl=1)
    town.publish("late", "long", ttl=60)
    threading.Event().wait(1.2)
    come_back(peer)
    assert given(peer, 1) == [b"long"]
    assert peer.silent()


def test_a_slow_device_reads_on_from_the_log(town: Town) -> None:
    # More than the 64 that wait in memory, and more than one page of the log.
    peer = town.device()
    peer.subscribe("slow")
    for number in range(700):
        town.publish("slow", str(number))
    assert given(peer, 700) == [str(number).encode() for number in range(700)]
    assert peer.silent(0.1)
    town.publish("slow", "live")
    assert given(peer, 1) == [b"live"]


def test_after_a_restart_a_device_gets_what_it_has_not_had(tmp_path: Path) -> None:
    with (
        cloud(tmp_path / "data", provisioning="true", publish_rate="1000", publish_burst="1000") as running,
        Town(running) as town,
    ):
        peer, other = town.device(), town.device()
        peer.subscribe("kept")
        town.publish("kept", "had", ttl=3600)
        assert given(peer, 1) == [b"had"]
        # Long enough for the store to know that it had this one.
        threading.Event().wait(2.5)
        town.publish("kept", "not had", ttl=3600)
        assert peer.receive().payload == b"not had"
        # Whatever the others do meanwhile is written down, and moves on what is known of the log.
        come_back(other)
        other.publish("x")
        running.kill()
        running.start()
        client = running.client(town.token)
        # Nothing has to happen for it: the device was online.
        assert given_at_last(peer, b"not had")
        town.publish("kept", "live", client=client)
        assert given(peer, 1) == [b"live"]
        assert peer.silent()
        # While the server is down, a device that was offline misses what it was sent, and gets it, too.
        leave(peer)
        town.publish("kept", "away", client=client)
        running.kill()
        running.start()
        come_back(peer)
        assert given_at_last(peer, b"away")
        assert peer.silent()
        # Nor does it matter whether it comes back by a new session.
        leave(peer)
        town.publish("kept", "away again", client=running.client(town.token))
        running.stop()
        running.start()
        peer.start()
        peer.subscribe("kept")
        assert given_at_last(peer, b"away again")
        assert peer.silent()


def test_after_a_kill_only_what_was_acknowledged_just_before_comes_again(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", provisioning="true") as running, Town(running) as town:
        peer = town.device()
        peer.subscribe("steady")
        for _ in range(2):
            had: dict[bytes, float] = {}
            until_s = time.monotonic() + 3.0
            while (now := time.monotonic()) < until_s:
                town.publish("steady", f"{now}", ttl=600)
                had[peer.request().payload] = time.monotonic()
            running.kill()
            killed = time.monotonic()
            running.start()
            town.client = running.client(town.token)
            town.publish("steady", "last")
            again: list[bytes] = []
            while (data := peer.request().payload) != b"last":
                again.append(data)
            # What was acknowledged earlier than a second before, and half of one for a busy machine, is not among them.
            assert [killed - had[data] for data in again if killed - had[data] > 1.5] == []


def test_after_a_new_session_and_a_restart_nothing_old_comes_again(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", provisioning="true") as running, Town(running) as town:
        peer = town.device()
        peer.subscribe("kept")
        leave(peer)
        until(lambda: not town.show(peer)["online"], "being offline")
        town.publish("kept", "away", ttl=100_000)
        peer.start()
        peer.subscribe("kept")
        assert given(peer, 1) == [b"away"]
        threading.Event().wait(2.5)
        running.stop()
        running.start()
        come_back(peer)
        town.publish("kept", "live", client=running.client(town.token))
        assert given(peer, 1) == [b"live"]


def test_looking_for_what_was_missed_comes_to_an_end(tmp_path: Path) -> None:
    # The newest event of all is somebody else's: a device's owner has none that is as new.
    with cloud(tmp_path / "data", provisioning="true") as running, Town(running) as town:
        bob = town.someone("bob@example.com")
        peer = town.device()
        peer.subscribe("kept")
        town.publish("kept", "1", ttl=600)
        assert given(peer, 1) == [b"1"]
        leave(peer)
        town.publish("kept", "2", ttl=600)
        town.publish("kept", "bob's", client=bob)
        running.stop()
        running.start()
        come_back(peer)
        assert given(peer, 1) == [b"2"]
        before = town.metric("wirechamber_process_cpu_seconds_total")
        assert before > 0
        threading.Event().wait(1.0)
        assert town.metric("wirechamber_process_cpu_seconds_total") - before < 0.3


# --- answers of integrations ---


@pytest.fixture
def hooks(tmp_path: Path, target: Target) -> Iterator[Town]:
    """A cloud that tries three times within a second, and tells the device after half of it."""
    with (
        cloud(tmp_path / "data", provisioning="true", retry_schedule="0,1.5,1.5", answer_deadline="0.5") as running,
        Town(running) as town,
    ):
        yield town


def test_a_webhooks_answer_comes_to_the_device_in_chunks(hooks: Town, target: Target) -> None:
    answer = b"".join(b"%04d" % number for number in range(300))
    target.answer = lambda method, path, body: (200, {"Content-Type": "text/plain"}, answer)
    hook = {
        "event": "ask",
        "url": target.url,
        "responseTopic": "hook-response/{{{PARTICLE_EVENT_NAME}}}/{{{PARTICLE_DEVICE_ID}}}",
    }
    made = hooks.client.post("/v1/webhooks", json=hook)
    assert made.status_code in (200, 201), made.text
    peer, other = hooks.device(), hooks.device()
    for each in (peer, other):
        each.subscribe(f"hook-response/ask/{each.device}")
    assert peer.publish("ask", b"?").code == Code.EMPTY
    chunks = [peer.request() for _ in range(3)]
    assert [path_of(chunk) for chunk in chunks] == [
        f"e/hook-response/ask/{peer.device}/{number}" for number in range(3)
    ]
    assert b"".join(chunk.payload for chunk in chunks) == answer
    assert other.silent()
    assert len(target.requests) == 1


def test_a_late_answer_is_not_sent_to_the_device(hooks: Town, target: Target) -> None:
    answers: Iterator[tuple[int, dict[str, str], bytes]] = iter([(503, {}, b"busy"), (200, {}, b"at last")])
    target.answer = lambda method, path, body: next(answers)
    hooks.client.post("/v1/webhooks", json={"event": "slow", "url": target.url})
    peer = hooks.device()
    peer.subscribe("hook-response/slow")
    peer.subscribe("hook-error/slow")
    assert peer.publish("slow", b"?").code == Code.EMPTY
    assert path_of(peer.request()) == "e/hook-error/slow/0"
    until(lambda: len(target.requests) == 2, "the second attempt")
    assert peer.silent(1.0)
