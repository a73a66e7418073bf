"""What follows from an attempt's outcome: a pure function, so the whole schedule is a table in a test."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from wirechamber.integrations.base import Delivered, Misconfigured, Outcome, Refused

# Each wait is varied by this much both ways, so that a target which recovers is not met by its backlog at once.
SPREAD = 0.2
# A target may ask for more time than the schedule gives, within reason.
LONGEST_WAIT_S = 6 * 3600.0


class Done(Struct, frozen=True):
    """Nothing more to do."""


class Again(Struct, frozen=True):
    """Another attempt, not before `at` (milliseconds since 1970)."""

    at: int


class GivenUp(Struct, frozen=True):
    """No attempt will follow; the delivery is kept as dead."""


class Paused(Struct, frozen=True):
    """The integration is misconfigured: it is paused, and the delivery waits for its repair."""


Verdict = Done | Again | GivenUp | Paused


def decide(outcome: Outcome, attempts: int, schedule: Sequence[float], now: int, dice: float) -> Verdict:
    """What to do after an attempt.

    Args:
        attempts: How many attempts have been made, this one included.
        schedule: Seconds to wait before each attempt; its length is the number of attempts.
        now: Milliseconds since 1970.
        dice: A roll between 0 and 1.
    """
    if isinstance(outcome, Delivered):
        return Done()
    if isinstance(outcome, Refused):
        return GivenUp()
    if isinstance(outcome, Misconfigured):
        return Paused()
    if attempts >= len(schedule):
        return GivenUp()
    wait = schedule[attempts] * (1 - SPREAD + 2 * SPREAD * dice)
    if outcome.after is not None:
        wait = max(wait, min(outcome.after, LONGEST_WAIT_S))
    return Again(now + int(wait * 1000))
