"""Times on the wire: ISO 8601, UTC, milliseconds, `Z` (cloud-api.md, section 1). Inside: milliseconds since 1970."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache

DAY_MS = 86_400_000


@lru_cache(maxsize=64)
def _to_seconds(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def iso(ms: int) -> str:
    """`2017-02-01T21:08:05.763Z`. Events of one second share the work."""
    second, fraction = divmod(ms, 1000)
    return f"{_to_seconds(second)}.{fraction:03d}Z"


def iso_or_none(ms: int | None) -> str | None:
    """As `iso`, and null for what has not happened."""
    return None if ms is None else iso(ms)


def parse_iso(text: str) -> int:
    """Milliseconds since 1970; a time without a zone is UTC.

    Raises:
        ValueError: The text is no ISO 8601 time.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def day(ms: int) -> int:
    """Days since 1970-01-01 UTC, the unit of the daily counters."""
    return ms // DAY_MS
