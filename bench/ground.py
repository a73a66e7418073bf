"""Data folders as they are after a long time, made straight through the store's and the log's own interfaces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

from msgspec import structs

from bench.load.devices import device_id
from wirechamber.cli.folder import Folder, in_folder
from wirechamber.clock import SystemClock
from wirechamber.eventlog.base import EventLog
from wirechamber.eventlog.sqlite import open_sqlite_log
from wirechamber.model.accounts import User
from wirechamber.model.deliveries import Attempt, Settlement
from wirechamber.model.devices import Device
from wirechamber.model.events import Event
from wirechamber.model.ids import new_id

Made = TypeVar("Made")
# So much goes in one transaction, where the interface takes many at once.
BATCH = 1_000
# So many calls are under way at a time where it takes one: they share what can be shared.
AT_ONCE = 100
DETAIL = b'{"request":{"method":"POST","url":"http://127.0.0.1/in","body":"' + b"x" * 400 + b'"}}'


def in_log(folder: Path, work: Callable[[EventLog], Awaitable[Made]]) -> Made:
    """Does something with the log of a folder that no server holds."""

    async def opened() -> Made:
        async with open_sqlite_log(folder, durability="normal", clock=SystemClock()) as log:
            return await work(log)

    return asyncio.run(opened())


def devices(folder: Path, owner: str, numbers: Iterable[int]) -> None:
    """Registered devices of an owner, without keys."""
    now = now_ms()

    async def work(opened: Folder) -> None:
        made = [
            Device(id=device_id(number), created_at=now + number, owner=owner, name=f"device-{number}")
            for number in numbers
        ]
        for first in range(0, len(made), BATCH):
            await opened.devices.add_new(made[first : first + BATCH])

    in_folder(work, data=folder)


def users(folder: Path, count: int) -> list[str]:
    """So many users; a token of each."""
    now = now_ms()

    async def work(opened: Folder) -> list[str]:
        tokens: list[str] = []

        async def add(number: int) -> None:
            user = User(id=new_id(now), name=f"user-{number}", password="", created_at=now)
            await opened.store.users.add(user)
            tokens.append((await opened.access.issue(user, client="bench")).secret)

        await _all(add, range(count))
        return tokens

    return in_folder(work, data=folder)


def integrations(folder: Path, like: str, events: Iterable[str]) -> list[str]:
    """Integrations as one that there is, for other events; returns their ids."""

    async def work(opened: Folder) -> list[str]:
        made: list[str] = []
        record = await opened.store.integrations.get(like)
        assert record is not None

        async def add(event: str) -> None:
            made.append(new_id(now_ms()))
            await opened.store.integrations.add(structs.replace(record, id=made[-1], event=event))

        await _all(add, events)
        return made

    return in_folder(work, data=folder)


def forget_integrations(folder: Path, ids: Iterable[str]) -> None:
    """Removes integrations."""

    async def work(opened: Folder) -> None:
        await _all(opened.store.integrations.remove, ids)

    in_folder(work, data=folder)


def forget_devices(folder: Path, numbers: Iterable[int]) -> None:
    """Removes devices."""

    async def work(opened: Folder) -> None:
        await _all(opened.store.devices.remove, map(device_id, numbers))

    in_folder(work, data=folder)


def events(folder: Path, made: Iterable[Event]) -> None:
    """Stores events in the log."""

    async def work(log: EventLog) -> None:
        batch: list[Event] = []
        for event in made:
            batch.append(event)
            if len(batch) == BATCH:
                await log.append(batch)
                batch = []
        await log.append(batch)

    in_log(folder, work)


def an_event(owner: str, name: str, coreid: str = "api", data: str = "x" * 100) -> Event:
    """One that was just received."""
    now = now_ms()
    return Event(
        id=new_id(now), name=name, data=data, published_at=now, received_at=now, owner=owner, coreid=coreid,
        partition=coreid if coreid != "api" else owner, origin="api", device=None if coreid == "api" else coreid,
    )  # fmt: skip


def attempts(folder: Path, owner: str, integration: str, count: int) -> None:
    """Successful deliveries of an integration, as its log keeps them."""
    now = now_ms()

    async def work(opened: Folder) -> None:
        for first in range(0, count, BATCH):
            rows = tuple(
                Attempt(
                    id=new_id(now), delivery=new_id(now), integration=integration, owner=owner, event_id=new_id(now),
                    event_name="temperature", device=device_id(number % 100), coreid=device_id(number % 100), number=1,
                    started_at=now, duration_ms=5, ok=True, final=True, status=200, detail=DETAIL,
                )
                for number in range(first, min(first + BATCH, count))
            )  # fmt: skip
            await opened.store.deliveries.settle(Settlement(attempts=rows))

    in_folder(work, data=folder)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _all(work: Callable[[Made], Awaitable[object]], items: Iterable[Made]) -> None:
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
