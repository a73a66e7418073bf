"""Events on their way to the devices that subscribed to them.

Each event is matched once against the prefixes of its owner's devices. A device gets them in order, a few at a time,
and what it has not acknowledged is not forgotten: if it goes away, it gets the rest when it comes back, for as long as
the event's time to live lasts (at least once). A device that is behind is looked after from where it stopped
(`backlog`); one that has caught up is handed events as they come.

Neither an event for very many devices nor very many devices that come back hold the loop: it is all done in slices.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog

from wirechamber.clock import SteadyClock
from wirechamber.eventlog.base import Cursor, Entry, EventLog
from wirechamber.gateway.backlog import Backlog, may_reach_devices, wants
from wirechamber.gateway.faults import Faults
from wirechamber.gateway.keeper import Keeper
from wirechamber.gateway.link import Link
from wirechamber.gateway.pages import Pages
from wirechamber.gateway.slices import slices
from wirechamber.gateway.undelivered import Suspects, Undelivered, Unsent, Why
from wirechamber.gateway.wishes import Wishes
from wirechamber.model.events import Event
from wirechamber.model.links import HasHad, Subscription
from wirechamber.observe.logs import Seldom
from wirechamber.observe.tasks import Tasks

_seldom = Seldom(structlog.get_logger("wirechamber.gateway"))

# How many wait for one device in memory, and how many bytes of data; the rest is looked for when there is room again.
MAX_WAITING = 64
MAX_WAITING_BYTES = 64 * 1024
# How many a device is sent before it has acknowledged the first. Over TCP Device OS takes bursts (device-protocol.md,
# Q28), its buffers are small. Over UDP one that is lost would be overtaken by those behind it.
OUTSTANDING = 4
OUTSTANDING_UDP = 1
# Where too much waits in a device's exchanges already.
RETRY_S = 0.5
# Device OS tells its subscriptions in one burst (device-protocol.md, section 7.4).
SETTLE_S = 1.0
# What is done in one turn of the loop, in messages to devices: no more than datagrams are read in one, or the devices'
# acknowledgements find the socket's buffer full. Looking at a device that wants nothing takes a small part of that.
SLICE = 32
GLANCES = 16
# Events that were not handed out yet. Beyond this they are handed out at once, whatever it takes: the loop is far
# behind anyway, and memory is bounded.
MAX_PENDING = 16_384
MAX_PENDING_BYTES = 32 * 1024 * 1024

# In place of a cursor: what the store was told of a link may not have reached it.
_UNKNOWN = Cursor("?")


class Sent:
    """An event that was sent to a device and is not acknowledged yet.

    Attributes:
        messages: How many carry it: as many as it has forms that the device's handlers want.
    """

    __slots__ = ("at", "before", "event", "messages", "wanted")

    def __init__(self, before: Cursor, event: str, wanted: Sequence[Subscription], at: float) -> None:
        # The position before it: from there the log is read when the device must get it again.
        self.before = before
        # Its id.
        self.event = event
        self.wanted = wanted
        # When it was sent first, seconds, monotonic.
        self.at = at
        self.messages = 1


class Outbox:
    """What one device still has to get.

    Attributes:
        waiting: Events that were not sent yet, oldest first: the position before each, and the subscriptions that
            want it.
        bytes: Of their data.
        sent: Events that were sent and not acknowledged, oldest first.
        behind: Everything up to here was lined up; what came later must be looked for. None: nothing is missing.
        seen: The order of the newest event that was lined up, or of what was newest when nothing was missing.
        settling: Runs while it is still telling what it wants.
        reading: A page of the log is being read for it.
    """

    __slots__ = ("behind", "bytes", "reading", "seen", "sent", "settling", "waiting")

    def __init__(self, seen: int) -> None:
        self.waiting: deque[tuple[Cursor, Event, list[Subscription]]] = deque()
        self.bytes = 0
        self.sent: dict[Sent, None] = {}
        self.behind: Cursor | None = None
        self.seen = seen
        self.settling: asyncio.TimerHandle | None = None
        self.reading = False

    @property
    def room(self) -> int:
        """How many events may be lined up."""
        return MAX_WAITING - len(self.waiting) if self.bytes < MAX_WAITING_BYTES else 0

    def line_up(self, before: Cursor, event: Event, wanted: list[Subscription]) -> None:
        """Adds an event that is newer than all."""
        self.waiting.append((before, event, wanted))
        self.bytes += len(event.data or "")

    def put_back(self, before: Cursor, event: Event, wanted: list[Subscription]) -> None:
        """Puts an event back that was taken: it is the oldest."""
        self.waiting.appendleft((before, event, wanted))
        self.bytes += len(event.data or "")

    def next(self) -> tuple[Cursor, Event, list[Subscription]]:
        """Takes the oldest event that waits."""
        found = self.waiting.popleft()
        self.bytes -= len(found[1].data or "")
        return found

    def oldest(self) -> Cursor | None:
        """The position before everything that the device has not acknowledged; None: it has had everything."""
        first = next(iter(self.sent), None)
        if first is not None:
            return first.before
        return self.waiting[0][0] if self.waiting else self.behind


class Outboxes:
    """The outboxes of all devices that are linked and have subscribed to something.

    Args:
        send: Sends an event to a device; what it is given as tag comes back through `acknowledged` or `unanswered`.

    Attributes:
        noted: A cursor up to which the store knows of every device that is linked what it has not had yet. Whoever
            starts after this process must look for events from here on.
        delivered: Events that devices acknowledged.
        expired: Events whose time to live was over before the device had them.
        undelivered: Those that devices did not get for another reason.
    """

    def __init__(
        self,
        log: EventLog,
        clock: SteadyClock,
        tasks: Tasks,
        faults: Faults,
        send: Callable[[Link, Event, Sequence[Subscription], Sent], Unsent | None],
    ) -> None:
        self._log = log
        self._clock = clock
        self._faults = faults
        self._send = send
        self._owners: dict[str, Wishes] = {}
        self._backlog = Backlog(log)
        self._pages = Pages(self._backlog, tasks, faults)
        # Links of which the store does not know, or may not know, how far they have come.
        self._unsettled: dict[Link, None] = {}
        self.noted = log.tail.newest
        self.delivered = 0
        self.expired = 0
        self.undelivered = Undelivered()
        self._suspects = Suspects()
        # Events up to here have been handed out; the next one is being handed out, to those who wanted it then.
        self._at = log.tail.newest
        self._giving: Entry | None = None
        self._takers: Sequence[Link] = ()
        self._given = 0
        # Those that follow, and bytes of their data.
        self._pending: deque[Entry] = deque()
        self._pending_bytes = 0
        # Outboxes in which something can go on.
        self._line: dict[Link, None] = {}
        self._turn: asyncio.Handle | None = None
        self._working = False
        self._closed = False
        self._end_listening = log.tail.listen(self._arrived)

    def close(self) -> None:
        """Takes no more."""
        self._closed = True
        self._end_listening()
        if self._turn is not None:
            self._turn.cancel()
        self._pages.close()

    # --- who wants what ---

    def join(self, link: Link, owner: str | None, subscriptions: Iterable[Subscription]) -> None:
        """From now on, the device gets what its owner's events bring under these prefixes."""
        if owner:
            wishes = self._owners.setdefault(owner, Wishes())
            for subscription in subscriptions:
                wishes.add(subscription, link)
            if not wishes:
                del self._owners[owner]
        if link.outbox is None:
            link.outbox = Outbox(self._log.order(self._reach))
        if link.noted is not None:
            # What the store knows of it will be out of date.
            self._unsettled[link] = None

    def leave(self, link: Link, owner: str | None) -> None:
        """The device gets nothing more of this owner's."""
        wishes = self._owners.get(owner or "")
        if wishes is None:
            return
        for subscription in link.subscriptions:
            wishes.discard(subscription, link)
        if not wishes:
            del self._owners[owner or ""]

    def start_anew(self, link: Link) -> None:
        """Nothing of what the device has not had yet is for it any more: it has another owner."""
        if link.outbox is not None:
            self.away(link)
            link.behind = None

    def away(self, link: Link) -> Cursor:
        """The device went away; returns where it goes on when it is back."""
        outbox, link.outbox = link.outbox, None
        if outbox is None and link.behind is not None:
            # It was away before.
            return link.behind
        at = self._reach
        if outbox is not None:
            if outbox.settling is not None:
                outbox.settling.cancel()
            if outbox.seen < self._log.order(at):
                # It may have its turn yet with what is being handed out.
                at = self._at
            at = outbox.oldest() or at
        link.behind = link.noted = at
        self._unsettled.pop(link, None)
        return at

    def broke(self, link: Link) -> None:
        """The device's connection ended, by its doing: maybe by what it was sent and did not acknowledge."""
        if link.outbox is not None and link.device is not None:
            self._suspects.ended(link.device.id, [sent.event for sent in link.outbox.sent])

    def unanswered(self, link: Link, sent: Sent) -> None:
        """The event was not acknowledged, however often it was sent."""
        if link.device is not None and link.heard > sent.at:
            # The device is there all the same.
            self._suspects.ended(link.device.id, [sent.event])

    def back(self, link: Link) -> None:
        """The device is back: it gets what it has missed and what comes."""
        outbox = link.outbox
        if outbox is None:
            outbox = link.outbox = Outbox(0)
        outbox.behind, link.behind = link.behind, None
        if outbox.behind is None:
            outbox.seen = self._log.order(self._reach)
        self._unsettled[link] = None
        self._line_up(link)

    def begins(self, link: Link) -> Cursor | None:
        """Where a device begins that wants events and has missed none: the store must know, or after a crash the
        device gets some of before it asked. None: it is on its way already."""
        outbox = link.outbox
        if link.behind is not None or (outbox is not None and outbox.oldest() is not None):
            return None
        link.noted = self._reach
        self._unsettled[link] = None
        return link.noted

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
            self._line_up(link)

    async def note(self, keeper: Keeper, *, all_known: bool, then: Callable[[], object]) -> None:
        """Has the store told how far devices are that have not got everything yet.

        Args:
            all_known: Of every device that was linked when the last process ended it is known how far it is.
            then: Called when `noted` has changed.
        """
        mark = self._at
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
                then()

        behind = False
        async for links in slices(self._unsettled):
            for link in links:
                outbox, device = link.outbox, link.device
                if outbox is None or device is None:
                    self._unsettled.pop(link, None)
                    continue
                behind = behind or outbox.behind is not None
                oldest = outbox.oldest()
                # None: everything up to the cursor of all links, which stays where it is until all are known.
                had = oldest if all_known else oldest or self._at
                if had != link.noted:
                    link.noted = had
                    keeper.keep(HasHad(device.id, had or ""), functools.partial(stored, link))
                if oldest is None and all_known:
                    self._unsettled.pop(link, None)
        if not behind:
            self._backlog.forget()
        if all_known:
            # Behind these, and behind what was kept of devices that went away before.
            keeper.when_stored(done)

    # --- what comes and goes ---

    def acknowledged(self, link: Link, sent: Sent) -> None:
        """The device has the event, or one of the messages that carry it."""
        sent.messages -= 1
        outbox = link.outbox
        if outbox is not None and sent in outbox.sent and sent.messages < 1:
            self._over(link, outbox, sent)
            self.delivered += 1
            self._go_on(link, outbox)

    def rejected(self, link: Link, sent: Sent) -> None:
        """The device did not take the event as it was sent, but wants it: what it has not acknowledged is sent anew."""
        if link.outbox is not None and sent in link.outbox.sent:
            self.away(link)
            self.back(link)

    def expire(self, link: Link, sent: Sent) -> None:
        """The event's time to live was over before the device acknowledged it."""
        outbox = link.outbox
        if outbox is not None and sent in outbox.sent:
            self._over(link, outbox, sent)
            self.expired += 1
            self._go_on(link, outbox)

    def _over(self, link: Link, outbox: Outbox, sent: Sent) -> None:
        del outbox.sent[sent]
        if link.device is not None:
            self._suspects.clear(link.device.id, sent.event)

    @property
    def _reach(self) -> Cursor:
        """Events up to here are handed out, or being handed out: who is behind looks for them so far, and gets the
        others as they come."""
        return self._at if self._giving is None else self._giving.cursor

    def _arrived(self, entries: Sequence[Entry]) -> None:
        if not self._owners and self._turn is None:
            self._at = entries[-1].cursor
            return
        self._pending.extend(entries)
        self._pending_bytes += sum(len(entry.event.data or "") for entry in entries)
        if self._turn is None:
            self._go()
        while len(self._pending) > MAX_PENDING or self._pending_bytes > MAX_PENDING_BYTES:
            self._slice()

    def _line_up(self, link: Link) -> None:
        self._line[link] = None
        if self._turn is None and not self._working and not self._closed:
            self._turn = asyncio.get_running_loop().call_soon(self._go)

    def _go(self) -> None:
        """A turn's worth of work; the rest is done in the next one."""
        self._turn = None
        if self._slice() and not self._closed:
            self._turn = asyncio.get_running_loop().call_soon(self._go)

    def _slice(self) -> bool:
        """Does so much, and returns whether there is more."""
        room = SLICE * GLANCES
        self._working = True
        try:
            while room > 0:
                took = self._step(room)
                if not took:
                    return False
                room -= took
        finally:
            self._working = False
        return True

    def _step(self, room: int) -> int:
        """Does the next thing, events first: they are newer than what is missed. Returns what it took, 0: nothing."""
        entry = self._giving
        try:
            if entry is not None:
                return self._give(entry, room)
            if self._pending:
                entry = self._pending.popleft()
                return self._take(entry)
        except Exception as problem:
            # Whoever appends events tells us, and must not be harmed.
            assert entry is not None
            self._faults.of(None, "outbox", problem)
            self._giving, self._takers, self._at = None, (), entry.cursor
            return 1
        if not self._line:
            return 0
        link = next(iter(self._line))
        del self._line[link]
        outbox = link.outbox
        return 1 if outbox is None else GLANCES * (1 + self._go_on(link, outbox))

    def _take(self, entry: Entry) -> int:
        """Begins to hand out an event."""
        event = entry.event
        self._pending_bytes -= len(event.data or "")
        wishes = self._owners.get(event.owner)
        takers = wishes.match(event) if wishes is not None and may_reach_devices(event) else ()
        if not takers:
            self._at = entry.cursor
            return 1
        self._giving, self._takers, self._given = entry, takers, 0
        return 1

    def _give(self, entry: Entry, room: int) -> int:
        """Goes on handing out an event; returns what it took."""
        event, order = entry.event, self._log.order(entry.cursor)
        took = 0
        takers, at = self._takers, self._given
        while at < len(takers) and took < room:
            link = takers[at]
            at += 1
            took += 1
            outbox = link.outbox
            if outbox is None or not link.online or link.asleep or outbox.behind is not None or outbox.seen >= order:
                continue
            outbox.seen = order
            wanted = [each for each in link.subscriptions if wants(each, event)]
            if not wanted:
                continue
            if not outbox.room:
                outbox.behind = self._at
                continue
            outbox.line_up(self._at, event, wanted)
            self._unsettled[link] = None
            took += GLANCES * self._go_on(link, outbox)
        self._given = at
        if at >= len(takers):
            self._giving, self._takers, self._at = None, (), entry.cursor
        return took

    def _go_on(self, link: Link, outbox: Outbox) -> int:
        """Sends what there is room for, and looks for more when that is little; returns how many it sent."""
        try:
            sent = self._send_waiting(link, outbox)
            if self._hungry(link, outbox) and self._look(link, outbox):
                sent += self._send_waiting(link, outbox)
                if self._hungry(link, outbox):
                    self._line_up(link)
        except Exception as problem:
            self._faults.of(link, "outbox", problem)
            return OUTSTANDING
        return sent

    @staticmethod
    def _hungry(link: Link, outbox: Outbox) -> bool:
        return (
            outbox.behind is not None
            and outbox.settling is None
            and not outbox.reading
            and len(outbox.waiting) < MAX_WAITING // 2
            and link.outbox is outbox
            and not link.closed
        )

    def _send_waiting(self, link: Link, outbox: Outbox) -> int:
        count = 0
        now = self._clock.steady()
        device = "" if link.device is None else link.device.id
        most = self._outstanding(link, device)
        while outbox.waiting and len(outbox.sent) < most and link.online and not link.asleep:
            before, event, wanted = outbox.next()
            if event.received_at + event.ttl * 1000 < now:
                self.expired += 1
                self._suspects.clear(device, event.id)
                continue
            if self._suspects.guilty(device, event.id):
                self._give_up(link, event, Unsent(Why.UNACKNOWLEDGED))
                continue
            sent = Sent(before, event.id, wanted, self._clock.monotonic())
            outbox.sent[sent] = None
            unsent = self._send(link, event, wanted, sent)
            if unsent is not None and not unsent.partly:
                del outbox.sent[sent]
                if unsent.why is Why.BUSY:
                    outbox.put_back(before, event, wanted)
                    asyncio.get_running_loop().call_later(RETRY_S, self._line_up, link)
                    break
            count += 1
            if unsent is not None:
                self._give_up(link, event, unsent)
        if device and not outbox.waiting and not outbox.sent and outbox.behind is None:
            self._suspects.forget(device)
        return count

    def _outstanding(self, link: Link, device: str) -> int:
        """How many events the device may have that it has not acknowledged: one, while any of them is suspected."""
        return OUTSTANDING if link.reliable and not self._suspects.any(device) else OUTSTANDING_UDP

    def _give_up(self, link: Link, event: Event, unsent: Unsent) -> None:
        if unsent.why is not Why.BUSY:
            self.undelivered.note(link, event, unsent)
        if link.device is not None and not unsent.partly:
            self._suspects.clear(link.device.id, event.id)

    # --- what was missed ---

    def _look(self, link: Link, outbox: Outbox) -> bool:
        """Lines up what the device missed, as much as fits; False: a page of the log must be read first."""
        device, behind = link.device, outbox.behind
        assert behind is not None
        reach = self._reach
        upto = self._log.order(reach)
        if device is None or not device.owner or not link.subscriptions:
            outbox.behind, outbox.seen = None, upto
            return True
        after = self._log.order(behind)
        shelf = self._backlog.shelf(device.owner, after)
        if shelf is None:
            outbox.reading = True
            self._pages.want(device.owner, after, behind, functools.partial(self._page_came, link, outbox))
            return False
        room = max(outbox.room, 1)
        found = shelf.filed.find(link.subscriptions, after, min(shelf.end, upto), room)
        for missed in found:
            outbox.line_up(missed.before, missed.event, missed.wanted)
        if len(found) == room:
            outbox.behind = found[-1].cursor
        elif shelf.end < upto:
            outbox.behind = shelf.cursor
        else:
            # Whatever comes from now on is handed over as it comes.
            outbox.behind, outbox.seen = None, upto
        return True

    def _page_came(self, link: Link, outbox: Outbox) -> None:
        outbox.reading = False
        if link.outbox is outbox:
            self._line_up(link)
