"""Resuming, as a property: wherever a reader stopped, history and tail together are exactly what came after it."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.delivery.builders import an_event
from wirechamber.clock import SystemClock
from wirechamber.eventlog.base import Cursor, EventLog, Scope
from wirechamber.eventlog.sqlite import open_sqlite_log
from wirechamber.model.events import Event
from wirechamber.streams.resume import Start, history, recent

NAMES = st.sampled_from(["temp/a", "temp/b", "Temp/a", "hum"])
BATCHES = st.lists(st.lists(NAMES, min_size=1, max_size=6), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=BATCHES, meanwhile=BATCHES, prefix=st.sampled_from(["", "temp", "temp/a", "x"]), seen=st.integers(0, 60),
    reopened=st.booleans(),
)  # fmt: skip
def test_whoever_resumes_gets_each_later_event_once(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[list[str]],
    meanwhile: list[list[str]],
    prefix: str,
    seen: int,
    reopened: bool,
) -> None:
    folder = tmp_path_factory.mktemp("log")
    stored: list[tuple[Cursor, str]] = []

    async def work() -> None:
        async with open_sqlite_log(folder, durability="normal", clock=SystemClock()) as log:
            for names in before:
                stored.extend(zip(await log.append(_events(names, len(stored))), names, strict=True))
            if not reopened:
                await resume(log)
        if reopened:
            # Nothing of the past is in memory then.
            async with open_sqlite_log(folder, durability="normal", clock=SystemClock()) as log:
                await resume(log)

    async def resume(log: EventLog) -> None:
        position = stored[min(seen, len(stored) - 1)][0]
        scope = Scope(owner="owner-1", prefix=prefix)
        start = Start(log, str(position))
        frames = [frame async for frame in history(log, scope, start)]
        # Events go on arriving between the last page of history and the moment the reader joins its group.
        for names in meanwhile:
            stored.extend(zip(await log.append(_events(names, len(stored))), names, strict=True))
        frames += recent(log, scope, start.position)
        told = [found.decode() for frame in frames for found in re.findall(rb"id: (\d+)", frame)]
        later = [entry for entry in stored if log.order(entry[0]) > log.order(position)]
        assert told == [cursor for cursor, name in later if name.startswith(prefix)]

    asyncio.run(work())


def _events(names: list[str], first: int) -> list[Event]:
    return [an_event(name, id=f"{first + index:032x}") for index, name in enumerate(names)]
