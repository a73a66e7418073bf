"""What every event log must do, whatever keeps it: written against `EventLog`, run against each backend."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.backends import LOGS, LogOpener, run
from tests.delivery.builders import NOW, an_event
from wirechamber.eventlog.base import MAX_PAGE, Cursor, Entry, EventLog, NotACursor, Scope, Trimmable
from wirechamber.model.events import Event


@pytest.fixture(params=LOGS)
def opener(request: pytest.FixtureRequest) -> LogOpener:
    return LOGS[request.param]


def numbered(first: int, count: int = 1, **rest: Any) -> list[Event]:
    return [an_event(f"n/{index}", id=f"{index:032x}", **rest) for index in range(first, first + count)]


async def everything(log: EventLog, scope: Scope, limit: int = MAX_PAGE) -> list[Entry]:
    found: list[Entry] = []
    after = log.origin
    while True:
        page = await log.read(scope, after, limit)
        assert len(page.entries) <= limit
        found += page.entries
        assert log.order(page.after) >= log.order(after)
        after = page.after
        if not page.more:
            return found


def test_cursors_rise_in_the_order_of_appending(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            assert log.order(await log.newest()) == log.order(log.origin)
            first = await log.append(numbered(0, 3))
            second = await log.append(numbered(3, 2))
            orders = [log.order(cursor) for cursor in [*first, *second]]
            assert orders == sorted(set(orders))
            assert await log.newest() == second[-1]
            assert await log.oldest() == first[0]
            assert log.order(first[0]) <= log.order(log.next(first[0])) <= log.order(first[1])

    run(work())


def test_an_id_is_stored_once(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            one, two = numbered(0, 2)
            (first,) = await log.append([one])
            again, other, twice = await log.append([one, two, two])
            assert again == first
            assert twice == other
            # At the same time, in whatever batches they end up.
            answers = await asyncio.gather(*(log.append(numbered(7)) for _ in range(20)))
            assert len({cursors[0] for cursors in answers}) == 1
            assert [entry.event.name for entry in await everything(log, Scope())] == ["n/0", "n/1", "n/7"]

    run(work())


def test_an_id_is_known_after_reopening(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            (first,) = await log.append(numbered(0))
        async with opener(tmp_path) as log:
            assert await log.append(numbered(0)) == [first]
            (second,) = await log.append(numbered(1))
            assert log.order(second) > log.order(first)
            assert [entry.cursor for entry in await everything(log, Scope())] == [first, second]

    run(work())


EVENTS = st.builds(
    Event,
    id=st.uuids().map(lambda each: each.hex),
    name=st.text(min_size=1, max_size=64),
    data=st.none() | st.text(max_size=300),
    published_at=st.integers(0, 2**53),
    received_at=st.integers(0, 2**53),
    owner=st.sampled_from(["one", "two"]),
    coreid=st.text(max_size=24),
    partition=st.text(max_size=24),
    origin=st.sampled_from(["device", "api", "integration", "system"]),
    product=st.none() | st.integers(0, 65535),
    device=st.none() | st.text(max_size=24),
    cause=st.none() | st.text(max_size=32),
    depth=st.integers(0, 5),
    about=st.none() | st.text(max_size=24),
    content_type=st.text(max_size=40),
    ttl=st.integers(0, 2**31),
    session=st.none() | st.text(max_size=32),
    record=st.none() | st.integers(0, 2**48),
    message=st.none() | st.integers(0, 65535),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, min_size=1, max_size=20, unique_by=lambda event: event.id))
def test_every_field_comes_back_as_it_went_in(
    opener: LogOpener, tmp_path_factory: pytest.TempPathFactory, events: list[Event]
) -> None:
    async def work() -> None:
        async with opener(tmp_path_factory.mktemp("log")) as log:
            await log.append(events)
            assert [entry.event for entry in await everything(log, Scope())] == events

    run(work())


def test_a_scope_is_read_in_pages(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            events = [
                an_event(
                    ("temp/%d" if index % 3 else "Temp/%d") % index,
                    id=f"{index:032x}", owner="ann" if index % 2 else "bob", coreid=f"device-{index % 5}",
                )
                for index in range(700)
            ]  # fmt: skip
            await log.append(events)
            for scope in (
                Scope(),
                Scope(owner="ann"),
                Scope(owner="ann", coreid="device-3"),
                Scope(owner="bob", prefix="temp/"),
                Scope(owner="bob", prefix="temp/69"),
                Scope(owner="bob", prefix=("temp/1", "temp/69", "x")),
                Scope(owner="bob", coreid="device-2", prefix="Temp"),
                Scope(owner="nobody"),
            ):
                expected = [event for event in events if scope.holds(event)]
                for limit in (1 if len(expected) < 50 else 40, 100, MAX_PAGE):
                    assert [entry.event for entry in await everything(log, scope, limit)] == expected

    run(work())


def test_reading_on_from_any_cursor_repeats_and_skips_nothing(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            cursors = await log.append(numbered(0, 10))
            for index, cursor in enumerate(cursors):
                page = await log.read(Scope(), log.parse(str(cursor)))
                assert [entry.cursor for entry in page.entries] == list(cursors[index + 1 :])
                assert not page.more

    run(work())


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", " 1", "1 ", "0x10", "1e3", "٣", "9" * 30, "null", "1\n"])
def test_what_is_no_cursor_is_refused(opener: LogOpener, tmp_path: Path, text: str) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            with pytest.raises(NotACursor):
                log.parse(text)

    run(work())


def test_readers_follow_concurrent_appends_without_polling(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            heard: list[Entry] = []
            end = log.tail.listen(heard.extend)

            async def follow() -> list[Entry]:
                position, seen = log.origin, list[Entry]()
                while len(seen) < 500:
                    await log.tail.wait_beyond(position)
                    entries = log.tail.since(position)
                    assert entries is not None
                    seen += entries
                    position = seen[-1].cursor
                return seen

            reader = asyncio.create_task(follow())
            await asyncio.gather(*(log.append(numbered(index * 5, 5)) for index in range(100)))
            assert [entry.cursor for entry in await reader] == [entry.cursor for entry in heard]
            assert [entry.cursor for entry in heard] == sorted((entry.cursor for entry in heard), key=log.order)
            assert {entry.event.name for entry in heard} == {f"n/{index}" for index in range(500)}
            assert heard == await everything(log, Scope())
            end()
            await log.append(numbered(900))
            assert len(heard) == 500

    run(work())


def test_the_tail_says_when_it_does_not_reach_back(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            (first,) = await log.append(numbered(0))
        async with opener(tmp_path) as log:
            # What was stored before this process began is read from the log.
            assert log.tail.since(log.origin) is None
            assert log.tail.newest == first
            assert log.tail.since(first) == []

    run(work())


def trimmable(log: EventLog) -> Trimmable:
    if not isinstance(log, Trimmable):
        pytest.skip("this log trims itself")
    return log


def test_trimming_by_age_keeps_what_dispatch_has_not_seen(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            old = await log.append(numbered(0, 10, received_at=NOW))
            young = await log.append(numbered(10, 5, received_at=NOW + 1_000))
            trim = trimmable(log).trim
            assert await trim(before_time=NOW + 500, not_after=old[3], owner_bytes=None) == 4
            assert await log.oldest() == old[4]
            assert await trim(before_time=NOW + 500, not_after=young[-1], owner_bytes=None) == 6
            assert await trim(before_time=NOW + 500, not_after=young[-1], owner_bytes=None) == 0
            page = await log.read(Scope(), log.origin)
            assert [entry.cursor for entry in page.entries] == list(young)
            assert page.gap is not None
            assert log.order(page.gap.last) == log.order(old[-1])
            assert log.order(page.gap.first) <= log.order(old[0])
            # Who has come past the gap is told of none.
            assert (await log.read(Scope(), old[-1])).gap is None

    run(work())


def test_when_everything_is_trimmed_positions_go_on(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            cursors = await log.append(numbered(0, 3))
            await trimmable(log).trim(before_time=NOW + 1, not_after=cursors[-1], owner_bytes=None)
            assert await log.oldest() == log.next(cursors[-1])
        async with opener(tmp_path) as log:
            assert log.order(await log.newest()) >= log.order(cursors[-1])
            (cursor,) = await log.append(numbered(3))
            assert log.order(cursor) > log.order(cursors[-1])

    run(work())


def test_a_quota_takes_the_oldest_of_that_owner_only(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            await log.append(numbered(0, 20, owner="ann", data="x" * 1_000))
            cursors = await log.append(numbered(20, 3, owner="bob", data="x" * 1_000))
            assert await trimmable(log).trim(before_time=0, not_after=cursors[-1], owner_bytes=5_000) > 10
            ann = await log.read(Scope(owner="ann"), log.origin)
            assert [entry.event.name for entry in ann.entries] == ["n/17", "n/18", "n/19"]
            assert ann.gap is not None
            bob = await log.read(Scope(owner="bob"), log.origin)
            assert len(bob.entries) == 3
            assert bob.gap is None

    run(work())


def test_a_batch_is_stored_whole_and_large_ones_too(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            cursors: list[Cursor] = []
            for answer in await asyncio.gather(*(log.append(numbered(n * 3_000, 3_000)) for n in range(3))):
                cursors += answer
            assert len(set(cursors)) == 9_000
            assert len(await everything(log, Scope())) == 9_000

    run(work())


def test_looking_back_is_bounded_by_events_of_the_owner(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            ann = await log.append(numbered(0, 10, owner="ann"))
            await log.append(numbered(10, 100, owner="bob"))
            for count in (10, 11, 1_000):
                assert await log.within("ann", log.origin, count) == log.origin
            assert await log.within("ann", ann[6], 3) == ann[6]
            page = await log.read(Scope(owner="ann"), await log.within("ann", log.origin, 3))
            assert [entry.cursor for entry in page.entries] == list(ann[7:])

    run(work())


def test_a_page_ends_where_the_tail_does(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            ann = await log.append(numbered(0, 3, owner="ann"))
            await log.append(numbered(3, 7, owner="bob"))
            for scope in (Scope(owner="ann"), Scope(owner="ann", prefix="x"), Scope(owner="ann", coreid="y")):
                page = await log.read(scope, ann[-1])
                # Nothing more of the scope: whoever reads on does so in the tail, and waits there.
                assert (page.entries, page.after, page.more) == ([], log.tail.newest, False)
                assert log.tail.since(page.after) == []
        async with opener(tmp_path) as log:
            for after in (log.origin, ann[0], ann[-1]):
                page = await log.read(Scope(owner="ann"), after)
                assert (page.after, page.more) == (log.tail.newest, False)

    run(work())


def test_a_page_holds_nothing_that_the_tail_has_not_got(opener: LogOpener, tmp_path: Path) -> None:
    async def work() -> None:
        async with opener(tmp_path) as log:
            told = [log.origin]
            log.tail.listen(lambda entries: told.append(entries[-1].cursor))

            async def read() -> None:
                # At the end all the time, where rows are stored before the tail is told of them.
                after = log.origin
                while not writing.done():
                    page = await log.read(Scope(), after, 1_000)
                    assert log.order(page.after) <= log.order(told[-1])
                    assert all(log.order(entry.cursor) <= log.order(told[-1]) for entry in page.entries)
                    after = page.after

            async def write() -> None:
                for number in range(0, 30_000, 1_000):
                    await log.append(numbered(number, 1_000))

            writing = asyncio.ensure_future(write())
            await asyncio.gather(read(), read(), writing)

    run(work())


def test_a_listener_that_fails_is_nobody_elses_trouble(opener: LogOpener, tmp_path: Path) -> None:
    def fail(entries: Sequence[Entry]) -> None:
        raise RuntimeError("this listener is broken")

    async def work() -> None:
        async with opener(tmp_path) as log:
            seen: list[Entry] = []
            log.tail.listen(fail)
            log.tail.listen(seen.extend)
            waiting = asyncio.ensure_future(log.tail.wait_beyond(log.origin))
            await asyncio.sleep(0)
            cursors = await log.append(numbered(0, 2))
            await waiting
            assert [entry.cursor for entry in seen] == cursors

    run(work())
