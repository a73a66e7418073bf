"""Events on their way to the devices that subscribed to them.

Each event is matched once against the prefixes of its owner's devices. A device gets them in order, a few at a time,
and what it has not acknowledged is not forgotten: if it goes away, it gets the rest when it comes back, for as long as
the event's time to live lasts (at least once). A device that is behind reads the log from where it stopped; one that
has caught up is handed events as they come.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog

from wirechamber.clock import SteadyClock
from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor, Entry, EventLog, Scope
from wirechamber.gateway.keeper import Keeper
from wirechamber.gateway.link import Link
from wirechamber.model.events import Event
from wirechamber.model.links import HasHad, Subscription
from wirechamber.model.prefixes import Prefixes
from wirechamber.observe.logs import Seldom
from wirechamber.observe.tasks import Tasks

_seldom = Seldom(structlog.get_logger("wirechamber.gateway"))

# How many wait for one device in memory; the rest is read from the log when there is room again.
MAX_WAITING = 64
# How many a device is sent before it has acknowledged the first. Device OS takes bursts (device-protocol.md, Q28), its
# buffers are small.
OUTSTANDING = 4
# A device that was away looks back so far at most: beyond it, the time to live of all but a few events is over.
MAX_LOOK_BACK = 50_000
PAGE = 500
RETRY_S = 0.5
# Device OS tells its subscriptions in one burst (device-protocol.md, section 7.4).
SETTLE_S = 1.0

# Names that the firmware itself acts upon come from this cloud only, never through a subscription
# (device-protocol.md, section 10.2).
FIRMWARE = ("spark/", "particle/")


# In place of a cursor: what the store was told of a link may not have reached it.
_UNKNOWN = Cursor("?")


class Sent:
    """An event that was sent to a device and is not acknowledged yet."""

    __slots__ = ("before", "wanted")

    def __init__(self, before: Cursor, wanted: Sequence[Subscription]) -> None:
        # The position before it: from there the log is read when the device must get it again.
        self.before = before
        self.wanted = wanted


class Outbox:
    """What one device still has to get.

    Attributes:
        waiting: Events that were not sent yet, oldest first: the position before each, and the subscriptions that
            want it.
        sent: Events that were sent and not acknowledged, oldest first.
        behind: Everything up to here was lined up; what came later must be read from the log. None: nothing is missing.
        reading: The log is being read for it.
        settling: Runs while it is still telling what it wants.
    """

    __slots__ = ("behind", "reading", "sent", "settling", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[Cursor, Event, list[Subscription]]] = deque()
        self.sent: dict[Sent, None] = {}
        self.behind: Cursor | None = None
        self.reading = False
        self.settling: asyncio.TimerHandle | None = None


class Outboxes:
    """The outboxes of all devices that are linked and have subscribed to something.

    Args:
        send: Sends an event to a device; what it is given as tag comes back through `acknowledged` or `unanswered`.

    Attributes:
        noted: A cursor up to which the store knows of every device that is linked what it has not had yet. Whoever
            starts after this process must look for events from here on.
        delivered: Events that devices acknowledged.
        expired: Events whose time to live was over before the device had them.
        too_large: Events that no message to the device can hold.
    """

    def __init__(
        self,
        log: EventLog,
        clock: SteadyClock,
        tasks: Tasks,
        send: Callable[[Link, Event, Sequence[Subscription], Sent], bool],
    ) -> None:
        self._log = log
        self._clock = clock
        self._send = send
        self._owners: dict[str, Prefixes[tuple[Link, Subscription]]] = {}
        self._tasks = tasks
        self._reading: set[asyncio.Task[None]] = set()
        # Links of which the store does not know, or may not know, how far they have come.
        self._unsettled: dict[Link, None] = {}
        self._newest = self.noted = log.tail.newest
        self.delivered = 0
        self.expired = 0
        self.too_large = 0
        self._end_listening = log.tail.listen(self._arrived)

    def close(self) -> None:
        """Takes no more."""
        self._end_listening()
        for task in self._reading:
            task.cancel()

    # --- who wants what ---

    def join(self, link: Link, owner: str | None, subscriptions: Iterable[Subscription]) -> None:
        """From now on, the device gets what its owner's events bring under these prefixes."""
        if owner:
            prefixes = self._owners.setdefault(owner, Prefixes())
            for subscription in subscriptions:
                prefixes.add(subscription.prefix, (link, subscription))
        if link.outbox is None:
            link.outbox = Outbox()

    def leave(self, link: Link, owner: str | None) -> None:
        """The device gets nothing more of this owner's."""
        prefixes = self._owners.get(owner or "")
        if prefixes is None:
            return
        for subscription in link.subscriptions:
            prefixes.discard(subscription.prefix, (link, subscription))
        if not prefixes:
            del self._owners[owner or ""]

    def away(self, link: Link) -> Cursor:
        """The device went away; returns where it goes on when it is back."""
        outbox, link.outbox = link.outbox, None
        at = self._log.tail.newest
        if outbox is not None:
            if outbox.settling is not None:
                outbox.settling.cancel()
            at = self._oldest(outbox) or at
        link.behind = link.noted = at
        self._unsettled.pop(link, None)
        return at

    def back(self, link: Link) -> None:
        """The device is back: it gets what it has missed and what comes."""
        outbox = link.outbox
        if outbox is None:
            outbox = link.outbox = Outbox()
        outbox.behind, link.behind = link.behind, None
        self._unsettled[link] = None
        self._go_on(link, outbox)

    def settle(self, link: Link) -> None:
        """The device is telling what it wants: what it missed waits until it has told all."""
        outbox = link.outbox
        if outbox is None or (outbox.behind is None and link.behind is None):
            return
        if link.behind is not None:
            outbox.behind, link.behind = link.behind, None
        if outbox.settling is not None:
            outbox.settling.cancel()
        self._unsettled[link] = None
        outbox.settling = asyncio.get_running_loop().call_later(SETTLE_S, self._settled, link, outbox)

    def _settled(self, link: Link, outbox: Outbox) -> None:
        outbox.settling = None
        if link.outbox is outbox:
            self._go_on(link, outbox)

    def note(self, keeper: Keeper) -> None:
        """Has the store told how far devices are that have not got everything yet."""
        mark = self._newest
        all_stored = True

        def stored(link: Link, ok: bool) -> None:
            nonlocal all_stored
            if not ok:
                all_stored = False
                link.noted = _UNKNOWN
                self._unsettled[link] = None

        def done(ok: bool) -> None:
            if ok and all_stored and self._log.order(mark) > self._log.order(self.noted):
                self.noted = mark

        for link in list(self._unsettled):
            outbox, device = link.outbox, link.device
            if outbox is None or device is None:
                del self._unsettled[link]
                continue
            oldest = self._oldest(outbox)
            if oldest != link.noted:
                # Empty: everything up to the cursor of all links.
                link.noted = oldest
                keeper.keep(HasHad(device.id, oldest or ""), functools.partial(stored, link))
            if oldest is None:
                del self._unsettled[link]
        # Behind these, and behind what was kept of devices that went away before.
        keeper.when_stored(done)

    # --- what comes and goes ---

    def acknowledged(self, link: Link, sent: Sent) -> None:
        """The device has the event."""
        outbox = link.outbox
        if outbox is not None and sent in outbox.sent:
            del outbox.sent[sent]
            self.delivered += 1
            self._go_on(link, outbox)

    def _arrived(self, entries: Sequence[Entry]) -> None:
        owners = self._owners
        before, self._newest = self._newest, entries[-1].cursor
        if not owners:
            return
        for entry in entries:
            event = entry.event
            prefixes = owners.get(event.owner)
            matched = () if prefixes is None else prefixes.match(event.name)
            if matched and _may_reach_devices(event):
                for link, wanted in _by_link(matched, event).items():
                    outbox = link.outbox
                    if outbox is None or not link.online or outbox.behind is not None:
                        continue
                    if len(outbox.waiting) >= MAX_WAITING:
                        outbox.behind = before
                    else:
                        outbox.waiting.append((before, event, wanted))
                        self._unsettled[link] = None
                        self._go_on(link, outbox)
            before = entry.cursor

    def _go_on(self, link: Link, outbox: Outbox) -> None:
        """Sends what there is room for, and reads on when that is little."""
        now = self._clock.steady()
        while outbox.waiting and len(outbox.sent) < OUTSTANDING and link.online:
            before, event, wanted = outbox.waiting.popleft()
            if event.received_at + event.ttl * 1000 < now:
                self.expired += 1
                continue
            sent = Sent(before, wanted)
            outbox.sent[sent] = None
            if not self._send(link, event, wanted, sent):
                del outbox.sent[sent]
                self.too_large += 1
        if (
            outbox.behind is not None
            and outbox.settling is None
            and not outbox.reading
            and len(outbox.waiting) < MAX_WAITING // 2
        ):
            outbox.reading = True
            task = self._tasks.spawn(self._catch_up(link, outbox), "device-catch-up")
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _catch_up(self, link: Link, outbox: Outbox) -> None:
        try:
            while outbox.behind is not None and len(outbox.waiting) < MAX_WAITING and link.outbox is outbox:
                await self._read_on(link, outbox, outbox.behind)
        finally:
            outbox.reading = False
        if link.outbox is outbox and not link.closed:
            self._go_on(link, outbox)

    async def _read_on(self, link: Link, outbox: Outbox, after: Cursor) -> None:
        device = link.device
        if device is None or not device.owner or not link.subscriptions:
            outbox.behind = None
            return
        entries = self._log.tail.since(after, PAGE)
        more = False
        before = position = after
        if entries is None:
            newest = self._log.tail.newest
            try:
                after = await self._log.within(device.owner, after, MAX_LOOK_BACK)
                page = await self._log.read(Scope(owner=device.owner), after, PAGE)
            except CloudError as problem:
                _seldom.warning("device_catch_up", why=problem.description)
                await asyncio.sleep(RETRY_S)
                return
            # At the end of the owner's events, the newest of all is where the tail goes on.
            entries, more = page.entries, True
            position = page.after if page.more else max(page.after, newest, key=self._log.order)
        elif entries:
            position, more = entries[-1].cursor, True
        if link.outbox is not outbox:
            return
        for entry in entries:
            event = entry.event
            if event.owner == device.owner and _may_reach_devices(event):
                wanted = [each for each in link.subscriptions if _wants(each, event)]
                if wanted:
                    if len(outbox.waiting) >= MAX_WAITING:
                        return
                    outbox.waiting.append((before, event, wanted))
            outbox.behind = before = entry.cursor
        # The tail had nothing beyond: whatever comes from now on is handed over as it comes.
        outbox.behind = position if more else None

    @staticmethod
    def _oldest(outbox: Outbox) -> Cursor | None:
        first = next(iter(outbox.sent), None)
        if first is not None:
            return first.before
        return outbox.waiting[0][0] if outbox.waiting else outbox.behind


def _may_reach_devices(event: Event) -> bool:
    return not event.late and not event.name.startswith(FIRMWARE)


def _wants(subscription: Subscription, event: Event) -> bool:
    return event.name.startswith(subscription.prefix) and (
        subscription.device is None or subscription.device == event.coreid
    )


def _by_link(matched: Sequence[tuple[Link, Subscription]], event: Event) -> dict[Link, list[Subscription]]:
    found: dict[Link, list[Subscription]] = {}
    for link, subscription in matched:
        if subscription.device is None or subscription.device == event.coreid:
            found.setdefault(link, []).append(subscription)
    return found
