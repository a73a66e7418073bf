"""What answers of Google's APIs say beside their status: how long to wait, and that a clock is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.delivery.builders import NOW, an_event
from tests.standins.pubsub import TOPIC, Account
from wirechamber.integrations.answers import clock_apart, clock_words
from wirechamber.integrations.base import (
    Call,
    Compute,
    Context,
    Integration,
    Misconfigured,
    Outcome,
    Recall,
    Response,
    Token,
    TryLater,
)
from wirechamber.integrations.google import problem_in, wait_asked
from wirechamber.integrations.google_maps import GoogleMaps
from wirechamber.integrations.google_pubsub import GoogleCloudPubSub

RETRY = "type.googleapis.com/google.rpc.RetryInfo"
# NOW as a Date header, and eight minutes later.
DATE, LATER = "Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:21:20 GMT"


def saying(status: int, *details: Any, **headers: str) -> Response:
    error = {"code": status, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED", "details": list(details)}
    return Response(status, tuple(headers.items()), json.dumps({"error": error}).encode())


@pytest.mark.parametrize(
    ("details", "header", "wait"),
    [
        ([{"@type": RETRY, "retryDelay": "45.5s"}], None, 45.5),
        ([{"@type": RETRY, "retryDelay": "30s"}], "5", 30.0),
        ([{"@type": RETRY, "retryDelay": "3s"}], "50", 50.0),
        ([{"@type": "x"}, {"@type": RETRY, "retryDelay": "0.000000001s"}], None, 1e-9),
        ([{"@type": RETRY, "retryDelay": "1s"}, {"@type": RETRY, "retryDelay": "7s"}], None, 7.0),
        ([{"@type": RETRY, "retryDelay": "-5s"}], None, None),
        ([{"@type": RETRY, "retryDelay": "soon"}], None, None),
        ([{"@type": RETRY, "retryDelay": 45}], None, None),
        ([{"@type": RETRY}], None, None),
        ([{"@type": ["x"], "retryDelay": "45s"}, 5, None], None, None),
        ([{"@type": RETRY, "retryDelay": "9" * 400 + "s"}], "2", 2.0),
        ([], None, None),
    ],
)
def test_the_wait_that_google_asks_for(details: list[Any], header: str | None, wait: float | None) -> None:
    response = saying(429, *details, **({} if header is None else {"Retry-After": header}))
    assert wait_asked(response, problem_in(response), NOW) == wait


def outcome(kind: Integration[Any, Any], settings: dict[str, Any], data: str, *replies: Response) -> Outcome:
    """What one event comes to when the calls are answered so."""
    plan = kind.deliver((an_event(data=data),), kind.prepare(kind.read(settings, {}).config), Context(NOW, "test"))
    said = iter(replies)
    reply: Any = None
    while True:
        try:
            step = plan.send(reply)
        except StopIteration as ended:
            (found,) = ended.value
            return found  # type: ignore[no-any-return]
        match step:
            case Call():
                reply = next(said)
            case Token():
                found = _made(step, said)
                if not isinstance(found, tuple):
                    return found  # type: ignore[no-any-return]
                reply = found[0]
            case Recall():
                reply = None


def _made(step: Token, said: Iterator[Response]) -> Any:
    """The token of a plan, or its outcome."""
    making = step.plan()
    reply: Any = None
    while True:
        try:
            inner = making.send(reply)
        except StopIteration as ended:
            return ended.value
        reply = inner.work() if isinstance(inner, Compute) else next(said)


def published(*replies: Response, token_url: str = "") -> Outcome:
    kind = GoogleCloudPubSub("https://pubsub.example", token_url)
    return outcome(kind, {"topic": TOPIC, "credentials": ACCOUNT.text}, "x", *replies)


ACCOUNT = Account()
SCAN = '{"c":{"o":"","a":[{"i":42,"l":33,"c":310,"n":410}]}}'
IN_45 = {"@type": RETRY, "retryDelay": "45.5s"}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_service_that_asks_for_time_in_its_answer_s_body_gets_it(status: int) -> None:
    found = published(saying(status, IN_45))
    assert isinstance(found, TryLater)
    assert (found.after, found.throttled) == (45.5, status == 429)
    maps = GoogleMaps("https://maps.example/x")
    found = outcome(maps, {"api_key": "k" * 20}, SCAN, saying(status, IN_45))
    assert isinstance(found, TryLater)
    assert (found.after, found.throttled) == (45.5, status == 429)


def test_a_token_that_is_refused_while_the_clocks_differ_is_the_clock_s() -> None:
    late = Response(401, (("Date", LATER),), b"{}")
    found = published(late, late)
    assert isinstance(found, TryLater), found
    assert "the clock of this server is 8 minutes behind the service's" in found.why
    assert "new key" not in found.why
    expired = saying(401, {"@type": "x", "reason": "ACCESS_TOKEN_EXPIRED"}, Date=DATE)
    found = published(expired, expired)
    assert isinstance(found, TryLater)
    assert "the clock of this server differs" in found.why
    prompt = Response(401, (("Date", DATE),), b"{}")
    found = published(prompt, prompt)
    assert isinstance(found, Misconfigured)
    assert "make a new key" in found.why


@pytest.mark.parametrize(
    ("date", "words", "clock"),
    [
        (LATER, "Invalid JWT Signature.", True),
        (
            DATE,
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat "
            "and exp values in the JWT claim.",
            True,
        ),
        (DATE, "Invalid JWT Signature.", False),
        (DATE, "Invalid grant: account not found", False),
    ],
)
def test_a_statement_that_is_refused_for_its_time_is_the_clock_s(date: str, words: str, clock: bool) -> None:
    said = json.dumps({"error": "invalid_grant", "error_description": words}).encode()
    found = published(Response(400, (("Date", date),), said), token_url="https://token.example/token")
    assert words in found.why  # type: ignore[union-attr]
    if clock:
        assert isinstance(found, TryLater), found
        assert "the clock of this server" in found.why
        assert "new key" not in found.why
    else:
        assert isinstance(found, Misconfigured)
        assert "clock" not in found.why


@pytest.mark.parametrize(
    ("date", "apart"), [(DATE, 0.0), (LATER, 480.0), (None, 0.0), ("yesterday", 0.0), ("Tue, 99 Nov 2023", 0.0)]
)
def test_how_far_two_clocks_are_apart(date: str | None, apart: float) -> None:
    assert clock_apart(Response(200, () if date is None else (("Date", date),)), NOW) == apart


def test_the_difference_in_words() -> None:
    assert "5 seconds behind the" in clock_words(5.7)
    assert "1 minute ahead of the" in clock_words(-60)
    assert "2 hours behind the" in clock_words(7300)
    assert "40 days ahead of the" in clock_words(-40 * 86_400)
