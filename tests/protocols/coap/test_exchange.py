"""Exchanges with one peer: repetition, duplicates, and which answer belongs to which question (RFC 7252, 4 and 5)."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from wirechamber.protocols.coap.exchange import (
    DEVICE_OS,
    MAX_FRESH_STARTS,
    MAX_QUEUED,
    MAX_SEEN,
    OVER_TCP,
    RFC_7252,
    Acknowledged,
    Answered,
    Busy,
    Duplicate,
    Endpoint,
    Expired,
    Rejected,
    Request,
    TimedOut,
    Timing,
)
from wirechamber.protocols.coap.message import (
    Code,
    Malformed,
    Message,
    Option,
    Type,
    ack,
    ping,
    read_message,
    reset,
    write_message,
)

PATH = ((Option.URI_PATH.value, b"x"),)


def endpoint(timing: Timing = RFC_7252, dice: float = 0.0, nstart: int = 1, *, forgiving: bool = False) -> Endpoint:
    return Endpoint(timing, lambda: dice, nstart, forgiving=forgiving)


def con(id: int, token: bytes = b"", code: int = Code.POST) -> Message:
    return Message(Type.CON, code, id, token, PATH)


def non(id: int, token: bytes = b"", code: int = Code.POST) -> Message:
    return Message(Type.NON, code, id, token, PATH)


def answer(kind: Type, id: int, token: bytes, code: int = Code.CONTENT, payload: bytes = b"yes") -> Message:
    return Message(kind, code, id, token, (), payload)


# --- what is sent again ---


@pytest.mark.parametrize(
    ("timing", "dice", "times"),
    [
        # RFC 7252, section 4.8: MAX_TRANSMIT_WAIT is 93 s; with the smallest first time-out, 62.
        (RFC_7252, 0.0, [0, 2, 6, 14, 30, 62]),
        (RFC_7252, 1.0, [0, 3, 9, 21, 45, 93]),
        (DEVICE_OS, 0.0, [0, 4, 12, 28, 60]),
        (DEVICE_OS, 1.0, [0, 6, 18, 42, 90]),
        (OVER_TCP, 1.0, [0, 30]),
    ],
)
def test_a_con_is_sent_again_with_doubling_pauses_and_then_given_up(
    timing: Timing, dice: float, times: list[float]
) -> None:
    end = endpoint(timing, dice)
    end.send(con(1), "it", 0.0)
    sent = [0.0] * len(end.outgoing())
    over: list[TimedOut] = []
    now = 0.0
    while (deadline := end.deadline()) is not None:
        now = deadline
        over += end.tick(now)
        sent += [now] * len(end.outgoing())
    assert [*sent, now] == times
    assert over == [TimedOut("it", acknowledged=False)]


@pytest.mark.parametrize(("until", "sendings"), [(0.5, 1), (4.0, 1), (4.5, 2), (12.5, 3), (100.0, 4), (None, 4)])
def test_what_is_not_worth_it_any_more_is_not_sent_again(until: float | None, sendings: int) -> None:
    end = endpoint(DEVICE_OS)
    end.send(con(1), "it", 0.0, until=until)
    sent = len(end.outgoing())
    over: list[TimedOut] = []
    while (deadline := end.deadline()) is not None:
        over += end.tick(deadline)
        sent += len(end.outgoing())
    assert sent == sendings
    assert over == [TimedOut("it", acknowledged=False) if sendings == 4 else Expired("it")]


def test_what_will_not_be_sent_again_is_not_waited_for_as_long_as_if_it_were() -> None:
    peer = endpoint(DEVICE_OS)
    peer.send(con(1), "event", 0.0, until=14.0)
    assert peer.tick(4.0) == []
    assert peer.tick(12.0) == []
    # Sent for the third time at 12 s, it would have been repeated at 28 s; an acknowledgement gets 4 s at least.
    assert peer.deadline() == 16.0
    assert peer.tick(16.0) == [Expired("event")]


def test_what_waited_for_its_turn_for_too_long_is_not_sent_at_all() -> None:
    end = endpoint(DEVICE_OS)
    end.send(con(1), "first", 0.0)
    end.send(con(2), "late", 0.0, until=2.0)
    end.send(con(3), "in time", 0.0, until=9.0)
    assert len(end.outgoing()) == 1
    assert end.receive(ack(1), 3.0) == Acknowledged("first")
    assert end.tick(end.deadline() or 0.0) == [Expired("late")]
    (data,) = end.outgoing()
    assert read_message(data).id == 3


def sendings(peer: Endpoint, until: float, heard: dict[float, bool], step: float = 0.25) -> list[float]:
    """When something is sent again, while the peer says something else at these times, from elsewhere or not."""
    found: list[float] = []
    now = 0.0
    while (now := now + step) <= until:
        if now in heard:
            peer.heard(now, moved=heard[now])
        peer.tick(now)
        found += [now] * len(peer.outgoing())
    return found


@pytest.mark.parametrize(
    ("heard", "times"),
    [
        ({}, [4, 12, 28]),
        # 8 s after the last time, and then as patiently as for the first time.
        ({20.0: False}, [4, 12, 20, 24, 32]),
        # An acknowledgement may be on its way: a second is left for it.
        ({12.25: False}, [4, 12, 13, 17, 25]),
        # Not sent again yet: nothing tells that it was lost.
        ({3.0: False}, [4, 12, 28]),
        # Unless it went to where the peer is not any more.
        ({3.0: True}, [3, 7, 15]),
        # Nearly due anyway.
        ({27.75: False}, [4, 12, 27.75, 31.75, 39.75]),
    ],
)
def test_a_sign_of_life_starts_the_clocks_over(heard: dict[float, bool], times: list[float]) -> None:
    peer = endpoint(DEVICE_OS)
    peer.send(con(1), "event", 0.0)
    peer.outgoing()
    assert sendings(peer, 42, heard) == times


def test_a_peer_that_talks_and_acknowledges_nothing_is_given_up() -> None:
    peer = endpoint(DEVICE_OS)
    peer.send(con(1), "event", 0.0)
    peer.outgoing()
    over: list[TimedOut] = []
    now, sent = 0.0, 0
    while not over:
        now += 0.25
        assert now < 120
        peer.heard(now)
        over = peer.tick(now)
        sent += len(peer.outgoing())
    assert over == [TimedOut("event", acknowledged=False)]
    assert sent <= MAX_FRESH_STARTS + 4
    assert not peer.heard(now)


def test_an_acknowledged_question_is_not_asked_again_because_its_peer_is_there() -> None:
    peer = endpoint(DEVICE_OS)
    peer.send(con(1, b"t"), "question", 0.0, 30.0)
    peer.outgoing()
    peer.receive(ack(1), 1.0)
    assert not peer.heard(5.0, moved=True)
    assert peer.tick(6.0) == []
    assert peer.outgoing() == []


def test_nothing_is_sent_before_its_time() -> None:
    end = endpoint()
    end.send(con(1), "it", 0.0)
    end.outgoing()
    assert end.tick(1.99) == []
    assert end.outgoing() == []


def test_an_acknowledged_con_is_not_sent_again() -> None:
    end = endpoint()
    end.send(con(1), "it", 0.0)
    assert end.receive(ack(1), 0.5) == Acknowledged("it")
    assert end.deadline() is None
    # A late copy of the acknowledgement means nothing.
    assert end.receive(ack(1), 0.6) is None


def test_a_non_is_sent_once() -> None:
    end = endpoint()
    end.send(non(1), None, 0.0)
    assert len(end.outgoing()) == 1
    assert end.deadline() is None


def test_as_many_as_nstart_are_outstanding_and_the_rest_follow_in_order() -> None:
    end = endpoint(nstart=2)
    for id in range(1, 6):
        end.send(con(id), id, 0.0)
    assert [read_message(data).id for data in end.outgoing()] == [1, 2]
    assert end.receive(ack(2), 0.1) == Acknowledged(2)
    assert [read_message(data).id for data in end.outgoing()] == [3]
    assert end.receive(reset(1), 0.2) == Rejected(1)
    assert end.receive(ack(3), 0.2) == Acknowledged(3)
    assert [read_message(data).id for data in end.outgoing()] == [4, 5]


def test_one_that_is_given_up_makes_room() -> None:
    end = endpoint(Timing(ack_timeout=1.0, random_factor=1.0, max_retransmit=0))
    end.send(con(1), "first", 0.0)
    end.send(con(2), "second", 0.0)
    end.outgoing()
    assert end.tick(1.0) == [TimedOut("first", acknowledged=False)]
    assert [read_message(data).id for data in end.outgoing()] == [2]
    assert end.deadline() == 2.0


def test_waiting_too_long_for_a_turn_is_timing_out() -> None:
    end = endpoint()
    end.send(con(1), "first", 0.0)
    end.send(con(2, b"t"), "second", 0.0, 1.0)
    end.outgoing()
    assert end.tick(1.0) == [TimedOut("second", acknowledged=False)]
    assert end.receive(ack(1), 1.1) == Acknowledged("first")
    assert end.outgoing() == []


def test_too_many_wait() -> None:
    end = endpoint()
    for id in range(MAX_QUEUED + 1):
        end.send(con(id), id, 0.0)
    with pytest.raises(Busy):
        end.send(con(999), 999, 0.0)


def test_what_was_sent_may_be_abandoned() -> None:
    end = endpoint(nstart=2)
    end.send(con(1, b"a"), "asked", 0.0, 5.0)
    end.receive(ack(1), 0.1)
    end.send(con(2), "told", 0.1)
    end.send(con(3), "flying", 0.1)
    end.send(con(4), "waiting", 0.1)
    assert end.abandon() == ["asked", "told", "flying", "waiting"]
    assert end.deadline() is None
    assert end.outgoing() == []
    end.send(con(5), "next", 0.2)
    assert len(end.outgoing()) == 1


# --- message ids and tokens ---


def test_ids_count_up_from_what_the_caller_gives() -> None:
    end = endpoint(nstart=10)
    # The third is not newer than the second; the record that carries the fourth had a higher number.
    assert [end.send(con(id), id, 0.0) for id in (10, 11, 11, 40, 12)] == [10, 11, 12, 40, 41]


def test_ids_wrap_around() -> None:
    end = endpoint(nstart=10)
    assert [end.send(con(id), id, 0.0) for id in (0xFFFF, 0xFFFF, 5)] == [0xFFFF, 0, 5]


def test_tokens_are_one_byte_and_not_in_use() -> None:
    end = endpoint(nstart=300)
    taken = []
    for id in range(256):
        token = end.next_token()
        end.send(con(id, token), id, 0.0, 10.0)
        taken.append(token)
    assert sorted(taken) == [bytes((value,)) for value in range(256)]
    with pytest.raises(Busy):
        end.next_token()
    end.receive(answer(Type.ACK, 7, taken[7]), 0.1)
    assert end.next_token() == taken[7]


def test_a_token_that_is_in_use_is_refused() -> None:
    end = endpoint(nstart=2)
    end.send(con(1, b"t"), "first", 0.0, 10.0)
    with pytest.raises(ValueError, match="the token is in use"):
        end.send(con(2, b"t"), "second", 0.0, 10.0)


# --- answers ---


def test_an_answer_on_the_back_of_the_acknowledgement() -> None:
    end = endpoint()
    end.send(con(1, b"t"), "it", 0.0, 10.0)
    message = answer(Type.ACK, 1, b"t")
    assert end.receive(write_message(message), 0.1) == Answered("it", message)
    assert end.deadline() is None


def test_an_answer_of_its_own_is_acknowledged_and_told_once() -> None:
    end = endpoint()
    end.send(con(1, b"t"), "it", 0.0, 10.0)
    end.outgoing()
    assert end.receive(ack(1), 0.1) is None
    # It is not sent again; the answer is waited for.
    assert end.deadline() == 10.0
    message = answer(Type.CON, 77, b"t")
    assert end.receive(message, 3.0) == Answered("it", message)
    assert end.outgoing() == [ack(77)]
    assert end.receive(message, 4.0) == Duplicate(77)
    assert end.outgoing() == [ack(77)]
    assert end.deadline() is None


def test_an_answer_before_the_acknowledgement_is_one_too() -> None:
    # RFC 7252, section 5.2.2.
    end = endpoint()
    end.send(con(1, b"t"), "it", 0.0, 10.0)
    end.send(con(2), "next", 0.0)
    end.outgoing()
    message = answer(Type.NON, 77, b"t")
    assert end.receive(message, 0.1) == Answered("it", message)
    # It counts as acknowledged, so the next one goes out.
    assert [read_message(data).id for data in end.outgoing()] == [2]
    assert end.receive(ack(1), 0.2) is None


def test_an_answer_that_does_not_come() -> None:
    end = endpoint()
    end.send(con(1, b"t"), "it", 0.0, 10.0)
    end.receive(ack(1), 0.1)
    assert end.tick(10.0) == [TimedOut("it", acknowledged=True)]
    assert end.deadline() is None


def test_an_answer_to_a_non() -> None:
    end = endpoint()
    end.send(non(1, b"t"), "it", 0.0, 10.0)
    message = answer(Type.NON, 5, b"t")
    assert end.receive(message, 0.1) == Answered("it", message)
    end.send(non(2, b"t"), "again", 0.2, 10.0)
    assert end.tick(10.2) == [TimedOut("again", acknowledged=False)]


def test_an_error_on_the_back_of_the_acknowledgement_of_something_that_asked_nothing() -> None:
    end = endpoint()
    end.send(con(1), "event", 0.0)
    message = answer(Type.ACK, 1, b"", Code.BAD_REQUEST, b"")
    assert end.receive(message, 0.1) == Answered("event", message)


def test_an_acknowledgement_with_another_token_answers_nothing() -> None:
    end = endpoint()
    end.send(con(1, b"t"), "it", 0.0, 10.0)
    assert end.receive(answer(Type.ACK, 1, b"u"), 0.1) is None
    assert end.deadline() == 2.0


def test_over_tcp_firmware_acknowledges_pings_and_answers_under_ids_of_its_own() -> None:
    end = endpoint(OVER_TCP, nstart=2, forgiving=True)
    end.send(Message(Type.CON, Code.EMPTY, 1), "ping", 0.0)
    end.send(con(2, b"s", Code.PUT), "signal", 0.0, 10.0)
    end.send(con(3, b"w"), "waiting", 0.0, 10.0)
    end.outgoing()
    # What was not sent yet can't be meant.
    assert end.receive(answer(Type.ACK, 900, b"w"), 0.1) is None
    assert end.receive(answer(Type.ACK, 900, b""), 0.1) is None
    answered = answer(Type.ACK, 901, b"s", Code.CHANGED, b"")
    assert end.receive(answered, 0.2) == Answered("signal", answered)
    assert end.receive(ack(902), 0.3) == Acknowledged("ping")
    assert end.receive(ack(903), 0.4) is None
    assert end.deadline() == 10.0


def test_over_udp_an_unknown_id_acknowledges_nothing() -> None:
    end = endpoint(DEVICE_OS, forgiving=True)
    end.send(Message(Type.CON, Code.EMPTY, 1), "ping", 0.0)
    assert end.receive(ack(902), 0.1) is None
    # A response without a token answers nothing that was asked.
    assert end.receive(answer(Type.NON, 903, b""), 0.2) is None
    assert end.deadline() == 4.0


def test_an_acknowledgement_with_a_request_in_it_means_nothing() -> None:
    end = endpoint()
    end.send(con(1), "it", 0.0)
    assert end.receive(Message(Type.ACK, Code.POST, 1), 0.1) is None
    assert end.receive(Message(Type.RST, Code.POST, 1), 0.1) is None
    assert end.deadline() == 2.0


def test_a_rejected_question() -> None:
    end = endpoint()
    end.send(con(1, b"t"), "it", 0.0, 10.0)
    end.receive(ack(1), 0.1)
    assert end.receive(reset(1), 0.2) == Rejected("it")
    assert end.deadline() is None
    assert end.receive(reset(1), 0.3) is None


def test_a_rejected_non_is_told_for_as_long_as_it_may_be() -> None:
    end = endpoint()
    end.send(non(1), "notification", 0.0)
    assert end.receive(reset(1), 100.0) == Rejected("notification")
    end.send(non(2), "notification", 0.0)
    # Nothing is told when it is not.
    assert end.tick(145.0) == []
    assert end.receive(reset(2), 145.1) is None


@pytest.mark.parametrize(("forgiving", "said"), [(False, reset(9)), (True, ack(9))])
def test_an_answer_to_nothing(forgiving: bool, said: bytes) -> None:
    # Device OS would throw its session away at a RST (Q20), and if it got no ACK (Q23).
    end = endpoint(forgiving=forgiving)
    assert end.receive(answer(Type.CON, 9, b"?"), 0.0) is None
    assert end.outgoing() == [said]
    assert end.receive(answer(Type.CON, 9, b"?"), 0.1) == Duplicate(9)
    assert end.outgoing() == [said]
    assert end.receive(answer(Type.NON, 10, b"?"), 0.0) is None
    assert end.outgoing() == []


def test_a_late_answer_is_acknowledged_and_not_told() -> None:
    end = endpoint(forgiving=True)
    end.send(con(1, b"t"), "it", 0.0, 5.0)
    end.outgoing()
    end.receive(ack(1), 0.1)
    end.tick(5.0)
    assert end.receive(answer(Type.CON, 9, b"t"), 6.0) is None
    assert end.outgoing() == [ack(9)]


def test_an_answer_to_what_was_not_asked_yet_is_to_something_else() -> None:
    end = endpoint(forgiving=True)
    end.send(con(1), "first", 0.0)
    end.send(con(2, b"t"), "waiting", 0.0, 50.0)
    end.outgoing()
    assert end.receive(answer(Type.CON, 9, b"t"), 0.1) is None
    assert end.outgoing() == [ack(9)]
    assert end.receive(ack(1), 0.2) == Acknowledged("first")
    assert [read_message(data).id for data in end.outgoing()] == [2]
    message = answer(Type.ACK, 2, b"t")
    assert end.receive(message, 0.3) == Answered("waiting", message)


def test_a_function_that_refuses_and_answers_all_the_same() -> None:
    # device-protocol.md, section 8: an argument that is too long.
    end = endpoint(forgiving=True)
    end.send(con(1, b"t"), "call", 0.0, 5.0)
    end.outgoing()
    refused = answer(Type.ACK, 1, b"t", Code.BAD_REQUEST, b"")
    assert end.receive(refused, 0.1) == Answered("call", refused)
    assert end.receive(answer(Type.CON, 9, b"t", Code.CHANGED), 0.2) is None
    assert end.outgoing() == [ack(9)]


def test_more_answers_until_they_are_not_wanted_any_more() -> None:
    end = endpoint()
    end.send(con(1, b"o"), "observe", 0.0, 10.0, keep=True)
    end.outgoing()
    first = answer(Type.ACK, 1, b"o", payload=b"1")
    assert end.receive(first, 0.1) == Answered("observe", first)
    assert end.deadline() is None
    second = answer(Type.CON, 50, b"o", payload=b"2")
    assert end.receive(second, 100.0) == Answered("observe", second)
    third = answer(Type.NON, 51, b"o", payload=b"3")
    assert end.receive(third, 200.0) == Answered("observe", third)
    assert end.outgoing() == [ack(50)]
    end.release(b"o", 200.0)
    # RFC 7641, section 3.6: rejecting is how a client forgets.
    assert end.receive(answer(Type.CON, 52, b"o"), 300.0) is None
    assert end.outgoing() == [reset(52)]


def test_what_is_released_is_told_no_more() -> None:
    end = endpoint()
    end.send(con(1, b"a"), "flying", 0.0, 10.0)
    end.send(con(2, b"b"), "waiting", 0.0, 10.0)
    end.outgoing()
    end.release(b"b", 0.1)
    end.release(b"a", 0.1)
    end.release(b"never", 0.1)
    assert end.deadline() is None
    assert end.tick(100.0) == []
    assert end.outgoing() == []


# --- requests ---


def test_a_request_is_new_once_and_its_repetitions_get_the_same_answer() -> None:
    end = endpoint()
    request = con(7, b"t")
    assert end.receive(request, 0.0) == Request(request)
    # Not answered yet: nothing to say.
    assert end.receive(request, 0.1) == Duplicate(7)
    assert end.outgoing() == []
    end.reply(Request(request), Code.CONTENT, b"now", (), 0.2)
    replied = write_message(Message(Type.ACK, Code.CONTENT, 7, b"t", (), b"now"))
    assert end.outgoing() == [replied]
    assert end.receive(request, 246.9) == Duplicate(7)
    assert end.outgoing() == [replied]
    # RFC 7252, section 4.8.2: after EXCHANGE_LIFETIME the id may be used for something else.
    assert end.receive(request, 247.0) == Request(request)


def test_an_empty_reply() -> None:
    end = endpoint()
    end.receive(con(7, b"t"), 0.0)
    end.reply(con(7, b"t"), now=0.0)
    assert end.outgoing() == [ack(7)]
    assert end.receive(con(7, b"t"), 1.0) == Duplicate(7)
    assert end.outgoing() == [ack(7)]


def test_a_separate_response() -> None:
    end = endpoint()
    request = con(7, b"t")
    end.receive(request, 0.0)
    end.reply(request, now=0.0)
    end.respond(request, Code.CONTENT, b"later", (), 5.0, id=300, tag="response")
    said = end.outgoing()
    assert said[0] == ack(7)
    assert read_message(said[1]) == Message(Type.CON, Code.CONTENT, 300, b"t", (), b"later")
    assert end.receive(ack(300), 5.1) == Acknowledged("response")


def test_a_non_is_answered_by_a_non() -> None:
    end = endpoint()
    request = non(7, b"t")
    assert end.receive(request, 0.0) == Request(request)
    end.reply(request, Code.NOT_FOUND, b"", (), 0.0, id=40)
    assert end.outgoing() == [write_message(Message(Type.NON, Code.NOT_FOUND, 40, b"t"))]
    assert end.receive(request, 0.1) == Duplicate(7)
    assert end.outgoing() == []
    end.respond(request, Code.CONTENT, b"x", (), 0.2, id=41)
    assert end.outgoing() == [write_message(Message(Type.NON, Code.CONTENT, 41, b"t", (), b"x"))]


def test_a_non_that_needs_no_answer() -> None:
    end = endpoint()
    end.receive(non(7), 0.0)
    end.reply(non(7), now=0.0)
    assert end.outgoing() == []


def test_unwanted_responses_are_not_sent() -> None:
    end = endpoint()
    quiet = ((Option.NO_RESPONSE.value, b"\x1a"),)
    request = Message(Type.CON, Code.POST, 7, b"t", quiet)
    end.receive(request, 0.0)
    end.reply(request, Code.CHANGED, b"", (), 0.0)
    assert end.outgoing() == [ack(7)]
    end.respond(request, Code.CHANGED, b"", (), 0.0, id=9)
    assert end.outgoing() == []
    told = Message(Type.NON, Code.POST, 8, b"t", quiet)
    end.receive(told, 0.0)
    end.reply(told, Code.CHANGED, b"", (), 0.0)
    assert end.outgoing() == []


def test_a_ping_is_answered_each_time_and_not_remembered() -> None:
    end = endpoint(forgiving=True)
    for now in (0.0, 1.0):
        request = end.receive(ping(3), now)
        assert request == Request(Message(Type.CON, 0, 3))
        end.reply(request, now=now)
        assert end.outgoing() == [ack(3)]
    end.reject(Message(Type.CON, 0, 4), 2.0)
    assert end.outgoing() == [reset(4)]


def test_an_empty_non_means_nothing() -> None:
    assert endpoint().receive(Message(Type.NON, 0, 3), 0.0) is None


def test_a_rejected_request_is_rejected_again() -> None:
    end = endpoint()
    end.receive(con(7), 0.0)
    end.reject(Request(con(7)), 0.0)
    assert end.receive(con(7), 1.0) == Duplicate(7)
    assert end.outgoing() == [reset(7), reset(7)]


@pytest.mark.parametrize(
    ("data", "forgiving", "said"),
    [
        ("40000007ff", False, ["70000007"]),
        ("40000007ff", True, ["60800007"]),
        ("50000007ff", False, []),
        ("60000007ff", True, []),
        ("c0000007", True, []),
        ("40", True, []),
    ],
)
def test_what_can_not_be_read(data: str, forgiving: bool, said: list[str]) -> None:
    end = endpoint(forgiving=forgiving)
    with pytest.raises(Malformed) as caught:
        end.receive(bytes.fromhex(data), 0.0)
    end.refuse(caught.value)
    assert [out.hex() for out in end.outgoing()] == said


# --- the hot path ---


def test_a_caller_may_answer_by_itself() -> None:
    end = endpoint()
    assert end.fresh(7, 0.0)
    assert not end.fresh(7, 0.1)
    assert end.outgoing() == []
    end.remember(7, ack(7), 0.2)
    assert not end.fresh(7, 0.3)
    assert end.outgoing() == [ack(7)]
    refused = bytes.fromhex("609d0008")
    assert end.fresh(8, 0.3)
    end.remember(8, refused, 0.3)
    assert not end.fresh(8, 0.4)
    assert end.outgoing() == [refused]


def test_a_request_that_could_not_be_dealt_with_is_new_again() -> None:
    end = endpoint()
    assert end.fresh(7, 0.0)
    end.forget(7)
    assert end.fresh(7, 4.0)


def test_what_was_answered_before_a_restart_may_be_told() -> None:
    end = endpoint()
    end.remember(7, ack(7), 0.0)
    assert not end.fresh(7, 1.0)
    assert end.outgoing() == [ack(7)]


# --- bounds and cost ---


def test_message_ids_are_forgotten_in_time_and_in_number() -> None:
    end = endpoint()
    for id in range(5 * MAX_SEEN):
        assert end.fresh(id, id * 0.001)
        end.remember(id, ack(id), id * 0.001)
    assert end._seen is not None
    assert len(end._seen) <= MAX_SEEN
    assert not end.fresh(5 * MAX_SEEN - MAX_SEEN // 2, 6.0)
    for id in range(100):
        end.fresh(60_000 + id, 1000.0 + id * 10)
        end.remember(60_000 + id, b"", 1000.0 + id * 10)
    assert len(end._seen) <= 64
    assert end._replies is not None
    assert len(end._replies) <= 64


def test_a_silent_peer_costs_less_than_500_bytes() -> None:
    def dice() -> float:
        return 0.5

    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    ends = [Endpoint(DEVICE_OS, dice, 4, forgiving=True) for _ in range(200)]
    # Each has had a conversation, and was silent but for pings since then.
    for end in ends:
        for id in range(40):
            end.receive(con(id), 0.0)
            end.reply(con(id), Code.CHANGED, b"", (), 0.0)
            end.send(con(id), id, 0.0)
            end.receive(ack(id), 0.0)
        end.outgoing()
        end.tick(300.0)
        for id in range(40, 60):
            end.reply(end.receive(ping(id), 300.0 + id), now=300.0 + id)  # type: ignore[arg-type]
            end.outgoing()
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert used / len(ends) < 500
