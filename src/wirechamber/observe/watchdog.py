"""How late the event loop is: everything that a cloud does waits for it, so whatever holds it is told by name.

A timer on the loop beats. A thread looks whether a beat is overdue, and then at what the loop's thread is doing.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType

import structlog
from msgspec import Struct

_log = structlog.get_logger("wirechamber")

# Often enough to see most of what holds the loop for 50 ms, and about 0.05 % of a core.
BEAT_S = 0.05
# Upper bounds of the histogram's buckets, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
# What holds the loop longer is logged …
HELD_S = 0.25
# … this often at most, with what held it longest.
LOG_EVERY_S = 60.0
# The innermost calls that are told.
FRAMES = 4


class Hold(Struct):
    """Something held the loop.

    Attributes:
        seconds: How long, as far as it was seen.
        where: What ran, innermost call first, as `file:line function`; empty when it was over too soon to see.
    """

    seconds: float = 0.0
    where: str = ""


class Watchdog:
    """Measures the loop's lateness for as long as `watching` is open.

    Attributes:
        lags: How many beats were late by at most each of `BUCKETS`; the last number counts those beyond.
        late_s: All lateness together, in seconds.
        longest_s: The latest beat since the start, in seconds.
    """

    def __init__(self) -> None:
        self.lags = [0] * (len(BUCKETS) + 1)
        self.late_s = 0.0
        self.longest_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._due = self._loop.time() + BEAT_S
        self._beat_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._stop = threading.Event()
        self._seen = ""
        self._holds = 0
        self._longest = Hold()
        self._log_at = 0.0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watches the running loop until the block ends."""
        thread = threading.Thread(target=self._look_for_ever, name="loop-watchdog", daemon=True)
        self._due = self._loop.time() + BEAT_S
        self._timer = self._loop.call_at(self._due, self._beat)
        self._beat_at = time.monotonic()
        thread.start()
        try:
            yield
        finally:
            self._timer.cancel()
            self._stop.set()
            # It may be waiting for the GIL, never for the loop.
            thread.join()

    def _beat(self) -> None:
        now = self._loop.time()
        late = max(0.0, now - self._due)
        self.lags[bisect_left(BUCKETS, late)] += 1
        self.late_s += late
        self.longest_s = max(self.longest_s, late)
        where, self._seen = self._seen, ""
        if late >= HELD_S:
            self._holds += 1
            if late > self._longest.seconds:
                self._longest = Hold(late, where)
        if self._holds and now >= self._log_at:
            self._log_at = now + LOG_EVERY_S
            _log.warning(
                "loop_held", longest_s=round(self._longest.seconds, 3), where=self._longest.where, times=self._holds
            )
            self._holds, self._longest = 0, Hold()
        self._beat_at = time.monotonic()
        self._due = now + BEAT_S
        self._timer = self._loop.call_at(self._due, self._beat)

    def _look_for_ever(self) -> None:
        while not self._stop.wait(HELD_S / 2):
            if time.monotonic() - self._beat_at < HELD_S or self._seen:
                continue
            frame = sys._current_frames().get(self._thread_id)
            # On the loop's side a look that came too late is dropped with the next beat.
            self._seen = "" if frame is None else _told(frame)


def _told(frame: FrameType) -> str:
    calls: list[str] = []
    at: FrameType | None = frame
    while at is not None and len(calls) < FRAMES:
        calls.append(f"{Path(at.f_code.co_filename).name}:{at.f_lineno} {at.f_code.co_name}")
        at = at.f_back
    return " < ".join(calls)
