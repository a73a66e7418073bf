"""What devices have missed, found for many devices at once.

The tail, and each page of the log behind it, is gone through once for all devices of an owner: events are filed by
name and by publisher, so finding what one device missed costs what it wants, and not what came meanwhile.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from wirechamber.eventlog.base import Cursor, Entry, EventLog, Scope
from wirechamber.model.events import Event
from wirechamber.model.links import Subscription

# Names that the firmware itself acts upon come from this cloud only, never through a subscription
# (device-protocol.md, section 10.2).
FIRMWARE = ("spark/", "particle/")
# A device that was away looks back so far at most: beyond it, the time to live of all but a few events is over.
MAX_LOOK_BACK = 50_000
PAGE = 500
# A prefix of few names finds its events by these; what is under another one is filed when it is asked for, once for
# all devices, and this many such prefixes are remembered.
FEW_NAMES = 16
MAX_PREFIXES = 64
# Names are ASCII: those that begin with a prefix sort before the prefix and this.
LAST = "\U0010ffff"
# Pages of the log that are kept for the next devices, in all: by number, and by bytes of their events.
MAX_SHELVES = 64
MAX_SHELVED_BYTES = 16 * 1024 * 1024

# Order and cursor of an event, the position before it, and the event.
Item = tuple[int, Cursor, Cursor, Event]
_order = itemgetter(0)


class Missed(NamedTuple):
    """An event that a device has not had.

    Attributes:
        cursor: Where it is.
        before: The position before it: from there the log is read when the device must get it again.
        wanted: The subscriptions that it is for.
    """

    cursor: Cursor
    before: Cursor
    event: Event
    wanted: list[Subscription]


def may_reach_devices(event: Event) -> bool:
    """Whether an event is one for devices at all."""
    return not event.late and not event.name.startswith(FIRMWARE)


def wants(subscription: Subscription, event: Event) -> bool:
    """Whether an event of a device's owner is what one of its subscriptions is about."""
    return event.name.startswith(subscription.prefix) and (
        subscription.device is None or subscription.device == event.coreid
    )


class Filed:
    """Events of one owner in the log's order: all, by name, and by publisher."""

    __slots__ = ("_all", "_by_name", "_by_publisher", "_names", "_under")

    def __init__(self) -> None:
        self._all: list[Item] = []
        self._names: list[str] = []
        self._by_name: dict[str, list[Item]] = {}
        self._by_publisher: dict[str, list[Item]] = {}
        # By prefix, with how many of all were looked at.
        self._under: dict[str, tuple[int, list[Item]]] = {}

    def add(self, item: Item) -> None:
        """Files an event that is newer than all."""
        event = item[3]
        self._all.append(item)
        named = self._by_name.get(event.name)
        if named is None:
            named = self._by_name[event.name] = []
            insort(self._names, event.name)
        named.append(item)
        self._by_publisher.setdefault(event.coreid, []).append(item)

    def find(self, subscriptions: Sequence[Subscription], after: int, upto: int, limit: int) -> list[Missed]:
        """The first events between two positions that are wanted, `limit` of them at most."""
        found: list[Missed] = []
        last = after
        for item in heapq.merge(*self._lists(subscriptions, after), key=_order):
            if item[0] > upto or len(found) == limit:
                break
            # One that is under several subscriptions comes several times.
            if item[0] > last:
                last = item[0]
                _add(found, item, subscriptions)
        return found

    def _lists(self, subscriptions: Sequence[Subscription], after: int) -> list[Iterator[Item]]:
        lists = [self._by_publisher.get(each.device, []) for each in subscriptions if each.device is not None]
        by_name: set[int] = set()
        for prefix in {each.prefix for each in subscriptions if each.device is None}:
            names = self._beginning_with(prefix)
            if len(names) > FEW_NAMES:
                lists.append(self._of_many(prefix))
            else:
                by_name.update(names)
        lists += [self._by_name[self._names[at]] for at in by_name]
        return [_beyond(items, after) for items in lists if items and items[-1][0] > after]

    def _of_many(self, prefix: str) -> list[Item]:
        """All under a prefix: of those it is asked for again, only what came since then is looked at."""
        if not prefix:
            return self._all
        looked, items = self._under.pop(prefix, (0, []))
        items += [item for item in self._all[looked:] if item[3].name.startswith(prefix)]
        self._under[prefix] = len(self._all), items
        if len(self._under) > MAX_PREFIXES:
            del self._under[next(iter(self._under))]
        return items

    def _beginning_with(self, prefix: str) -> range:
        """Which of the names do."""
        names = self._names
        return range(bisect_left(names, prefix), bisect_left(names, prefix + LAST) if prefix else len(names))


def _beyond(items: Sequence[Item], after: int) -> Iterator[Item]:
    for at in range(bisect_right(items, after, key=_order), len(items)):
        yield items[at]


def _add(found: list[Missed], item: Item, subscriptions: Sequence[Subscription]) -> None:
    _, cursor, before, event = item
    wanted = [each for each in subscriptions if wants(each, event)]
    if wanted:
        found.append(Missed(cursor, before, event, wanted))


class Shelf(NamedTuple):
    """A stretch of the log, filed for one owner: everything of the owner's after `start`, up to `end`."""

    start: int
    end: int
    cursor: Cursor
    filed: Filed
    bytes: int = 0


class Backlog:
    """The tail and pages of the log, filed."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        # Where the tail began when it was filed, and up to where it is.
        self._floor: Cursor | None = None
        self._filed_to = log.tail.newest
        self._owners: dict[str, Filed] = {}
        # Pages by owner, and all of them, the oldest first.
        self._shelves: dict[str, list[Shelf]] = {}
        self._kept: dict[tuple[str, int], Shelf] = {}
        self._bytes = 0

    def shelf(self, owner: str, after: int) -> Shelf | None:
        """Where to look for what came after a position; None: `read` a page first."""
        tail = self._log.tail
        if after >= self._log.order(tail.floor):
            self._file_tail()
            filed = self._owners.get(owner) or Filed()
            return Shelf(after, self._log.order(tail.newest), tail.newest, filed)
        for shelf in self._shelves.get(owner, ()):
            if shelf.start <= after < shelf.end:
                return shelf
        return None

    async def read(self, owner: str, after: Cursor) -> Shelf:
        """Reads a page of an owner's events and keeps it for a while.

        Raises:
            CloudError: The log can't be read.
        """
        log = self._log
        start = log.order(after)
        newest = log.tail.newest
        page = await log.read(Scope(owner=owner), await log.within(owner, after, MAX_LOOK_BACK), PAGE)
        # At the end of the owner's events, the newest of all is where the tail goes on.
        end = page.after if page.more else max(page.after, newest, key=log.order)
        filed = Filed()
        before = after
        size = 0
        for entry in page.entries:
            if may_reach_devices(entry.event):
                filed.add((log.order(entry.cursor), entry.cursor, before, entry.event))
                size += len(entry.event.data or "")
            before = entry.cursor
        shelf = Shelf(start, log.order(end), end, filed, size)
        self._keep(owner, shelf)
        return shelf

    def forget(self) -> None:
        """Gives the memory back: nobody is behind any more."""
        self._floor = None
        for kept in (self._owners, self._shelves, self._kept):
            kept.clear()
        self._bytes = 0

    def _keep(self, owner: str, shelf: Shelf) -> None:
        self._drop((owner, shelf.start))
        self._kept[owner, shelf.start] = shelf
        self._shelves.setdefault(owner, []).append(shelf)
        self._bytes += shelf.bytes
        while len(self._kept) > 1 and (len(self._kept) > MAX_SHELVES or self._bytes > MAX_SHELVED_BYTES):
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[str, int]) -> None:
        shelf = self._kept.pop(key, None)
        if shelf is None:
            return
        self._bytes -= shelf.bytes
        shelves = self._shelves[key[0]]
        shelves.remove(shelf)
        if not shelves:
            del self._shelves[key[0]]

    def _file_tail(self) -> None:
        """Files what has come since the last time; all anew when the tail has let go of its older half."""
        tail = self._log.tail
        if self._floor != tail.floor:
            self._floor = self._filed_to = tail.floor
            self._owners.clear()
        entries: Sequence[Entry] = tail.since(self._filed_to) or ()
        order: Callable[[Cursor], int] = self._log.order
        before = self._filed_to
        for entry in entries:
            event = entry.event
            if may_reach_devices(event):
                filed = self._owners.get(event.owner)
                if filed is None:
                    filed = self._owners[event.owner] = Filed()
                filed.add((order(entry.cursor), entry.cursor, before, event))
            before = entry.cursor
        self._filed_to = before
