"""What follows from an attempt's outcome: a pure function, so the whole schedule is a table in a test."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from wirechamber.integrations.base import Delivered, Misconfigured, Outcome, Refused

# Each wait is varied by this much both ways, so that a target which recovers is not met by its backlog at once.
SPREAD = 0.2
# A target may ask for more time than the schedule gives, within reason.
LONGEST_WAIT_S = 6 * 3600.0
# One that throttles may have a quota of the day.
LONGEST_THROTTLED_S = 24 * 3600.0
# For so long, being throttled is not counted as an attempt.
PATIENCE_MS = 24 * 3_600_000
# When it does not say how long to wait.
THROTTLED_WAIT_S = 30.0


class Done(Struct, frozen=True):
    """Nothing more to do."""


class Again(Struct, frozen=True):
    """Another attempt, not before `at` (milliseconds since 1970).

    Attributes:
        counted: It uses up one of the schedule's attempts.
    """

    at: int
    counted: bool = True


class GivenUp(Struct, frozen=True):
    """No attempt will follow; the delivery is kept as dead."""


class Paused(Struct, frozen=True):
    """The integration is misconfigured: it is paused, and the delivery waits for its repair."""


Verdict = Done | Again | GivenUp | Paused


def decide(
    outcome: Outcome, attempts: int, schedule: Sequence[float], now: int, dice: float, age_ms: int = 0
) -> Verdict:
    """What to do after an attempt.

    Args:
        attempts: How many attempts have been made, this one included.
        schedule: Seconds to wait before each attempt; its length is the number of attempts.
        now: Milliseconds since 1970.
        dice: A roll between 0 and 1.
        age_ms: For how long the delivery has been there.
    """
    if isinstance(outcome, Delivered):
        return Done()
    if isinstance(outcome, Refused):
        return GivenUp()
    if isinstance(outcome, Misconfigured):
        return Paused()
    if outcome.throttled and age_ms < PATIENCE_MS:
        wait = THROTTLED_WAIT_S if outcome.after is None else min(outcome.after, LONGEST_THROTTLED_S)
        # Only longer: what the target asked for is the least.
        return Again(now + int(wait * 1000 * (1 + SPREAD * dice)), counted=False)
    if attempts >= len(schedule):
        return GivenUp()
    wait = schedule[attempts] * (1 - SPREAD + 2 * SPREAD * dice)
    if outcome.after is not None:
        wait = max(wait, min(outcome.after, LONGEST_WAIT_S))
    return Again(now + int(wait * 1000))
