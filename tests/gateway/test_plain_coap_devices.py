"""Devices that are not Device OS: CoAP by the RFCs over a pre-shared key. The key says who they are; they publish by
`POST /E/<name>`, and observe `/e/<prefix>` (RFC 7252, RFC 7641)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import cloud
from tests.gateway.peer import HandshakeFailed, Peer, a_publish
from tests.gateway.town import PSK, Town, in_store, never, new_device_id, until
from wirechamber.model.keys import DeviceKeys
from wirechamber.protocols.coap.message import NO_RESPONSE_AT_ALL, Code, Message, Option, Type, ack, ping, reset, uint
from wirechamber.protocols.deviceos.messages import path
from wirechamber.store.base import Store

PSK_CCM_8, ECDHE_PSK_CHACHA20 = 0xC0A8, 0xCCAC
TOKENS = [b"", b"\x01", b"\x01\x02\x03\x04", b"12345678"]

# With connection ids of RFC 9146 (the device's empty, or of its own), and without.
LINKS: list[dict[str, Any]] = [{"cid": b""}, {"cid": b"\x07\x08"}, {"cid": None}]


def observe(peer: Peer, prefix: str, token: bytes = b"\x21", value: int = 0) -> Message:
    """Observes, or (1) no more; returns the acknowledgement."""
    options = ((Option.OBSERVE.value, uint(value)), *path("e", *filter(None, prefix.split("/"))))
    return peer.ask(Message(Type.CON, Code.GET, peer.next_id(), token, options))


def name_of(notification: Message) -> str:
    return "/".join(segment.decode() for segment in notification.all(Option.LOCATION_PATH))


def notified(peer: Peer) -> Message:
    """The next notification, acknowledged."""
    message = peer.request()
    assert (message.type, message.code) == (Type.CON, Code.CONTENT)
    return message


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("suite", [PSK_CCM_8, ECDHE_PSK_CHACHA20])
def test_a_device_is_online_after_the_handshake_and_publishes_at_once(
    town: Town, link: dict[str, Any], suite: int
) -> None:
    peer = town.psk_peer(suites=[suite], **link).connect()
    answer = peer.publish("temp", b"21.5", token=b"\x07")
    assert (answer.type, answer.code, answer.token) == (Type.ACK, Code.CHANGED, b"\x07")
    (stored,) = town.events(peer, "temp")
    assert (stored["data"], stored["owner"]) == ("21.5", town.show(peer)["owner"])
    assert town.statuses(peer) == ["online"]
    until(lambda: town.show(peer)["online"], "being online in the registry")


def test_an_acknowledged_event_is_in_the_log(tmp_path: Path) -> None:
    with cloud(tmp_path / "data") as running, Town(running) as town:
        peer = town.psk_peer().connect()
        for number in range(3):
            assert peer.publish("count", str(number).encode()).code == Code.CHANGED
            running.kill()
            assert [event["data"] for event in town.events(peer, "count")] == [str(n) for n in range(number + 1)]
            running.start()


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_of_any_length(town: Town, token: bytes) -> None:
    peer = town.psk_peer().connect()
    assert peer.publish("x", token=token).token == token
    observed = observe(peer, "to-me", token)
    assert (observed.code, observed.token) == (Code.CONTENT, token)
    town.publish("to-me/1", "hi")
    assert notified(peer).token == token


def test_a_non_is_answered_by_a_non_once_it_is_stored(town: Town) -> None:
    peer = town.psk_peer().connect()
    peer.send(a_publish("non", b"x", peer.next_id(), confirmable=False, token=b"\x05"))
    answer = peer.receive()
    assert (answer.type, answer.code, answer.token) == (Type.NON, Code.CHANGED, b"\x05")
    assert len(town.events(peer, "non")) == 1


def test_an_answer_that_is_not_wanted_is_not_sent(town: Town) -> None:
    """RFC 7967."""
    peer = town.psk_peer().connect()
    peer.send(a_publish("non", b"1", peer.next_id(), confirmable=False, token=b"\x05", no_response=NO_RESPONSE_AT_ALL))
    until(lambda: len(town.events(peer, "non")) == 1, "being stored")
    # Successes only: what is refused is told.
    peer.send(a_publish("non", b"2", peer.next_id(), confirmable=False, token=b"\x06", no_response=2))
    until(lambda: len(town.events(peer, "non")) == 2, "being stored")
    assert peer.silent()
    peer.send(a_publish("spark/status", b"", peer.next_id(), confirmable=False, token=b"\x07", no_response=2))
    answer = peer.receive()
    assert (answer.type, answer.code, answer.token) == (Type.NON, Code.FORBIDDEN, b"\x07")
    peer.send(a_publish("spark/status", b"", peer.next_id(), confirmable=False, no_response=NO_RESPONSE_AT_ALL))
    assert peer.silent()
    # What is to be confirmed is, and that is all.
    answer = peer.publish("con", b"3", token=b"\x08", no_response=NO_RESPONSE_AT_ALL)
    assert (answer.type, answer.code, answer.token) == (Type.ACK, Code.EMPTY, b"")


def test_a_retransmission_is_answered_alike_and_stored_once(town: Town) -> None:
    peer = town.psk_peer().connect()
    id = peer.next_id()
    answers = [peer.publish("once", b"x", id=id, token=b"\x05") for _ in range(3)]
    assert {(answer.code, answer.token) for answer in answers} == {(Code.CHANGED, b"\x05")}
    assert len(town.events(peer, "once")) == 1


def test_content_formats_and_time_to_live(town: Town) -> None:
    peer = town.psk_peer().connect()
    assert peer.publish("json", b'{"a":1}', content_format=50, max_age=3600).code == Code.CHANGED
    (stored,) = town.events(peer, "json")
    assert (stored["data"], stored["content_type"], stored["ttl"]) == ('{"a":1}', "application/json", 3600)


# --- what there is ---


@pytest.mark.parametrize("code", [Code.PUT, Code.DELETE, Code.FETCH, Code.IPATCH])
@pytest.mark.parametrize("where", [("E", "x"), ("e", "x"), ("t",), (".well-known", "core")])
def test_a_method_that_is_not_possible_is_told_as_such(town: Town, code: Code, where: tuple[str, ...]) -> None:
    peer = town.psk_peer().connect()
    answer = peer.ask(Message(Type.CON, code, peer.next_id(), b"\x05", path(*where), b"21.5"))
    assert (answer.type, answer.code, answer.token) == (Type.ACK, Code.METHOD_NOT_ALLOWED, b"\x05")
    assert peer.ask(Message(Type.CON, Code.GET, peer.next_id(), b"", path("nothing"))).code == Code.NOT_FOUND


def discover(peer: Peer, *options: tuple[int, bytes]) -> Message:
    asked = tuple(sorted((*path(".well-known", "core"), *options), key=lambda option: option[0]))
    return peer.ask(Message(Type.CON, Code.GET, peer.next_id(), b"\x06", asked))


def test_there_is_a_list_of_links(town: Town) -> None:
    peer = town.psk_peer().connect()
    whole = discover(peer)
    assert (whole.code, whole.uint(Option.CONTENT_FORMAT), whole.option(Option.BLOCK2)) == (Code.CONTENT, 40, None)
    links = whole.payload.decode()
    for href in ("</E>;", "</e>;", "</t>;", "</.well-known/core>;"):
        assert href in links
    assert discover(peer, (Option.ACCEPT, uint(40))).payload == whole.payload
    assert discover(peer, (Option.ACCEPT, uint(50))).code == Code.NOT_ACCEPTABLE
    one = discover(peer, (Option.URI_QUERY, b"rt=time"))
    assert one.payload.startswith(b"</t>;")
    assert b"," not in one.payload


@pytest.mark.parametrize("szx", [0, 2])
def test_the_list_comes_in_blocks_of_the_size_that_was_asked_for(town: Town, szx: int) -> None:
    peer = town.psk_peer().connect()
    whole, gathered, more = discover(peer).payload, b"", True
    while more:
        number = len(gathered) >> szx + 4
        part = discover(peer, (Option.BLOCK2, uint(number << 4 | szx)))
        assert part.code == Code.CONTENT
        told = part.uint(Option.BLOCK2)
        assert told is not None
        assert (told >> 4, told & 7) == (number, szx)
        gathered += part.payload
        more = bool(told & 8)
    assert gathered == whole
    assert discover(peer, (Option.BLOCK2, uint(500 << 4 | szx))).code == Code.BAD_REQUEST


def test_names_of_the_clouds_own_are_refused(town: Town) -> None:
    peer = town.psk_peer().connect()
    for name in ("spark/status", "particle/x", "spark/device/name", "wirechamber/gap"):
        assert peer.publish(name, b"online").code == Code.FORBIDDEN
    # What comes later in the log was not answered before this was stored; a refusal says nothing of that.
    assert peer.publish("after").code == Code.CHANGED
    assert town.statuses(peer) == ["online"]


def test_a_ping_is_answered_by_a_reset(town: Town) -> None:
    # RFC 7252, section 4.3.
    peer = town.psk_peer().connect()
    id = peer.next_id()
    peer.send(ping(id))
    assert peer.answer(id).type is Type.RST


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Message(Type.CON, Code.GET, 9, b"\x01", path("nothing")), Code.NOT_FOUND),
        (Message(Type.CON, Code.POST, 9, b"\x01", path("E")), Code.BAD_REQUEST),
        (Message(Type.CON, Code.GET, 9, b"\x01", path("e", "x")), Code.BAD_REQUEST),
        (Message(Type.CON, Code.GET, 9, b"\x01", ((Option.IF_NONE_MATCH, b""), *path("t"))), Code.BAD_OPTION),
        (Message(Type.CON, Code.POST, 9, b"\x01", path("h"), bytes(32)), Code.NOT_FOUND),
    ],
)
def test_what_makes_no_sense_is_answered(town: Town, message: Message, code: Code) -> None:
    peer = town.psk_peer().connect()
    peer.message_id = 9
    answer = peer.ask(message)
    assert (answer.code, answer.token) == (code, b"\x01")
    assert peer.publish("after").code == Code.CHANGED


# --- observing ---


def test_notifications_come_in_order_and_tell_the_name(town: Town) -> None:
    peer = town.psk_peer().connect()
    first = observe(peer, "lamp/kitchen")
    assert first.option(Option.OBSERVE) is not None
    for number in range(10):
        town.publish(f"lamp/kitchen/{number}", str(number))
    got = [notified(peer) for _ in range(10)]
    assert [name_of(message) for message in got] == [f"e/lamp/kitchen/{number}" for number in range(10)]
    assert [message.payload for message in got] == [str(number).encode() for number in range(10)]
    assert {message.token for message in got} == {b"\x21"}
    orders = [message.uint(Option.OBSERVE) for message in got]
    assert None not in orders
    assert orders == sorted(orders)  # type: ignore[type-var]


def test_binary_and_structured_data_come_with_their_format(town: Town) -> None:
    peer = town.psk_peer().connect()
    observe(peer, "form")
    other = town.device()
    other.publish("form", b"\x00\xff", content_format=42)
    other.publish("form", b'{"a":1}', content_format=50)
    got = [notified(peer) for _ in range(2)]
    assert [(message.uint(Option.CONTENT_FORMAT), message.payload) for message in got] == [
        (42, b"\x00\xff"), (50, b'{"a":1}'),
    ]  # fmt: skip


def test_observe_one_ends_it(town: Town) -> None:
    peer = town.psk_peer().connect()
    observe(peer, "no-more")
    assert observe(peer, "no-more", value=1).code == Code.CONTENT
    town.publish("no-more", "x")
    assert peer.silent()
    told = in_store(town.cloud, lambda store: store.links.get(peer.device))
    assert told is not None
    assert told.subscriptions == ()


def test_a_reset_ends_it(town: Town) -> None:
    # RFC 7641, section 3.6.
    peer = town.psk_peer().connect()
    observe(peer, "go-away")
    observe(peer, "stay", b"\x22")
    town.publish("go-away", "1")
    peer.send(reset(peer.receive().id))
    never(lambda: not peer.silent(0.1))
    town.publish("go-away", "2")
    town.publish("stay", "3")
    assert notified(peer).payload == b"3"
    assert peer.silent()

    def kept() -> list[str]:
        told = in_store(town.cloud, lambda store: store.links.get(peer.device))
        return [] if told is None else [each.prefix for each in told.subscriptions]

    until(lambda: kept() == ["stay"], "being forgotten in the store")


def test_observing_again_takes_the_new_token(town: Town) -> None:
    peer = town.psk_peer().connect()
    observe(peer, "token", b"\x01")
    observe(peer, "token", b"\x02\x02")
    town.publish("token", "x")
    assert notified(peer).token == b"\x02\x02"
    assert peer.silent()


def test_what_comes_by_an_old_token_may_be_rejected_and_comes_by_the_new_one(town: Town) -> None:
    """A device that has started anew does not know what the last one asked for."""
    peer = town.psk_peer().connect()
    observe(peer, "anew", b"\x01")
    town.publish("anew", "x")
    old = peer.receive()
    assert old.token == b"\x01"
    observe(peer, "anew", b"\x02")
    peer.send(reset(old.id))
    # The old one may have been repeated before it was rejected.
    again = peer.receive(want=lambda message: message.token == b"\x02")
    assert again.payload == b"x"
    peer.send(ack(again.id))
    town.publish("anew", "y")
    assert peer.receive(want=lambda message: message.token == b"\x02" and message.id != again.id).payload == b"y"


def test_an_observation_outlives_a_restart(tmp_path: Path) -> None:
    with cloud(tmp_path / "data") as running, Town(running) as town:
        with_cid, without = town.psk_peer().connect(), town.psk_peer(cid=None).connect()
        for peer in (with_cid, without):
            assert observe(peer, "kept", b"\x09\x09\x09").code == Code.CONTENT
        running.kill()
        running.start()
        town.publish("kept/1", "hi", client=running.client(town.token))
        for peer in (with_cid, without):
            message = notified(peer)
            assert (message.token, name_of(message), message.payload) == (b"\x09\x09\x09", "e/kept/1", b"hi")
        with_cid.move()
        assert with_cid.publish("moved").code == Code.CHANGED


def test_the_same_address_may_have_a_new_session(town: Town) -> None:
    # Without a connection id the address tells the session: a device that restarted comes from the same port.
    peer = town.psk_peer(cid=None).connect()
    assert peer.publish("before").code == Code.CHANGED
    peer.connect()
    assert peer.publish("after").code == Code.CHANGED
    other = town.psk_peer(cid=None).connect()
    assert other.publish("other").code == Code.CHANGED
    assert len(in_store(town.cloud, lambda store: store.sessions.of_device(peer.device))) == 1


def test_a_forged_hello_at_its_address_does_not_end_a_session(town: Town) -> None:
    peer = town.psk_peer(cid=None).connect()
    assert peer.publish("before").code == Code.CHANGED
    hello = next(data for data in peer.sent if data[0] == 22)
    for _ in range(5):
        peer.transmit(hello)
    assert peer.publish("after").code == Code.CHANGED


# --- who it is ---


def failure(peer: Peer) -> tuple[str, tuple[tuple[int, int], ...]]:
    """How a handshake fails, as its device sees it: why, and type and length of every datagram that came."""
    with pytest.raises((HandshakeFailed, AssertionError)) as failed:
        peer.connect()
    return str(failed.value), tuple((data[0], len(data)) for data in peer.received)


@pytest.mark.parametrize("suite", [PSK_CCM_8, ECDHE_PSK_CHACHA20])
def test_an_unknown_identity_is_not_told_apart_from_a_wrong_key(town: Town, suite: int) -> None:
    # RFC 4279, section 2: otherwise one could find out which devices there are. Here are a known device with another
    # key, an unknown one, a known one that has no such key, and identities that are no device's.
    known = town.psk_peer(suites=[suite])
    known.psk = b"w" * 32
    identities = [new_device_id(), town.peer().device, "", "x", "0" * 25, "\x00" * 24, "0" * 128]
    strangers = [town.kept(Peer.of(town.cloud, identity, psk=PSK, suites=[suite])) for identity in identities]
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(failure, [known, *strangers]))
    assert set(seen) == {seen[0]}
    assert town.events(known) == []


def test_the_identity_is_the_device_id_in_any_case(town: Town) -> None:
    peer = town.psk_peer()
    peer.device = peer.device.upper()
    peer.connect()
    assert peer.publish("upper").code == Code.CHANGED
    peer.device = peer.device.lower()
    assert len(town.events(peer, "upper")) == 1


def test_a_key_replaced_ends_the_session(town: Town) -> None:
    peer = town.psk_peer().connect()
    assert peer.publish("x").code == Code.CHANGED

    async def replace(store: Store) -> None:
        await store.keys.set(DeviceKeys(device=peer.device, psk=b"n" * 32, changed_at=0))

    in_store(town.cloud, replace)
    assert peer.alert()
    peer.send(ping(peer.next_id()))
    assert peer.silent()
    peer.psk = b"n" * 32
    peer.connect()
    assert peer.publish("new").code == Code.CHANGED
