"""Which devices are linked, and what the registry says about them at this moment."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from wirechamber.clock import SteadyClock
from wirechamber.eventlog.base import Cursor
from wirechamber.gateway.faults import Faults
from wirechamber.gateway.intake import Arrival
from wirechamber.gateway.keeper import Keeper
from wirechamber.gateway.link import Link
from wirechamber.gateway.outbox import Outboxes
from wirechamber.gateway.slices import slices
from wirechamber.model.devices import Device
from wirechamber.model.events import Event
from wirechamber.model.links import CameOnline, HasHad, KeepAlive, WentOffline
from wirechamber.services.presence import idle_limit, status_event
from wirechamber.store.base import Store


class Status(Arrival):
    """Tells the owner that a device came or went."""

    __slots__ = ("_clock", "_link", "_online")

    def __init__(self, link: Link, clock: SteadyClock, *, online: bool) -> None:
        super().__init__()
        self._link = link
        self._clock = clock
        self._online = online

    def make(self) -> Event:
        """As `Arrival.make`."""
        assert self._link.device is not None
        return status_event(self._link.device, self._clock, online=self._online)


class Roster:
    """Links by device, one each.

    Args:
        tell: Takes an event on its way to the log.
        discard: Ends a session whose keys are not good any more.
    """

    def __init__(
        self,
        store: Store,
        clock: SteadyClock,
        keeper: Keeper,
        outboxes: Outboxes,
        *,
        tell: Callable[[Arrival], object],
        discard: Callable[[Link], None],
        faults: Faults,
    ) -> None:
        self._store = store
        self._clock = clock
        self._keeper = keeper
        self._outboxes = outboxes
        self._tell = tell
        self._discard = discard
        self._faults = faults
        self._links: dict[str, Link] = {}
        # What the registry's state was when it was last looked at.
        self._seen = -1
        self._revision = 0
        self.online = 0
        # Of these, those in queue mode that have not said anything for a while.
        self.asleep = 0
        # Up to where devices had their events that were linked when the last process ended, unless the store says less.
        self.since: Cursor | None = None

    def get(self, device: str) -> Link | None:
        """The device's link, if it has one."""
        return self._links.get(device)

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links.values())

    def __len__(self) -> int:
        return len(self._links)

    # --- links ---

    def put(self, device_id: str, link: Link) -> Link | None:
        """This is the device's link from now on; returns the one it had."""
        old = self._links.get(device_id)
        self._links[device_id] = link
        return None if old is link else old

    def remove(self, device_id: str, link: Link) -> None:
        """The link is no more; another one of the device stays."""
        if self._links.get(device_id) is link:
            del self._links[device_id]

    # --- presence ---

    def came(self, link: Link) -> None:
        """Something authentic came from the device: it is there."""
        device = link.device
        if link.online or device is None:
            return
        link.online = True
        self.online += 1
        link.idle_limit = idle_limit(device.platform_id, link.keep_alive)
        self._tell(Status(link, self._clock, online=True))
        self._keeper.keep(CameOnline(device=device.id, at=self._clock.now(), address=link.host))

    def restored(self, link: Link, keep_alive: KeepAlive | None) -> None:
        """The device was online when the process ended, and nobody was told otherwise."""
        assert link.device is not None
        link.online = True
        self.online += 1
        self.kept_alive(link, keep_alive)

    def kept_alive(self, link: Link, keep_alive: KeepAlive | None) -> None:
        """The device told, now or long ago, how it is kept in touch with."""
        assert link.device is not None
        link.keep_alive = keep_alive
        link.idle_limit = idle_limit(link.device.platform_id, keep_alive)

    def slept(self, link: Link) -> None:
        """The device does not listen before it says something again: what is for it waits, as if it were away."""
        if link.asleep or link.device is None:
            return
        link.asleep = True
        self.asleep += 1
        if link.subscriptions:
            self._keeper.keep(HasHad(link.device.id, self._outboxes.away(link)))

    def woke(self, link: Link) -> None:
        """The device said something, and listens: it gets what waited."""
        if link.asleep:
            link.asleep = False
            self.asleep -= 1
            if link.subscriptions:
                self._outboxes.back(link)

    def went(self, link: Link) -> None:
        """The device is gone, as far as anybody can tell."""
        device = link.device
        if not link.online or device is None:
            return
        self.asleep -= link.asleep
        link.online = link.asleep = False
        self.online -= 1
        behind = None if link.dormant else self._outboxes.away(link)
        self._tell(Status(link, self._clock, online=False))
        self._keeper.keep(WentOffline(device=device.id, at=self._clock.now(), resume_from=behind))

    def gone(self, device: Device, resume_from: str | None) -> None:
        """The device was online when the process ended, and has no session to come back with.

        Args:
            resume_from: What the store knows of how far it has had its events.
        """
        now = self._clock.now()
        self._tell(Arrival(status_event(device, self._clock, online=False)))
        self._keeper.keep(WentOffline(device=device.id, at=now, resume_from=resume_from or self.since))

    async def left_at(self, device_id: str) -> Cursor | None:
        """Up to where a device has had its events that is not linked at present; None if that was never told."""
        link = self._links.get(device_id)
        if link is not None and not link.dormant:
            return None
        record = await self._store.links.get(device_id)
        if record is None or record.resume_from is None:
            return None
        return Cursor(record.resume_from) if record.resume_from else self.since

    # --- what the registry says ---

    async def begin(self) -> None:
        """From here on, changes matter; whatever is read afterwards has those of before."""
        seen = self._store.revision()
        self._revision = (await self._store.devices.changes(sys.maxsize)).revision
        self._seen = seen

    async def refresh(self) -> None:
        """Takes in what has changed in the registry since the last time, made by whichever process."""
        seen = self._store.revision()
        if seen == self._seen:
            return
        changes = await self._store.devices.changes(self._revision)
        async for changed in slices(changes.changed):
            for device in changed:
                link = self._links.get(device.id)
                if link is not None and link.device is not None:
                    self._faults.guard(link, "registry", partial(self._change, link, link.device, device))
        gone: Iterable[str] = changes.removed
        if changes.whole:
            gone = self._links.keys() - {device.id for device in changes.changed}
        for device_id in (*gone, *changes.rekeyed):
            link = self._links.get(device_id)
            if link is not None and not await self._still_good(device_id, link):
                self._faults.guard(link, "registry", partial(self._discard, link))
        self._revision = changes.revision
        self._seen = seen

    async def _still_good(self, device_id: str, link: Link) -> bool:
        """Whether the link was made with the key that the device has now."""
        if link.reliable:
            keys = await self._store.keys.get(device_id)
            return keys is not None and keys.public_key == link.public_key
        # With a key, the store removes the sessions that were made with it.
        return await self._store.sessions.get(link.id) is not None

    def _change(self, link: Link, old: Device, new: Device) -> None:
        if old.owner != new.owner and link.subscriptions:
            self._outboxes.leave(link, old.owner)
            self._outboxes.start_anew(link)
            self._outboxes.join(link, new.owner, link.subscriptions)
        link.device = new
