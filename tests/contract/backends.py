"""The backends that the contract suites run against. One that is added joins every test by one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from wirechamber.clock import SystemClock
from wirechamber.eventlog.base import EventLog
from wirechamber.eventlog.sqlite import open_sqlite_log
from wirechamber.secrets import Vault
from wirechamber.store.base import Store
from wirechamber.store.sqlite.store import open_sqlite_store

LogOpener = Callable[[Path], AbstractAsyncContextManager[EventLog]]
StoreOpener = Callable[[Path], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def _sqlite_log(folder: Path) -> AsyncIterator[EventLog]:
    async with open_sqlite_log(folder, durability="full", clock=SystemClock()) as log:
        yield log


@asynccontextmanager
async def _sqlite_store(folder: Path) -> AsyncIterator[Store]:
    async with open_sqlite_store(folder, Vault.open(folder), clock=SystemClock()) as store:
        yield store


LOGS: dict[str, LogOpener] = {"sqlite": _sqlite_log}
STORES: dict[str, StoreOpener] = {"sqlite": _sqlite_store}


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs a test's coroutine, with a bound on its time."""
    asyncio.run(asyncio.wait_for(work, 60))
