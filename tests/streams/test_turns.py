"""Whose page of the past is read next."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.delivery.builders import OWNER, an_event
from wirechamber.clock import SystemClock
from wirechamber.errors import Unavailable
from wirechamber.eventlog.base import Cursor, Page, Scope
from wirechamber.eventlog.sqlite import SqliteEventLog, open_sqlite_log
from wirechamber.streams.past import KEPT_BYTES, PAGES_AT_ONCE, Past
from wirechamber.streams.resume import Start, history
from wirechamber.streams.turns import Turns

AT_ONCE = PAGES_AT_ONCE


def test_owners_take_turns_however_many_one_of_them_waits_for() -> None:
    order: list[str] = []
    running = 0

    async def read(turns: Turns, owner: str) -> None:
        nonlocal running
        async with turns.turn(owner):
            running += 1
            assert running <= AT_ONCE
            order.append(owner)
            await asyncio.sleep(0)
            running -= 1

    async def work() -> None:
        turns = Turns(AT_ONCE, 1_000)
        loud = [asyncio.ensure_future(read(turns, "loud")) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.gather(*(read(turns, owner) for owner in ("ann", "bob")))
        assert order.index("ann") < AT_ONCE + 4
        assert order.index("bob") < AT_ONCE + 4
        await asyncio.gather(*loud)
        assert turns.waiting == 0

    asyncio.run(work())


def test_who_comes_alone_waits_for_nobody_and_lines_are_counted() -> None:
    async def work() -> None:
        turns = Turns(50, 1_000)
        began = asyncio.get_running_loop().time()
        for _ in range(50):
            async with turns.turn("ann"):
                assert turns.waiting == 0
        assert asyncio.get_running_loop().time() - began < 5
        waiting = [asyncio.ensure_future(_once(turns, owner)) for owner in ["ann"] * 30 + ["bob"] * 3]
        await asyncio.sleep(0)
        assert (turns.line("ann"), turns.line("bob"), turns.waiting) == (30, 3, 33)
        await asyncio.gather(*waiting)
        assert (turns.line("ann"), turns.waiting) == (0, 0)

    asyncio.run(work())


async def _once(turns: Turns, owner: str) -> None:
    async with turns.turn(owner):
        pass


def test_who_goes_away_while_waiting_takes_no_place_with_it() -> None:
    async def hold(turns: Turns, until: asyncio.Event) -> None:
        async with turns.turn("ann"):
            await until.wait()

    async def work() -> None:
        turns, until = Turns(AT_ONCE, 1_000), asyncio.Event()
        holding = [asyncio.ensure_future(hold(turns, until)) for _ in range(AT_ONCE)]
        waiting = [asyncio.ensure_future(hold(turns, until)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert turns.waiting == 0
        until.set()
        await asyncio.gather(*holding)
        # All places are there again.
        await asyncio.wait_for(asyncio.gather(*(hold(turns, until) for _ in range(10))), 10)

    asyncio.run(work())


class Counted:
    """A log that counts its reads, or fails them."""

    def __init__(self, log: SqliteEventLog) -> None:
        self._log = log
        self.tail = log.tail
        self.reads: list[Cursor] = []
        self.away = False

    async def read(self, scope: Scope, after: Cursor, limit: int) -> Page:
        self.reads.append(after)
        if self.away:
            raise Unavailable("away")
        return await self._log.read(scope, after, limit)


async def _past(folder: Path, count: int, data: str = "x") -> None:
    async with open_sqlite_log(folder, durability="normal", clock=SystemClock()) as log:
        await log.append([an_event("temp", data, id=f"{number:032x}") for number in range(count)])


def test_a_page_is_read_once_for_all_who_come_back_there(tmp_path: Path) -> None:
    async def work() -> None:
        await _past(tmp_path, 1_200)
        async with open_sqlite_log(tmp_path, durability="normal", clock=SystemClock()) as log:
            counted = Counted(log)
            past = Past(counted)  # type: ignore[arg-type]

            async def resume() -> bytes:
                start = Start(log, "0")
                return b"".join([piece async for piece in history(past, Scope(owner=OWNER), start)])

            seen = await asyncio.gather(*(resume() for _ in range(200)))
            assert len(set(seen)) == 1
            assert seen[0].count(b"\nevent: temp\n") == 1_200
            assert len(counted.reads) == len(set(counted.reads)) <= 4

    asyncio.run(work())


def test_what_is_kept_is_bounded_and_nobody_waits_for_what_nobody_wants(tmp_path: Path) -> None:
    async def work() -> None:
        await _past(tmp_path, 1_500, "x" * 16_000)
        async with open_sqlite_log(tmp_path, durability="normal", clock=SystemClock()) as log:
            counted = Counted(log)
            past = Past(counted)  # type: ignore[arg-type]
            start, longest = Start(log, "0"), 0
            async for piece in history(past, Scope(owner=OWNER), start):
                longest = max(longest, len(piece))
                assert past._kept_bytes <= KEPT_BYTES
            assert longest < 128 * 1024
            before = len(counted.reads)
            gone = [
                asyncio.ensure_future(past.after(Scope(owner=OWNER, prefix=f"n{number}"), log.origin))
                for number in range(200)
            ]
            await asyncio.sleep(0)
            for task in gone:
                task.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
            # Only those whose turn it was at once were read.
            assert len(counted.reads) - before <= AT_ONCE
            assert past._reading == {}

    asyncio.run(work())


def test_a_log_that_is_away_is_told_to_everybody_who_waits(tmp_path: Path) -> None:
    async def work() -> None:
        await _past(tmp_path, 10)
        async with open_sqlite_log(tmp_path, durability="normal", clock=SystemClock()) as log:
            counted = Counted(log)
            past = Past(counted)  # type: ignore[arg-type]
            counted.away = True
            waiting = [past.after(Scope(owner=OWNER), log.origin) for _ in range(5)]
            told = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(problem, Unavailable) for problem in told)
            counted.away = False
            part = await past.after(Scope(owner=OWNER), log.origin)
            assert part is not None
            assert part.upto == log.tail.newest

    asyncio.run(work())
