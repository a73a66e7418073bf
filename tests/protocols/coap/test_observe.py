"""Observing (RFC 7641), between two endpoints where it matters."""

from __future__ import annotations

import pytest

from wirechamber.protocols.coap.exchange import RFC_7252, Acknowledged, Answered, Endpoint, Rejected
from wirechamber.protocols.coap.message import Code, Message, Option, Type, read_message, uint
from wirechamber.protocols.coap.observe import DEREGISTER, MAX_OBSERVATIONS, REGISTER, Freshness, Observers, wish


def get(observe: bytes | None, code: int = Code.GET) -> Message:
    return Message(Type.CON, code, 1, b"o", () if observe is None else ((Option.OBSERVE.value, observe),))


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (get(b""), REGISTER),
        (get(b"\0"), REGISTER),
        (get(b"\1"), DEREGISTER),
        (get(b"\2"), None),
        (get(None), None),
        (get(b"", Code.POST), None),
        (get(b"", Code.FETCH), REGISTER),
    ],
)
def test_what_a_request_wishes(request_: Message, wanted: int | None) -> None:
    assert wish(request_) == wanted


def test_notifications_are_numbered_and_carry_the_token() -> None:
    observers: Observers[str] = Observers()
    observation = observers.register(b"o", "demo/")
    assert observation is not None
    first = observers.notification(observation, b"1", ((Option.CONTENT_FORMAT.value, b"\x32"),))
    assert first == Message(Type.CON, Code.CONTENT, 0, b"o", ((6, b"\1"), (12, b"\x32")), b"1")
    second = observers.notification(observation, b"2", confirmable=False)
    assert (second.type, second.uint(Option.OBSERVE)) == (Type.NON, 2)
    # Registering again goes on counting, so that the new number is newer.
    again = observers.register(b"o", "demo/")
    assert again is not None
    assert observers.notification(again, b"3").uint(Option.OBSERVE) == 3


def test_numbers_have_24_bits() -> None:
    observers: Observers[str] = Observers()
    observation = observers.register(b"o", "x")
    assert observation is not None
    observation.number = 0xFFFFFE
    numbers = [observers.notification(observation, b"").uint(Option.OBSERVE) for _ in range(3)]
    assert numbers == [0xFFFFFF, 0, 1]


def test_the_same_subject_with_another_token_takes_the_place() -> None:
    observers: Observers[str] = Observers()
    observers.register(b"a", "x")
    observers.register(b"b", "y")
    observers.register(b"c", "x")
    assert [observation.token for observation in observers] == [b"b", b"c"]
    assert observers.deregister(b"c") == "x"
    assert observers.deregister(b"c") is None
    assert len(observers) == 1


def test_a_peer_observes_so_much() -> None:
    observers: Observers[int] = Observers()
    for number in range(MAX_OBSERVATIONS):
        assert observers.register(bytes((number,)), number) is not None
    assert observers.register(b"one more", 99) is None
    assert observers.register(bytes((0,)), 0) is not None


def test_old_notifications_are_told_from_new_ones() -> None:
    def number(value: int) -> Message:
        return Message(Type.NON, Code.CONTENT, 1, b"o", ((6, uint(value)),))

    fresh = Freshness()
    assert fresh.newer(number(5), 0.0)
    assert not fresh.newer(number(5), 1.0)
    assert not fresh.newer(number(4), 1.0)
    assert fresh.newer(number(7), 2.0)
    assert fresh.newer(number(0x7FFFFF), 3.0)
    # Half the numbers are behind.
    assert not fresh.newer(number(0xFFFFFF), 4.0)
    assert fresh.newer(number(0xFFFFFE), 5.0)
    assert fresh.newer(number(3), 6.0)
    # RFC 7641, section 3.4: after 128 s it can only be new.
    assert not fresh.newer(number(2), 134.0)
    assert fresh.newer(number(2), 134.1)
    assert fresh.newer(Message(Type.NON, Code.CONTENT, 1, b"o"), 134.2)


def test_a_conversation_until_the_observer_rejects() -> None:
    server = Endpoint(RFC_7252, lambda: 0.0)
    client = Endpoint(RFC_7252, lambda: 0.0)
    observers: Observers[str] = Observers()
    client.send(get(b""), "observe", 0.0, 10.0, keep=True)
    (asked,) = client.outgoing()
    server.receive(asked, 0.0)
    request = read_message(asked)
    observation = observers.register(request.token, "x")
    assert observation is not None
    first = observers.notification(observation, b"0")
    server.reply(request, first.code, first.payload, first.options, 0.0)
    told = client.receive(server.outgoing()[0], 0.1)
    assert isinstance(told, Answered)
    for now in (10.0, 20.0):
        server.send(observers.notification(observation, b"n"), observation.token, now)
        told = client.receive(server.outgoing()[0], now)
        assert isinstance(told, Answered)
        assert server.receive(client.outgoing()[0], now) == Acknowledged(b"o")
    client.release(b"o", 30.0)
    server.send(observers.notification(observation, b"n"), observation.token, 30.0)
    assert client.receive(server.outgoing()[0], 30.0) is None
    rejected = server.receive(client.outgoing()[0], 30.0)
    assert rejected == Rejected(b"o")
    assert observers.deregister(b"o") == "x"
