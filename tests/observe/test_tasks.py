"""How background tasks end is seen."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

import wirechamber
from wirechamber.eventlog.base import Cursor
from wirechamber.gateway.accounting import Accounting
from wirechamber.observe import tasks
from wirechamber.observe.tasks import Tasks, ended

SOURCE = Path(wirechamber.__file__).parent
# The clients that run in other people's programs and in commands: their tasks are not the cloud's.
NOT_THE_CLOUD = {SOURCE / "device", SOURCE / "cli"}
STARTS_TASKS = {"create_task", "ensure_future", "TaskGroup"}


def run(scenario: Callable[[Tasks], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await scenario(Tasks())

    asyncio.run(main())


def test_no_task_is_started_outside_the_one_module_that_sees_how_it_ends() -> None:
    found = [
        f"{file.relative_to(SOURCE)}:{node.lineno}"
        for file in SOURCE.rglob("*.py")
        if file != SOURCE / "observe" / "tasks.py" and not NOT_THE_CLOUD & set(file.parents)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in STARTS_TASKS
    ]
    assert found == []


def test_nothing_waits_in_the_way_that_loses_being_cancelled() -> None:
    # Until Python 3.12 `wait_for` returns as if nothing were when what it waits for is done in the same moment.
    found = [
        f"{file.relative_to(SOURCE)}:{node.lineno}"
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "wait_for"
    ]
    assert found == []


@pytest.mark.parametrize("turns", range(6))
def test_what_writes_sessions_down_ends_whenever_it_is_told_to(turns: int) -> None:
    async def scenario(tasks: Tasks) -> None:
        writing = Accounting(cast(Any, None), cast(Any, None), cast(Any, None), lambda: Cursor("0"))
        task = tasks.essential(writing.run(), "session state")
        await asyncio.sleep(0.01)
        writing.soon()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=10)
        assert done

    run(scenario)


def test_an_essential_task_that_fails_is_named() -> None:
    async def scenario(tasks: Tasks) -> None:
        async def broken() -> None:
            raise ValueError("a fault of ours")

        tasks.essential(broken(), "dispatch")
        assert await tasks.failed == "dispatch"

    run(scenario)


def test_a_loop_that_fails_is_started_again_and_counted(monkeypatch: Any) -> None:
    monkeypatch.setattr(tasks, "FIRST_RESTART_S", 0.001)

    async def scenario(tasks: Tasks) -> None:
        begun = 0
        healthy = asyncio.Event()

        async def loop() -> None:
            nonlocal begun
            begun += 1
            if begun < 4:
                raise ValueError("a fault of ours")
            healthy.set()
            await asyncio.Event().wait()

        task = tasks.restarting(loop, "keep-alive")
        await healthy.wait()
        assert tasks.restarts == {"keep-alive": 3}
        assert not tasks.failed.done()
        await ended(task)
        assert task.cancelled()

    run(scenario)


def test_a_short_task_that_fails_is_counted_and_harms_nobody() -> None:
    async def scenario(tasks: Tasks) -> None:
        async def broken() -> None:
            raise ValueError("a fault of ours")

        task = tasks.spawn(broken(), "look-up")
        await asyncio.wait((task,))
        await asyncio.sleep(0)
        assert tasks.errors == {"look-up": 1}
        assert not tasks.failed.done()

    run(scenario)
