import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirechamber.delivery.policy import LONGEST_WAIT_S, PATIENCE_MS, Again, Done, GivenUp, Paused, decide
from wirechamber.integrations.base import Delivered, Misconfigured, Refused, TryLater

SCHEDULE = (0.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0)


@pytest.mark.parametrize(
    ("attempts", "dice", "wait"),
    [(1, 0.5, 30), (1, 0.0, 24), (1, 1.0, 36), (2, 0.5, 60), (3, 0.5, 300), (4, 0.5, 1800), (6, 0.5, 21600)],
)
def test_the_schedule_is_followed_with_a_spread_of_a_fifth(attempts: int, dice: float, wait: int) -> None:
    assert decide(TryLater("x"), attempts, SCHEDULE, 1000, dice) == Again(1000 + wait * 1000)


def test_an_exhausted_schedule_gives_up() -> None:
    assert decide(TryLater("x"), 7, SCHEDULE, 0, 0.5) == GivenUp()


def test_a_target_that_asks_for_more_time_gets_it_within_reason() -> None:
    assert decide(TryLater("x", after=120), 1, SCHEDULE, 0, 0.5) == Again(120_000)
    assert decide(TryLater("x", after=1), 1, SCHEDULE, 0, 0.5) == Again(30_000)
    assert decide(TryLater("x", after=10**9), 1, SCHEDULE, 0, 0.5) == Again(int(LONGEST_WAIT_S * 1000))


def test_the_other_outcomes_are_final() -> None:
    assert decide(Delivered(), 1, SCHEDULE, 0, 0.5) == Done()
    assert decide(Refused("404"), 1, SCHEDULE, 0, 0.5) == GivenUp()
    assert decide(Misconfigured("no key"), 1, SCHEDULE, 0, 0.5) == Paused()


@given(attempts=st.integers(1, 6), dice=st.floats(0, 1), now=st.integers(0, 2**48))
def test_a_wait_is_never_more_than_a_fifth_off(attempts: int, dice: float, now: int) -> None:
    verdict = decide(TryLater("x"), attempts, SCHEDULE, now, dice)
    assert isinstance(verdict, Again)
    wait = SCHEDULE[attempts] * 1000
    assert 0.8 * wait - 1 <= verdict.at - now <= 1.2 * wait + 1


def test_being_throttled_is_no_attempt_for_a_day() -> None:
    throttled = TryLater("busy", after=10, throttled=True)
    # However many attempts were made, and never earlier than asked.
    assert decide(throttled, 7, SCHEDULE, 0, 0.0) == Again(10_000, counted=False)
    assert decide(throttled, 7, SCHEDULE, 0, 1.0) == Again(12_000, counted=False)
    assert decide(TryLater("busy", throttled=True), 1, SCHEDULE, 0, 0.0) == Again(30_000, counted=False)
    assert decide(TryLater("x", after=10**9, throttled=True), 1, SCHEDULE, 0, 0.0) == Again(86_400_000, counted=False)
    assert decide(throttled, 7, SCHEDULE, 0, 0.0, age_ms=PATIENCE_MS) == GivenUp()
    assert decide(throttled, 1, SCHEDULE, 0, 0.5, age_ms=PATIENCE_MS) == Again(30_000)
