"""Who must wait after failed logins, and whose turn it is at the hashing."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from wirechamber.errors import TooMany
from wirechamber.services import logins
from wirechamber.services.logins import Logins
from wirechamber.services.passwords import MAX_WAITING, MAX_WAITING_EACH, Turns


class HandClock:
    at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def watched(clock: HandClock) -> Logins:
    return Logins(3, 60.0, clock)


def fail(watched: Logins, network: str, account: str) -> bool:
    """Whether another wrong password was looked at."""
    try:
        with watched.attempt(network, account) as attempt:
            attempt.failed = True
    except TooMany:
        return False
    return True


def succeed(watched: Logins, network: str, account: str) -> bool:
    try:
        with watched.attempt(network, account) as attempt:
            attempt.right = True
    except TooMany:
        return False
    return True


def test_a_network_waits_after_its_failures_whoever_they_were_at(watched: Logins, clock: HandClock) -> None:
    assert [fail(watched, "n", f"a{number}") for number in range(4)] == [True, True, True, False]
    assert not succeed(watched, "n", "ann")
    assert succeed(watched, "other", "ann")
    clock.at += 59
    assert not succeed(watched, "n", "ann")
    clock.at += 1
    assert succeed(watched, "n", "ann")


def test_an_account_waits_after_failures_from_many_networks(watched: Logins, clock: HandClock) -> None:
    assert succeed(watched, "home", "ann")
    assert [fail(watched, f"n{number}", "ann") for number in range(7)] == [True] * 6 + [False]
    assert not succeed(watched, "elsewhere", "ann")
    # Others' guesses do not keep her out where she was before.
    assert succeed(watched, "home", "ann")
    assert succeed(watched, "elsewhere", "ann")


def test_a_success_forgives_its_own_account_only(watched: Logins) -> None:
    for _ in range(2):
        fail(watched, "n", "ann")
    assert succeed(watched, "n", "eve")
    assert fail(watched, "n", "ann")
    assert not fail(watched, "n", "ann")

    assert fail(watched, "m", "bob")
    assert fail(watched, "m", "bob")
    assert succeed(watched, "m", "bob")
    assert [fail(watched, "m", "bob") for _ in range(4)] == [True, True, True, False]


def test_what_is_under_way_counts(watched: Logins) -> None:
    with watched.attempt("n", "a"), watched.attempt("n", "b"), watched.attempt("n", "c"):
        with pytest.raises(TooMany) as refused, watched.attempt("n", "d"):
            pass
        # They are decided on in a moment.
        assert refused.value.extra["retry_after"] <= 2
    # Neither right nor wrong: given back.
    assert succeed(watched, "n", "d")


def test_a_full_table_forgives_nobody_who_waits(watched: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MAX_WATCHED", 50)
    for _ in range(3):
        fail(watched, "bad", "ann")
    for number in range(1_000):
        assert fail(watched, f"n{number}", f"a{number}")
    assert not fail(watched, "bad", "ann")
    assert len(watched._networks._watched) == len(watched._accounts._watched) == 50
    assert not watched._networks.under_way
    for _ in range(3):
        for number in range(200):
            fail(watched, f"w{number}", f"x{number}")
    assert len(watched._networks._waiting) <= 50


def test_what_waits_for_its_turn_is_bounded_and_shared() -> None:
    async def work() -> None:
        turns = Turns(1)
        order: list[str] = []
        told: list[str] = []
        go = asyncio.Event()

        async def want(holder: str, *, known: bool = False) -> None:
            try:
                async with turns.turn(holder, known=known):
                    order.append(holder)
                    await go.wait()
            except TooMany:
                told.append(holder)

        async with asyncio.TaskGroup() as group:
            group.create_task(want("first"))
            await asyncio.sleep(0)
            for number in range(30):
                group.create_task(want("flood"))
                group.create_task(want(f"n{number}"))
            group.create_task(want("friend", known=True))
            for _ in range(5):
                await asyncio.sleep(0)
            # Told at once.
            assert len(told) == 30 + 30 + 1 - MAX_WAITING
            assert "friend" not in told
            go.set()
        assert order[:2] == ["first", "friend"]
        assert order.count("flood") <= MAX_WAITING_EACH
        assert len(order) == 1 + MAX_WAITING

    asyncio.run(work())


def test_who_no_longer_wants_a_turn_keeps_nobody_from_theirs() -> None:
    async def work() -> None:
        turns = Turns(1)
        async with turns.turn("a"):
            waiting = asyncio.ensure_future(turns.turn("b").__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        for _ in range(3):
            async with asyncio.timeout(5), turns.turn("c"):
                pass
        # Told that it is its turn, and gone in the same moment.
        async with turns.turn("a"):
            late = asyncio.ensure_future(turns.turn("b").__aenter__())
            await asyncio.sleep(0)
        late.cancel()
        with suppress(asyncio.CancelledError):
            await late
        async with asyncio.timeout(5), turns.turn("c"):
            pass

    asyncio.run(work())
