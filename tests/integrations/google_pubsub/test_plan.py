"""The plan of a batch, played by hand: one refusal for all, and which of them are to blame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.delivery.builders import NOW, an_event
from tests.standins.pubsub import TOPIC, Account
from wirechamber.delivery.runner import MAX_STEPS
from wirechamber.integrations.base import Call, Context, Delivered, Refused, Response, TryLater
from wirechamber.integrations.google_pubsub import GoogleCloudPubSub
from wirechamber.integrations.google_pubsub.credentials import ambient, key_text
from wirechamber.integrations.google_pubsub.kind import MAX_DATA_BYTES, limits, too_much

REFUSED = json.dumps({"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}).encode()


def play(bad: set[int], count: int) -> tuple[list[Any], int, list[str]]:
    """Outcomes, steps, and which events were published."""
    kind = GoogleCloudPubSub("https://pubsub.example", emulator="127.0.0.1:1")
    prepared = kind.prepare(kind.read({"topic": TOPIC}, {}).config)
    events = [an_event(id=f"{number:032}", data=f"n{number}") for number in range(count)]
    plan = kind.deliver(events, prepared, Context(NOW, "test"))
    published: list[str] = []
    reply: Any = None
    steps = 0
    while True:
        try:
            step = plan.send(reply)
        except StopIteration as ended:
            return list(ended.value), steps, published
        steps += 2  # with a token, each call takes one more
        assert isinstance(step, Call)
        ids = [each["attributes"]["event_id"] for each in json.loads(step.request.body or b"")["messages"]]
        if any(int(each) in bad for each in ids):
            reply = Response(400, (), REFUSED)
        else:
            published += ids
            reply = Response(200, (), json.dumps({"messageIds": ids}).encode())


@given(st.integers(1, 120).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_each_is_settled_by_itself_within_the_steps(case: tuple[int, set[int]]) -> None:
    count, bad = case
    outcomes, steps, published = play(bad, count)
    assert steps <= MAX_STEPS + count
    assert len(outcomes) == count
    assert len(set(published)) == len(published)
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, Delivered):
            assert number not in bad
            assert outcome.answer is not None
            # Its own id, not another's.
            assert int(outcome.answer.data) == number
        elif isinstance(outcome, Refused):
            assert number in bad
        else:
            assert isinstance(outcome, TryLater)
    assert {int(each) for each in published} == {
        number for number, outcome in enumerate(outcomes) if isinstance(outcome, Delivered)
    }
    if not bad:
        assert steps == 2


def test_limits_are_checked_before_anything_is_sent() -> None:
    assert too_much(an_event(data="x" * MAX_DATA_BYTES)) is None
    assert isinstance(too_much(an_event(data="x" * (MAX_DATA_BYTES + 1))), Refused)
    assert limits({f"k{number}": "v" for number in range(100)}) is None
    for wrong in (
        {f"k{number}": "v" for number in range(101)}, {"k" * 257: "v"}, {"k": "v" * 1025}, {"k": "é" * 513},
        {"goog-x": "v"}, {"": "v"},
    ):  # fmt: skip
        assert isinstance(limits(wrong), Refused)


def test_a_key_s_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = Account().text
    assert key_text("\ufeff" + text) == key_text(text)
    (tmp_path / "key.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert ambient(str(tmp_path / "key.json"), "").who == json.loads(text)["client_email"]
