"""A whole connection: what the captured device says gets the answers that it got, and a device of ours over a bad wire
is heard once (device-protocol.md, section 14.3)."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.protocols.coap.wire import Conversation, Told, Wire
from tests.protocols.deviceos import captured
from wirechamber.protocols.coap.exchange import DEVICE_OS, Acknowledged, Answered, Endpoint, Request
from wirechamber.protocols.coap.message import Code, Message, Type, ack, read_message, write_message
from wirechamber.protocols.deviceos import messages, requests
from wirechamber.protocols.deviceos.messages import (
    Flag,
    Goodbye,
    Hello,
    Publish,
    Subscribe,
    TimeRequest,
    read_publish,
    read_request,
)

FROM_DEVICE = (
    captured.HELLO, captured.SYSTEM_DESCRIBE, captured.TIME_REQUEST, captured.UPDATES_ENABLED, captured.UPDATES_FORCED,
    captured.APPLICATION_DESCRIBE, *captured.SUBSCRIPTIONS,
)  # fmt: skip
NOW = 0x6B0398C8


def cloud() -> Endpoint:
    return Endpoint(DEVICE_OS, lambda: 0.0, 4, forgiving=True)


def answer(end: Endpoint, told: Told, now: float) -> None:
    """As a cloud answers a device: with nothing but acknowledgements, and the time."""
    assert isinstance(told, Request)
    if isinstance(read_request(told.message), TimeRequest):
        end.reply(told, Code.CONTENT, requests.time_answer(told.message, NOW).payload, (), now)
    else:
        end.reply(told, now=now)


@pytest.mark.parametrize("times", [1, 3])
def test_the_captured_connection(times: int) -> None:
    end = cloud()
    for data in FROM_DEVICE:
        raw = bytes.fromhex(data)
        expected = bytes.fromhex(captured.TIME) if data == captured.TIME_REQUEST else ack(int(data[4:8], 16))
        told = end.receive(raw, 0.0)
        answer(end, told, 0.0)
        assert end.outgoing() == [expected]
        for again in range(1, times):
            end.receive(raw, 5.0 * again)
            assert end.outgoing() == [expected]


def test_the_captured_questions() -> None:
    end = cloud()
    end.send(requests.function_call("set", "77", 0xFB01, b"\x21"), "call", 2.01, 30.0)
    assert end.outgoing() == [bytes.fromhex(captured.CALL_SET)]
    assert end.receive(bytes.fromhex(captured.CALL_ACK), 2.02) is None
    told = end.receive(bytes.fromhex(captured.CALL_RESULT), 2.02)
    assert isinstance(told, Answered)
    assert (told.tag, requests.read_function_result(told.message)) == ("call", 77)
    assert end.outgoing() == [ack(13)]
    end.send(requests.variable_request("counter", 0xFB02, b"\x31"), "read", 2.52, 30.0)
    assert end.outgoing() == [bytes.fromhex(captured.READ_COUNTER)]
    assert end.receive(ack(0xFB02), 2.53) is None
    told = end.receive(bytes.fromhex(captured.COUNTER), 2.53)
    assert isinstance(told, Answered)
    assert requests.read_variable(told.message, "int32") == 77
    assert end.outgoing() == [ack(14)]
    end.send(requests.event_to_device("demo/cmd/x", b"hi", None, 0xFB03), "event", 3.04)
    assert end.outgoing() == [bytes.fromhex(captured.COMMAND_EVENT)]
    assert end.receive(ack(0xFB03), 3.04) == Acknowledged("event")
    end.send(requests.signal(True, 0xFB04, b"\x51"), "signal", 4.0, 30.0)
    end.outgoing()
    told = end.receive(bytes.fromhex("6144fb0451"), 4.1)
    assert isinstance(told, Answered)
    assert told.tag == "signal"
    for data in (captured.GOODBYE, captured.PING):
        answer(end, end.receive(bytes.fromhex(data), 4.87), 4.87)
    assert end.outgoing() == [ack(0x11), ack(0x12)]


class OurDevice:
    """Says what firmware says, and does what it is asked."""

    def __init__(self, conversation: Conversation, side: int) -> None:
        self.end = conversation.ends[side]
        self.calls: list[bytes] = []
        self.acknowledged: Counter[object] = Counter()
        self.time: int | None = None
        conversation.handlers[side] = self.handle

    def connect(self, events: int) -> None:
        hello = Hello(3, None, Flag.GOODBYE | Flag.DESCRIBES_ITSELF, 3, "0123456789abcdef01234567", 6200, 1152, 1, 512)
        self._send(messages.write_hello(hello, 1))
        self._send(messages.write_subscribe(Subscribe("demo"), 2))
        self.end.send(messages.write_time_request(3, b"t"), "time", 0.0, 300.0)
        for number in range(events):
            self._send(messages.write_publish(Publish(f"demo/{number}", b"x", None, 60, True, 4 + number)))

    def _send(self, message: Message) -> None:
        self.end.send(message, message.id, 0.0)

    def handle(self, told: Told, now: float) -> None:
        match told:
            case Request(message):
                asked = requests.read_from_cloud(message)
                self.end.reply(told, now=now)
                if isinstance(asked, requests.FunctionCall):
                    self.calls.append(asked.argument)
                    result = requests.function_result(len(self.calls), 0, message.token)
                    self.end.respond(told, result.code, result.payload, (), now)
            case Acknowledged(tag) if tag is not None:
                self.acknowledged[tag] += 1
            case Answered(_, message):
                self.time = requests.read_time(message)


class OurCloud:
    """Takes events on the quick way, and calls a function after the Hello."""

    def __init__(self, conversation: Conversation, side: int) -> None:
        self.end = conversation.ends[side]
        self.published: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.results: list[int] = []
        conversation.handlers[side] = self.handle

    def handle(self, told: Told, now: float) -> None:
        match told:
            case Request(message):
                request = read_request(message)
                answer(self.end, told, now)
                if isinstance(request, Publish):
                    self.published[request.name] += 1
                else:
                    self.others[type(request).__name__] += 1
                if isinstance(request, Hello):
                    for argument in ("a", "b", "c"):
                        call = requests.function_call("f", argument, 100, self.end.next_token())
                        self.end.send(call, argument, now, 300.0)
            case Answered(_, message):
                self.results.append(requests.read_function_result(message))


@pytest.mark.parametrize("seed", range(6))
def test_a_device_of_ours_over_a_bad_wire(seed: int) -> None:
    dice = random.Random(seed).random
    wire = Wire(drop=0.4, duplicate=0.3, delay=3.0, heals_at=20.0)
    # Q28: firmware has as many messages outstanding as it likes.
    ends = Endpoint(DEVICE_OS, dice, 100, forgiving=True), Endpoint(DEVICE_OS, dice, 1, forgiving=True)
    conversation = Conversation(*ends, wire, seed)
    device, ours = OurDevice(conversation, 0), OurCloud(conversation, 1)
    device.connect(events=10)
    conversation.run(until=1000.0)
    assert ours.published == Counter({f"demo/{number}": 1 for number in range(10)})
    assert ours.others == Counter(Hello=1, Subscribe=1, TimeRequest=1)
    assert device.acknowledged == Counter(dict.fromkeys([1, 2, *range(4, 14)], 1))
    assert device.time == NOW
    assert sorted(device.calls) == [b"a", b"b", b"c"]
    assert sorted(ours.results) == [1, 2, 3]


def test_the_quick_way_answers_repetitions_from_memory() -> None:
    end = cloud()
    raw = bytes.fromhex(captured.TICK)
    stored = []
    for now in (0.0, 5.9, 17.8):
        event = read_publish(raw)
        assert event is not None
        if end.fresh(event.message_id, now):
            stored.append(event)
            end.remember(event.message_id, ack(event.message_id), now)
            sent = [ack(event.message_id)]
        else:
            sent = end.outgoing()
        assert sent == [ack(15)]
    assert len(stored) == 1


def test_a_goodbye_over_tcp_is_not_answered() -> None:
    end = cloud()
    told = end.receive(write_message(messages.write_goodbye(Goodbye(cloud=2), 9, tcp=True)), 0.0)
    assert isinstance(told, Request)
    assert told.message.type is Type.NON
    end.reply(told, now=0.0)
    assert end.outgoing() == []
    assert read_message(ack(9)).type is Type.ACK
