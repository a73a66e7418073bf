"""What is written down every few seconds: traffic, signs of life, what was refused of each device, ended sessions.

Lost at a crash, it costs a few seconds of counters.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from wirechamber.clock import Clock
from wirechamber.errors import CloudError
from wirechamber.gateway.meter import Meter, rows
from wirechamber.gateway.publications import Publications
from wirechamber.gateway.roster import Roster
from wirechamber.gateway.slices import slices
from wirechamber.observe.logs import Seldom
from wirechamber.store.base import Store

_seldom = Seldom(structlog.get_logger("wirechamber.gateway"))

WRITE_EVERY_S = 5.0


class Books:
    """Writes it.

    Attributes:
        gone: Ids of sessions that are over, and still in the store.
    """

    def __init__(self, store: Store, clock: Clock, meter: Meter, roster: Roster, publications: Publications) -> None:
        self._store = store
        self._clock = clock
        self._meter = meter
        self._roster = roster
        self._publications = publications
        self.gone: list[str] = []

    async def run(self) -> None:
        """Writes for ever."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Writes what there is; what can't be written now is, the next time."""
        used = await self._meter.take()
        now, at = self._clock.monotonic(), self._clock.now()
        heard: dict[str, int] = {}
        async for links in slices(self._roster):
            for link in links:
                if link.heard > link.told and link.device is not None:
                    link.told = link.heard
                    heard[link.device.id] = at - int((now - link.heard) * 1000)
        gone, self.gone = self.gone, []
        refused, self._publications.refused_of = self._publications.refused_of, Counter()
        try:
            async for some in slices(list(used.items())):
                await self._store.usage.add(rows(dict(some), at))
                for key, _ in some:
                    del used[key]
            async for times in slices(heard.items()):
                await self._store.links.heard(dict(times))
            async for counts in slices(refused.items()):
                await self._store.links.refused(dict(counts))
                for device, _ in counts:
                    del refused[device]
            if gone:
                await self._store.sessions.remove(gone)
        except CloudError as problem:
            _seldom.warning("traffic_held", why=problem.description)
            self._meter.put_back(used)
            self._publications.refused_of += refused
            self.gone += gone
