"""How integrations stand, and what their attempts came to, as the API shows it."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from wirechamber.clock import SteadyClock
from wirechamber.model.deliveries import Attempt, DayCount, Standing, Step
from wirechamber.model.times import DAY_MS, iso


class Moment(NamedTuple):
    """Now, by the wall clock and in steady time, in milliseconds."""

    now: int
    steady: int

    @classmethod
    def of(cls, clock: SteadyClock) -> Moment:
        """The present one."""
        return cls(clock.now(), clock.steady())

    def wall(self, steady: int) -> str:
        """A moment of steady time as the wall clock will show it; what is overdue is due now."""
        return iso(self.now + max(0, steady - self.steady))


def standing_view(standing: Standing, moment: Moment) -> dict[str, Any]:
    """What waits, whether it fails, since when and why, and when it is tried again."""
    return {
        "waiting": standing.waiting,
        "failing": standing.failed_at is not None,
        "failed_at": None if standing.failed_at is None else iso(standing.failed_at),
        "last_error": standing.why,
        "next_try_at": None if standing.due_at is None else moment.wall(standing.due_at),
    }


def attempt_view(attempt: Attempt, step: Step | None, moment: Moment) -> dict[str, Any]:
    """An attempt, with request and response while they are kept.

    Args:
        step: How far its delivery has come, if that is not done: the newest attempt says when the next one is.
    """
    again = step is not None and not attempt.final and step.attempts == attempt.number
    shown: dict[str, Any] = {
        "id": attempt.id,
        "event": attempt.event_name,
        "event_id": attempt.event_id,
        "coreid": attempt.coreid,
        "deviceID": attempt.device,
        "attempt": attempt.number,
        "final": attempt.final,
        "ok": attempt.ok,
        "status": attempt.status,
        "error": attempt.why,
        "time": iso(attempt.started_at),
        "duration_ms": attempt.duration_ms,
        "next_try_at": None if step is None or step.due_at is None or not again else moment.wall(step.due_at),
    }
    if attempt.detail is not None:
        shown |= {key: value for key, value in msgspec.json.decode(attempt.detail).items() if key not in shown}
    return shown


def today_view(counts: list[DayCount] | None) -> dict[str, int]:
    """The counts of today, of which there may be none yet."""
    newest = counts[-1] if counts else DayCount(0)
    return {"success": newest.success, "error": newest.error}


def counter_view(count: DayCount) -> dict[str, Any]:
    """The counts of one day."""
    return {
        "date": iso(count.day * DAY_MS)[:10],
        "success": count.success,
        "error": count.error,
        "retried": count.retried,
    }
