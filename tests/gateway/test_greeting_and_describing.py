"""What a Device OS device tells once, and never again once it is acknowledged: Hello, descriptions, subscriptions
(device-protocol.md, sections 7 and 11). And the small talk beside it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.cloud import Target, cloud
from tests.gateway.peer import Peer, a_hello, a_publish, path_of
from tests.gateway.town import Town, in_store, logged, never, until
from wirechamber.protocols.coap.blockwise import Block, write_block
from wirechamber.protocols.coap.message import Code, Message, Option, Type, ping, uint
from wirechamber.protocols.deviceos.describe import Application, Module, System, write_application, write_system
from wirechamber.protocols.deviceos.messages import (
    Describe,
    Flag,
    Goodbye,
    Kind,
    LedgerRequest,
    Subscribe,
    path,
    write_describe,
    write_goodbye,
    write_ledger,
    write_subscribe,
    write_time_request,
)
from wirechamber.protocols.deviceos.metrics import Metric, write_metrics
from wirechamber.protocols.deviceos.requests import DescribeRequest, describe_answer, read_from_cloud

LAMP = Application(functions=("set", "blink"), variables={"level": "int32", "name": "string"})
FIRMWARE = System(modules=(Module(type="system part", index=1, version=6200, store="main", max_size=0x40000),))


def describe(peer: Peer, kind: Kind, payload: bytes, **fields: bytes) -> Message:
    """A description; returns its acknowledgement."""
    content_format = 42 if kind is Kind.SYSTEM else None
    return peer.ask(write_describe(Describe(kind, payload, content_format, **fields), peer.next_id(), b"\x01"))


# --- what is acknowledged is stored ---


def test_hello_describe_and_subscribe_are_stored_before_they_are_acknowledged(tmp_path: Path) -> None:
    # The process is killed at the very moment at which the acknowledgement arrives, after each of the three.
    with cloud(tmp_path / "data", provisioning="true") as running:
        town = Town(running)
        peer = town.peer().connect()
        assert peer.hello(product_version=7, system_version=6103, platform=13).code == Code.EMPTY
        running.kill()
        told = in_store(running, lambda store: store.links.get(peer.device))
        assert told is not None
        assert told.greeting is not None
        assert (told.greeting.platform, told.greeting.product_version, told.greeting.system_version) == (13, 7, 6103)
        (session,) = in_store(running, lambda store: store.sessions.of_device(peer.device))
        running.start()
        assert describe(peer, Kind.APPLICATION, write_application(LAMP)).code == Code.EMPTY
        running.kill()
        told = in_store(running, lambda store: store.links.get(peer.device))
        assert told is not None
        assert (told.functions, told.variables) == (LAMP.functions, LAMP.variables)
        running.start()
        assert peer.subscribe("to-me/", binary=True).code == Code.EMPTY
        running.kill()
        told = in_store(running, lambda store: store.links.get(peer.device))
        assert told is not None
        assert [(each.prefix, each.binary, each.cbor) for each in told.subscriptions] == [("to-me/", True, False)]
        running.start()
        # It needs to say nothing again: no handshake, no Hello, and all is as if nothing had happened.
        assert peer.publish("still", b"here").code == Code.EMPTY
        assert [same.id for same in in_store(running, lambda store: store.sessions.of_device(peer.device))] == [
            session.id
        ]
        client = running.client(town.token)
        client.post("/v1/devices/events", json={"name": "to-me/now", "data": "hi"})
        assert path_of(peer.request()) == "e/to-me/now"
        shown = client.get(f"/v1/devices/{peer.device}").json()
        assert (shown["functions"], shown["variables"]) == (["set", "blink"], {"level": "int32", "name": "string"})
        peer.close()


def test_the_registry_shows_what_a_device_said_in_hello(town: Town) -> None:
    peer = town.peer().connect()
    peer.hello(product=12345, product_version=9, platform=13, system_version=6200)
    shown = until(lambda: town.show(peer) if town.show(peer)["online"] else None, "being online")
    assert shown["platform_id"] == 13
    assert shown["cellular"] is True
    assert (shown["firmware_product_id"], shown["firmware_version"]) == (12345, 9)
    assert shown["system_module_version"] in (6200, "6.2.0")
    assert shown["last_ip_address"] == "127.0.0.1"
    assert shown["last_handshake_at"] is not None


def test_a_devices_product_is_the_same_everywhere_and_follows_its_firmware(town: Town) -> None:
    peer = town.peer().connect()
    for product, version in ((12345, 7), (12345, 8), (777, 1), (13, None)):
        peer.hello(product=product, product_version=version, platform=13)
        peer.publish("made", str(version).encode())
        shown = town.show(peer)
        assert (shown["product_id"], shown["firmware_version"], shown["platform_id"]) == (product, version, 13)
        assert town.events(peer, "made")[-1]["product"] == product
        # What is written into the registry is not taken from what the firmware told.
        assert town.client.put(f"/v1/devices/{peer.device}", json={"name": f"p{version}"}).status_code == 200
        told = json.loads(town.cloud.command("device", "show", peer.device))
        assert (told["product_id"], told["firmware_version"], told["name"]) == (product, version, f"p{version}")


def test_templates_are_given_the_product_that_the_api_shows(town: Town, target: Target) -> None:
    hook = {
        "event": "facts", "url": target.url, "noDefaults": True,
        "json": '{"v":"{{{PRODUCT_VERSION}}}","p":"{{{PRODUCT_ID}}}","n":{{{PRODUCT_VERSION}}}}',
    }  # fmt: skip
    assert town.client.post("/v1/webhooks", json=hook).status_code in (200, 201)
    known, unknown = town.peer().connect(), town.peer().connect()
    known.hello(product=12345, product_version=7, platform=3)
    unknown.hello(product=3, product_version=None, platform=3)
    known.publish("facts", b"x")
    until(lambda: len(target.requests) == 1, "the first request")
    unknown.publish("facts", b"x")
    until(lambda: len(target.requests) == 2, "the second request")
    bodies = [json.loads(body) for _, _, _, body in target.requests]
    assert bodies == [{"v": "7", "p": "12345", "n": 7}, {"v": "", "p": "3", "n": None}]


def test_a_hello_forgets_the_subscriptions_of_before(town: Town) -> None:
    peer = town.device()
    peer.subscribe("one/")
    peer.hello()
    peer.subscribe("two/")
    town.publish("one/x")
    town.publish("two/x")
    assert path_of(peer.request()) == "e/two/x"
    assert peer.silent()


def test_a_repeated_hello_is_acknowledged_and_stays_one(town: Town) -> None:
    peer = town.device()
    peer.subscribe("kept/")
    # The same message in a new record, as when its acknowledgement was lost.
    assert peer.ask(a_hello(peer.device, 1)).code == Code.EMPTY
    town.publish("kept/x")
    assert path_of(peer.request()) == "e/kept/x"
    assert town.statuses(peer) == ["online"]


# --- descriptions ---


def test_system_application_and_vital_signs(town: Town) -> None:
    peer = town.device()
    assert describe(peer, Kind.SYSTEM, write_system(FIRMWARE)).code == Code.EMPTY
    assert describe(peer, Kind.APPLICATION, write_application(LAMP)).code == Code.EMPTY
    signs = write_metrics((Metric(6, 3600), Metric(2, 80_000), Metric(19, -70.5), Metric(33, None, -210)))
    assert describe(peer, Kind.METRICS, signs).code == Code.EMPTY
    shown = town.show(peer)
    assert (shown["functions"], shown["variables"]) == (["set", "blink"], {"level": "int32", "name": "string"})
    told = in_store(town.cloud, lambda store: store.links.description(peer.device))
    assert told.system is not None
    assert told.system["modules"][0]["version"] == 6200
    assert told.metrics == {"sys:uptime": 3600, "mem:free": 80_000, "net:rssi": -70.5, "net:sigstr": {"err": -210}}


def test_a_description_in_blocks(town: Town) -> None:
    peer = town.device()
    many = Application(functions=tuple(f"function_{number:03}" for number in range(100)), variables={})
    body = write_application(many)
    pieces = [body[at : at + 1024] for at in range(0, len(body), 1024)]
    assert len(pieces) > 1
    for number, piece in enumerate(pieces):
        more = 8 if number + 1 < len(pieces) else 0
        answer = describe(peer, Kind.APPLICATION, piece, block1=uint(number << 4 | more | 6))
        assert answer.code == Code.EMPTY
        if more:
            assert town.show(peer)["functions"] == []
    assert town.show(peer)["functions"] == list(many.functions)


def test_a_block_out_of_turn_is_refused_and_does_no_harm(town: Town) -> None:
    peer = town.device()
    answer = describe(peer, Kind.APPLICATION, b"x" * 1024, block1=uint(3 << 4 | 8 | 6))
    assert answer.code == Code.REQUEST_ENTITY_INCOMPLETE
    assert describe(peer, Kind.APPLICATION, write_application(LAMP)).code == Code.EMPTY


def test_a_description_that_is_none_is_refused(town: Town) -> None:
    peer = town.device()
    assert describe(peer, Kind.APPLICATION, b"{oops").code == Code.BAD_REQUEST
    assert describe(peer, Kind.SYSTEM, b"\xff\xff\xff").code == Code.BAD_REQUEST
    assert describe(peer, Kind.METRICS, b"\0\1").code == Code.BAD_REQUEST
    assert town.show(peer)["functions"] == []


def test_an_older_device_is_asked_to_describe_itself(town: Town) -> None:
    # Flag 0x20 is absent before 2.0 (device-protocol.md, section 7.1); one kind at a time (Q17).
    peer = town.peer().connect()
    answer = peer.hello(flags=Flag(0x16), system_version=None, max_message=None, max_binary=None, chunk_size=None)
    assert answer.code == Code.EMPTY
    told = {
        Kind.SYSTEM: b'{"p":6,"m":[{"s":262144,"l":"m","vc":30,"vv":30,"f":"s","n":"1","v":207,"d":[]}]}',
        Kind.APPLICATION: write_application(LAMP),
    }
    for _ in range(2):
        request = peer.request()
        wanted = read_from_cloud(request)
        assert isinstance(wanted, DescribeRequest)
        answer_id = peer.next_id()
        peer.send(describe_answer(wanted.kind, told.pop(wanted.kind), answer_id, request.token))
        peer.answer(answer_id)
    until(lambda: town.show(peer)["functions"] == ["set", "blink"], "the description")
    system = until(
        lambda: in_store(town.cloud, lambda store: store.links.description(peer.device)).system, "the modules"
    )
    assert system["modules"][0]["version"] == 207


def test_what_an_older_device_registers_after_it_connected_is_asked_for_again(town: Town) -> None:
    """Firmware before 2.0 connects and then runs setup(), so at first it says that it has nothing."""
    peer = town.peer()
    for before in ([], ["set", "blink"]):
        peer.connect()
        peer.hello(flags=Flag(0x06), system_version=None, max_message=None, max_binary=None, chunk_size=None)
        empty = True
        while True:
            request = peer.request()
            wanted = read_from_cloud(request)
            assert isinstance(wanted, DescribeRequest)
            told = b'{"p":6,"m":[]}'
            if wanted.kind is Kind.APPLICATION:
                told = write_application(Application() if empty else LAMP)
                # What it told in an earlier session holds meanwhile.
                assert town.show(peer)["functions"] == before
            answer_id = peer.next_id()
            peer.send(describe_answer(wanted.kind, told, answer_id, request.token))
            peer.answer(answer_id)
            if wanted.kind is Kind.APPLICATION:
                if not empty:
                    break
                empty = False
        until(lambda: town.show(peer)["functions"] == ["set", "blink"], "the description")


def test_an_older_device_describes_itself_in_blocks(town: Town) -> None:
    peer = town.peer().connect()
    peer.hello(flags=Flag(0x16), system_version=None, max_message=None, max_binary=None, chunk_size=None)
    many = Application(functions=tuple(f"function_{number:03}" for number in range(100)), variables={})
    body = write_application(many)
    done = False
    while not done:
        request = peer.request()
        wanted = read_from_cloud(request)
        assert isinstance(wanted, DescribeRequest)
        answer_id = peer.next_id()
        if wanted.kind is Kind.SYSTEM:
            peer.send(describe_answer(wanted.kind, b'{"p":6,"m":[]}', answer_id, request.token))
        else:
            number = int.from_bytes(wanted.block2 or b"\x06", "big") >> 4
            piece = body[number * 1024 : (number + 1) * 1024]
            done = (number + 1) * 1024 >= len(body)
            block2 = uint(number << 4 | (0 if done else 8) | 6)
            peer.send(describe_answer(wanted.kind, piece, answer_id, request.token, b"\x07", block2))
        peer.answer(answer_id)
    until(lambda: len(town.show(peer)["functions"]) == 100, "the description")


# --- subscriptions ---


@pytest.mark.parametrize("queries", [{}, {"binary": True}, {"cbor": True}, {"binary": True, "cbor": True}])
def test_subscriptions_are_kept_with_what_they_want(town: Town, queries: dict[str, bool]) -> None:
    peer = town.device()
    assert peer.subscribe("wanted", **queries).code == Code.EMPTY
    told = in_store(town.cloud, lambda store: store.links.get(peer.device))
    assert told is not None
    assert [(each.prefix, each.binary, each.cbor) for each in told.subscriptions] == [
        ("wanted", queries.get("binary", False), queries.get("cbor", False))
    ]


def test_a_subscription_in_several_path_options(town: Town) -> None:
    peer = town.device()
    request = Message(Type.CON, Code.GET, peer.next_id(), b"", path("e", "deep", "er", "topic"))
    assert peer.ask(request).code == Code.EMPTY
    town.publish("deep/er/topic/1")
    assert path_of(peer.request()) == "e/deep/er/topic/1"


def test_a_subscription_as_firmware_before_6_2_writes_it(town: Town) -> None:
    # `u` limits it to the owner's devices, a device id in the payload to one (device-protocol.md, section 7.4).
    one, other = town.device(), town.device()
    listener = town.device()
    assert listener.ask(write_subscribe(Subscribe("mine", mine=True), listener.next_id())).code == Code.EMPTY
    wanted = Subscribe("only", device=one.device.upper())
    assert listener.ask(write_subscribe(wanted, listener.next_id())).code == Code.EMPTY
    other.publish("only/x", b"other")
    one.publish("only/x", b"one")
    other.publish("mine/x", b"other")
    assert [listener.request().payload for _ in range(2)] == [b"one", b"other"]


def test_a_device_may_have_only_so_many_subscriptions(town: Town) -> None:
    peer = town.device()
    answers = [peer.subscribe(f"prefix/{number}").code for number in range(33)]
    assert answers == [Code.EMPTY] * 32 + [Code.FORBIDDEN]
    # One that it has already may be said again.
    assert peer.subscribe("prefix/3").code == Code.EMPTY


# --- small talk ---


def test_the_time(town: Town) -> None:
    peer = town.device()
    answer = peer.ask(write_time_request(peer.next_id(), b"\x42"))
    assert (answer.type, answer.code, answer.token, answer.options) == (Type.ACK, Code.CONTENT, b"\x42", ())
    assert abs(int.from_bytes(answer.payload, "big") - time.time()) < 5


def test_a_ping(town: Town) -> None:
    peer = town.device()
    for _ in range(3):
        id = peer.next_id()
        peer.send(ping(id))
        assert peer.answer(id).code == Code.EMPTY
    assert peer.alerts == []


def test_goodbye_makes_the_device_offline_and_its_session_stays_good(town: Town) -> None:
    peer = town.device()
    until(lambda: town.statuses(peer) == ["online"], "the first event")
    assert peer.ask(write_goodbye(Goodbye(cloud=2), peer.next_id())).code == Code.EMPTY
    until(lambda: town.statuses(peer) == ["online", "offline"], "being offline")
    until(lambda: not town.show(peer)["online"], "being offline in the registry")
    # It comes back by the session that it has.
    id = peer.next_id()
    peer.send(ping(id))
    peer.answer(id)
    until(lambda: town.statuses(peer) == ["online", "offline", "online"], "being online again")
    never(lambda: len(town.statuses(peer)) > 3)


def test_a_ledger_is_something_that_there_is_not(town: Town) -> None:
    peer = town.device()
    answer = peer.ask(write_ledger(LedgerRequest(b"\x08\x01"), peer.next_id(), b"\x07"))
    # Not by 4.04, after which firmware asks again and again; nor by 2.05, which sets its clock.
    assert (answer.code, answer.token, answer.payload) == (Code.CHANGED, b"\x07", b"\x1a\x00")
    for number, code in ((0, Code.CONTINUE), (1, Code.CONTINUE), (2, Code.CHANGED)):
        block = write_block(Block(number, code == Code.CONTINUE, 6))
        part = LedgerRequest(b"\x08\x02" + bytes(1022), block, b"\x01")
        answer = peer.ask(write_ledger(part, peer.next_id(), b"\x08"))
        assert (answer.code, answer.token) == (code, b"\x08")
    assert answer.payload == b"\x08\x04"


@pytest.mark.parametrize(
    ("code", "segments", "answer"),
    [
        (Code.GET, ("nothing",), Code.NOT_FOUND),
        (Code.POST, (), Code.NOT_FOUND),
        (Code.DELETE, ("E", "name"), Code.METHOD_NOT_ALLOWED),
        (Code.POST, ("U",), Code.NOT_FOUND),
        (Code.POST, ("h",), Code.BAD_REQUEST),
        (Code.POST, ("E",), Code.BAD_REQUEST),
        (Code.GET, ("e", "x" * 65), Code.BAD_REQUEST),
    ],
)
def test_requests_that_make_no_sense_are_answered(
    town: Town, code: Code, segments: tuple[str, ...], answer: Code
) -> None:
    peer = town.device()
    assert peer.ask(Message(Type.CON, code, peer.next_id(), b"\x09", path(*segments))).code == answer
    assert peer.publish("after", b"that").code == Code.EMPTY


def test_a_critical_option_that_is_not_known_is_refused_as_such(town: Town) -> None:
    # RFC 7252, section 5.4.1: 4.02 for a CON.
    peer = town.device()
    bad = ((Option.IF_MATCH, b""), *path("t"))
    assert peer.ask(Message(Type.CON, Code.GET, peer.next_id(), b"\x09", bad)).code == Code.BAD_OPTION


def test_what_is_no_coap_is_answered_if_it_looks_like_a_confirmable_message(town: Town) -> None:
    # An option that is longer than the message; RST would end the session (device-protocol.md, Q20).
    peer = town.device()
    id = peer.next_id()
    peer.send(b"\x40\x02" + id.to_bytes(2, "big") + b"\xbd")
    answer = peer.answer(id)
    assert (answer.type, answer.code) == (Type.ACK, Code.BAD_REQUEST)
    for junk in (b"", b"\x40", b"\xff" * 20, b"\x50\x02\x00\x01\xbd"):
        peer.send(junk)
    assert peer.publish("after", b"junk").code == Code.EMPTY


def test_repeated_requests_get_their_answers_again(town: Town) -> None:
    peer = town.device()
    question = write_time_request(peer.next_id(), b"\x42")
    first, again = peer.ask(question), peer.ask(question)
    assert (first.code, first.payload) == (again.code, again.payload)
    unknown = Message(Type.CON, Code.GET, peer.next_id(), b"\x01", path("nothing"))
    assert [peer.ask(unknown).code for _ in range(2)] == [Code.NOT_FOUND] * 2


def test_nothing_but_hello_is_listened_to_before_hello(town: Town) -> None:
    peer = town.peer().connect()
    peer.send(write_time_request(peer.next_id(), b"\x42"))
    assert peer.silent()
    assert peer.hello().code == Code.EMPTY


def test_what_a_stranger_says_is_in_no_log(town: Town) -> None:
    peer = town.peer().connect()
    peer.send(a_publish("early", b"", peer.next_id()))
    assert peer.silent()
    peer.hello()
    assert logged(town.cloud, peer.device, "early") == []
