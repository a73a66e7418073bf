"""Work of some milliseconds and more that a tenant can ask for: in threads of its own, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

# What is computed here lets the interpreter go on meanwhile (reading and using private keys). Few, since cores are.
AT_A_TIME = 2
_threads = ThreadPoolExecutor(AT_A_TIME, "computing")


async def computed(work: Callable[[], Result]) -> Result:
    """What the work returns, computed in a thread."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
