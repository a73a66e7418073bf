"""Work on many things, a slice at a time: nobody waits for all of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

# Things that take a few microseconds each.
SLICE = 2_000

Item = TypeVar("Item")


async def slices(items: Iterable[Item], size: int = SLICE) -> AsyncIterator[list[Item]]:
    """What is there now, in lists of at most `size`; between them, everything else has its turn.

    What changes in the meantime is not seen: whoever asks looks whether a thing is still what it was.
    """
    rest = iter(list(items))
    following = list(itertools.islice(rest, size))
    while following:
        yield following
        following = list(itertools.islice(rest, size))
        if following:
            await asyncio.sleep(0)
