"""Parts without which the cloud must not go on: when one ends by an error of ours, somebody is told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.get_logger("wirechamber")


def watched(failed: asyncio.Future[str], work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Runs a part as a task; `failed` gets its name when it fails."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.critical("part_failed", part=name, exc_info=task.exception())
            if not failed.done():
                failed.set_result(name)

    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(ended)
    return task
