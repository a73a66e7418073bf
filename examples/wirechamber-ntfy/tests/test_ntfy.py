"""The plan, played by hand: no server, no clock, no socket."""

from __future__ import annotations

import pytest
from wirechamber_ntfy import Ntfy

from wirechamber.integrations.base import (
    Answer,
    Call,
    Context,
    Delivered,
    InvalidConfig,
    Misconfigured,
    Response,
    TryLater,
)
from wirechamber.model.events import Event

KIND = Ntfy()
CONFIG = KIND.read({"topic": "alarms", "token": "tk_secret", "priority": "High"}, {}).config
EVENT = Event(
    id="0" * 32, name="alarm", data="open", published_at=0, received_at=0, owner="ann", coreid="api", partition="ann",
    origin="api",
)  # fmt: skip


def play(*replies: Response) -> tuple[Call, object]:
    plan = KIND.deliver((EVENT,), KIND.prepare(CONFIG), Context(0, "test"))
    step = next(plan)
    assert isinstance(step, Call)
    (reply,) = replies
    with pytest.raises(StopIteration) as ended:
        plan.send(reply)
    return step, ended.value.value[0]


def test_the_request() -> None:
    step, outcome = play(Response(200, (), b'{"id": "abc"}'))
    assert (step.request.method, step.request.url) == ("POST", "https://ntfy.sh/alarms")
    assert step.request.body == b"open"
    assert ("Priority", "high") in step.request.headers
    assert step.request.secrets == ("tk_secret",)
    assert outcome == Delivered(Answer("abc"))


@pytest.mark.parametrize(("status", "kind"), [(403, Misconfigured), (429, TryLater), (500, TryLater)])
def test_outcomes(status: int, kind: type) -> None:
    assert isinstance(play(Response(status))[1], kind)


@pytest.mark.parametrize(
    "wrong", [{}, {"topic": "a b"}, {"topic": "a", "server": "ftp://x"}, {"topic": "a", "priority": "x"}]
)
def test_settings(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidConfig):
        KIND.read(wrong, {})
