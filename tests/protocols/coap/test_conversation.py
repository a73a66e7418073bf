"""Two endpoints and a bad wire between them: everything is confirmed once, and nothing is processed twice."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocols.coap.wire import Conversation, Told, Wire
from wirechamber.protocols.coap.exchange import (
    DEVICE_OS,
    RFC_7252,
    Acknowledged,
    Answered,
    Endpoint,
    Request,
    TimedOut,
    Timing,
)
from wirechamber.protocols.coap.message import Code, Message, Option, Type

# How a request wants to be answered.
WAYS = ("ack", "piggyback", "separate")
EACH_WAY = 12


class Party:
    """Asks in all ways, and answers as it is asked."""

    def __init__(self, conversation: Conversation, side: int) -> None:
        self.end = conversation.ends[side]
        self.processed: Counter[str] = Counter()
        self.told: Counter[object] = Counter()
        self.timed_out: set[object] = set()
        self.wrong: list[Told] = []
        conversation.handlers[side] = self.handle

    def ask(self, now: float) -> None:
        for number in range(EACH_WAY):
            for way in WAYS:
                body = f"{way} {number}"
                options = ((Option.URI_PATH.value, way.encode()),)
                token = b"" if way == "ack" else self.end.next_token()
                message = Message(Type.CON, Code.POST, 0, token, options, body.encode())
                self.end.send(message, body, now, None if way == "ack" else 400.0)

    def handle(self, told: Told, now: float) -> None:
        match told:
            case Request(message):
                body = message.payload.decode()
                self.processed[body] += 1
                if body.startswith("piggyback"):
                    self.end.reply(told, Code.CONTENT, message.payload, (), now)
                else:
                    self.end.reply(told, now=now)
                    if body.startswith("separate"):
                        self.end.respond(told, Code.CONTENT, message.payload, (), now)
            case Answered(tag, message):
                self.told[tag] += 1
                if message.payload.decode() != tag:
                    self.wrong.append(told)
            case Acknowledged(tag) if tag is not None:
                self.told[tag] += 1
                if not str(tag).startswith("ack"):
                    self.wrong.append(told)
            case TimedOut(tag) if tag is not None:
                self.told[tag] += 1
                self.timed_out.add(tag)


def converse(wire: Wire, seed: int, timing: Timing, nstart: int, *, forgiving: bool = True) -> tuple[Party, Party]:
    dice = random.Random(seed).random
    ends = (
        Endpoint(timing, dice, nstart, forgiving=forgiving),
        Endpoint(timing, dice, nstart, forgiving=forgiving),
    )
    conversation = Conversation(*ends, wire, seed)
    parties = Party(conversation, 0), Party(conversation, 1)
    for party in parties:
        party.ask(0.0)
    conversation.run(until=10_000.0)
    for end in ends:
        assert end.deadline() is None
    return parties


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("timing", [RFC_7252, DEVICE_OS])
@pytest.mark.parametrize("nstart", [4, 100])
def test_all_is_said_and_heard_once_the_wire_heals(seed: int, timing: Timing, nstart: int) -> None:
    wire = Wire(drop=0.4, duplicate=0.3, delay=3.0, heals_at=20.0)
    everything = Counter({f"{way} {number}": 1 for way in WAYS for number in range(EACH_WAY)})
    for party in converse(wire, seed, timing, nstart):
        assert party.processed == everything
        assert party.told == everything
        assert party.timed_out == set()
        assert party.wrong == []


@settings(max_examples=40, deadline=None)
@given(
    st.builds(Wire, st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.01, 30.0)),
    st.integers(0, 1 << 32),
    st.sampled_from([1, 4, 100]),
    st.booleans(),
)
def test_however_bad_the_wire_nothing_happens_twice_and_all_is_told_once(
    wire: Wire, seed: int, nstart: int, forgiving: bool
) -> None:
    for party in converse(wire, seed, DEVICE_OS, nstart, forgiving=forgiving):
        assert set(party.processed.values()) <= {1}
        assert set(party.told.values()) <= {1}
        if forgiving:
            assert len(party.told) == EACH_WAY * len(WAYS)
        assert party.wrong == []
