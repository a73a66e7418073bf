"""Resuming, as a property: wherever a reader stopped, history and tail together are exactly what came after it."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.delivery.builders import an_event
from tests.streams.test_hub import Wire
from wirechamber.clock import SystemClock
from wirechamber.eventlog.base import Cursor, EventLog, Scope
from wirechamber.eventlog.sqlite import open_sqlite_log
from wirechamber.model.events import Event
from wirechamber.streams.hub import Hub, Reader
from wirechamber.streams.past import Past
from wirechamber.streams.resume import Start, history, recent

NAMES = st.sampled_from(["temp/a", "temp/b", "Temp/a", "hum"])
BATCHES = st.lists(st.lists(NAMES, min_size=1, max_size=6), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=BATCHES, meanwhile=BATCHES, seen=st.integers(0, 60), reopened=st.booleans(),
    prefix=st.sampled_from(["", "temp", "temp/a", "x", ("hum", "temp/a"), ("Temp/", "x")]),
)  # fmt: skip
def test_whoever_resumes_gets_each_later_event_once(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[list[str]],
    meanwhile: list[list[str]],
    prefix: str | tuple[str, ...],
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
        frames = [frame async for frame in history(Past(log), scope, start)]
        # Events go on arriving between the last page of history and the moment the reader joins its group.
        for names in meanwhile:
            stored.extend(zip(await log.append(_events(names, len(stored))), names, strict=True))
        frames += recent(log, scope, start.position)
        told = [found.decode() for frame in frames for found in re.findall(rb"id: (\d+)", frame)]
        later = [entry for entry in stored if log.order(entry[0]) > log.order(position)]
        assert told == [cursor for cursor, name in later if name.startswith(prefix)]

    asyncio.run(work())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seen=st.lists(st.integers(0, 299), min_size=1, max_size=8), page=st.sampled_from([1, 7, 500]), ring=st.booleans()
)
def test_ids_only_grow_however_many_resume_while_events_come_in(
    tmp_path_factory: pytest.TempPathFactory, seen: list[int], page: int, ring: bool
) -> None:
    folder = tmp_path_factory.mktemp("log")

    async def work() -> None:
        async with open_sqlite_log(folder, durability="normal", clock=SystemClock()) as log:
            stored = list(await log.append(_events(["temp"] * 300, 0)))
            if not ring:
                log.tail._forget_half()
            hub, past = Hub(log.tail, 1 << 30), Past(log)
            scope = Scope(owner="owner-1")

            async def resume(position: Cursor) -> list[int]:
                wire = Wire()
                start = Start(log, str(position))
                async for frame in history(past, scope, start):
                    wire.write(frame)
                for frame in recent(log, scope, start.position):
                    wire.write(frame)
                hub.join(scope, Reader(wire, lambda why: None))
                await writing
                await asyncio.sleep(0.01)
                return [int(found) for found in re.findall(rb"id: (\d+)", b"".join(wire.writes))]

            async def write() -> None:
                for number in range(300, 600, 3):
                    stored.extend(await log.append(_events(["temp"] * 3, number)))

            writing = asyncio.ensure_future(write())
            for position, told in zip(seen, await asyncio.gather(*(resume(stored[at]) for at in seen)), strict=True):
                assert told == [int(cursor) for cursor in stored[position + 1 :]]
            hub.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wirechamber.streams.past.PAGE", page)
        patch.setattr("wirechamber.streams.past.TAIL_PAGE", page)
        patch.setattr("wirechamber.streams.past.LEFT_BYTES", page * 10)
        asyncio.run(work())


def _events(names: list[str], first: int) -> list[Event]:
    return [an_event(name, id=f"{first + index:032x}") for index, name in enumerate(names)]
