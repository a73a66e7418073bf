"""What it costs to look after many devices at once: counted in names that are looked at and in messages in one turn of
the loop, because both are the same on a busy machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from tests.gateway.inside import HandClock
from wirechamber.eventlog.base import Cursor, Entry, Page, Scope
from wirechamber.eventlog.tail import Tail
from wirechamber.gateway import outbox as module
from wirechamber.gateway.backlog import PAGE, Filed
from wirechamber.gateway.faults import Faults
from wirechamber.gateway.link import Link
from wirechamber.gateway.outbox import OUTSTANDING, SLICE, Outboxes, Sent
from wirechamber.gateway.tcp import TcpLink
from wirechamber.model.devices import Device
from wirechamber.model.events import Event
from wirechamber.model.links import HasHad, Subscription
from wirechamber.observe.tasks import Tasks

OWNER = "a" * 32


class Name(str):
    """A name that counts how often it is looked at."""

    __slots__ = ()
    looks = 0

    def startswith(self, *args: Any) -> bool:
        Name.looks += 1
        return super().startswith(*args)


class Clock(HandClock):
    """Is never set."""

    def steady(self) -> int:
        return self.now()

    def ahead(self) -> int:
        return 0


class Log:
    """Events in memory, of which the tail may have forgotten the older ones."""

    def __init__(self) -> None:
        self.tail = Tail(Cursor("0"), int)
        self.entries: list[Entry] = []
        self.pages = 0
        self.origin = Cursor("0")

    def order(self, cursor: Cursor) -> int:
        return int(cursor)

    def add(self, *events: Event) -> None:
        first = len(self.entries) + 1
        entries = [Entry(Cursor(str(at)), event) for at, event in enumerate(events, first)]
        self.entries += entries
        self.tail.extend(entries)

    def forget(self) -> None:
        """As after a start: the tail has nothing."""
        self.tail.floor = self.tail.newest
        self.tail._floor = int(self.tail.newest)
        self.tail._entries.clear()
        self.tail._orders.clear()

    async def within(self, owner: str, cursor: Cursor, count: int) -> Cursor:
        return cursor

    async def read(self, scope: Scope, after: Cursor, limit: int) -> Page:
        self.pages += 1
        await asyncio.sleep(0)
        found = [entry for entry in self.entries[int(after) :] if scope.holds(entry.event)]
        page = found[:limit]
        return Page(page, page[-1].cursor if page else after, len(found) >= limit)


class Keeper:
    """Notes what it is told to keep."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def keep(self, change: HasHad, done: Callable[[bool], None]) -> None:
        self.kept[change.device] = change.resume_from
        done(True)

    def when_stored(self, done: Callable[[bool], None]) -> None:
        done(True)


class Street:
    """Devices of one owner, and the outboxes that are tested."""

    def __init__(self) -> None:
        self.log = Log()
        self.clock = Clock()
        self.faults = Faults()
        self.got: dict[Link, list[str]] = {}
        self.turns: list[int] = [0]
        self.broken: set[Link] = set()
        self.unanswered: list[tuple[Link, Sent]] = []
        self.acknowledges = True
        self.outboxes = Outboxes(self.log, self.clock, Tasks(), self.faults, self._send)  # type: ignore[arg-type]

    def device(self, *prefixes: str, since: str | None = None) -> Link:
        """A device that has subscribed and is back."""
        link = TcpLink.__new__(TcpLink)
        Link.__init__(link, "s", deviceos=True, reliable=True)
        link.device = Device(id=f"{len(self.got):024x}", created_at=0, owner=OWNER)
        link.subscriptions = tuple(Subscription(prefix) for prefix in prefixes)
        link.behind = None if since is None else Cursor(since)
        link.online = True
        self.got[link] = []
        self.outboxes.join(link, OWNER, link.subscriptions)
        self.outboxes.back(link)
        return link

    def event(self, name: str, data: str = "", owner: str = OWNER) -> Event:
        now = self.clock.now()
        return Event(
            id=f"{name}{data}", name=Name(name), data=data, published_at=now, received_at=now, owner=owner,
            coreid="f" * 24, partition="f" * 24, origin="api", ttl=60,
        )  # fmt: skip

    def _send(self, link: Link, event: Event, wanted: Sequence[Subscription], sent: Sent) -> None:
        if link in self.broken:
            raise RuntimeError("this one is broken")
        self.got[link].append(event.data or event.name)
        self.turns[-1] += 1
        if self.acknowledges:
            asyncio.get_running_loop().call_soon(self.outboxes.acknowledged, link, sent)
        else:
            self.unanswered.append((link, sent))

    async def settle(self, done: Callable[[], bool]) -> None:
        """Lets the loop turn until something is so."""
        async with asyncio.timeout(20.0):
            while not done():
                self.turns.append(0)
                await asyncio.sleep(0)


def run(body: Callable[[Street], Awaitable[None]]) -> None:
    async def work() -> None:
        street = Street()
        await body(street)
        street.outboxes.close()

    asyncio.run(work())


# --- what was missed ---


def looks_for(count: int, *, on_disk: bool) -> float:
    """Names that are looked at for each of so many devices that come back, each with an event of its own that waits."""
    result: list[float] = []

    async def body(street: Street) -> None:
        street.log.add(*(street.event(f"to/{number:05}", "x") for number in range(count)))
        if on_disk:
            street.log.forget()
        Name.looks = 0
        for number in range(count):
            street.device(f"to/{number:05}", since="0")
        await street.settle(lambda: all(got == ["x"] for got in street.got.values()))
        result.append(Name.looks / count)
        assert street.log.pages <= count / PAGE + 2

    run(body)
    return result[0]


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_each_of_many_missed_is_found_without_walking_what_all_missed(on_disk: bool) -> None:
    few, many = looks_for(250, on_disk=on_disk), looks_for(2_000, on_disk=on_disk)
    # Eight times as many devices and events: eight times the work in all, not 64 times.
    assert many < 2 * few


@pytest.mark.parametrize("on_disk", [False, True])
def test_devices_that_come_back_one_by_one_do_not_walk_what_the_others_brought(on_disk: bool) -> None:
    async def body(street: Street) -> None:
        street.log.add(*(street.event("missed", str(number)) for number in range(3)))
        if on_disk:
            street.log.forget()
        looks: list[int] = []
        for number in range(600):
            # Each one's return is an event for the others: of presence, or one that nobody has subscribed to.
            street.log.add(street.event("spark/status", "online"), street.event(f"other/{number}"))
            Name.looks = 0
            link = street.device("missed", since="0")
            await street.settle(lambda link=link: street.got[link] == ["0", "1", "2"])  # type: ignore[misc]
            await street.settle(lambda link=link: link.outbox.behind is None)  # type: ignore[misc]
            looks.append(Name.looks)
        assert max(looks[500:]) < 4 * max(looks[100:200])

    run(body)


def test_order_and_completeness_for_devices_that_begin_anywhere() -> None:
    async def body(street: Street) -> None:
        street.log.add(*(street.event(f"n/{number % 7}", str(number)) for number in range(1_500)))
        street.log.forget()
        street.log.add(*(street.event(f"n/{number % 7}", str(number)) for number in range(1_500, 3_000)))
        links = {
            since: street.device("n/3", "n/", since=str(since)) for since in (0, 1, 499, 1_000, 1_499, 2_000, 2_999)
        }
        sparse = street.device("n/5", since="10")
        await street.settle(lambda: len(street.got[links[0]]) == 1_000)
        street.log.add(*(street.event(f"n/{number % 7}", str(number)) for number in range(3_000, 3_100)))
        await street.settle(lambda: all(got[-1:] in (["3099"], ["3098"]) for got in street.got.values()))
        await street.settle(lambda: len(street.got[links[0]]) == 3_100)
        for since, link in links.items():
            assert street.got[link] == [str(number) for number in range(since, 3_100)]
        assert street.got[sparse] == [str(number) for number in range(10, 3_100) if number % 7 == 5]

    run(body)


def test_a_page_without_anything_for_the_owner_ends_the_search() -> None:
    async def body(street: Street) -> None:
        street.log.add(*(street.event("x", owner="b" * 32) for _ in range(5_000)))
        street.log.forget()
        links = [street.device("x", since=str(since)) for since in range(0, 5_000, 100)]
        await street.settle(lambda: all(link.outbox.behind is None for link in links))  # type: ignore[union-attr]
        assert street.log.pages == 1
        for _ in range(50):
            await asyncio.sleep(0)
        assert street.log.pages == 1

    run(body)


# --- an event for many ---


def test_an_event_for_many_devices_is_handed_out_in_slices_and_once_to_each() -> None:
    async def body(street: Street) -> None:
        street.acknowledges = False
        links = [street.device("all", "al") for _ in range(1_500)]
        await asyncio.sleep(0)
        street.turns = [0]
        street.log.add(street.event("all", "1"), street.event("all", "2"))
        # Newcomers, and who leaves and comes back meanwhile, miss nothing and get nothing twice.
        await asyncio.sleep(0)
        late = street.device("all")
        street.outboxes.away(links[-1])
        links[-1].online = False
        street.log.add(street.event("all", "3"))
        await asyncio.sleep(0)
        links[-1].online = True
        street.outboxes.back(links[-1])
        await street.settle(lambda: all(street.got[link] == ["1", "2", "3"] for link in links))
        assert street.got[late] in (["3"], ["2", "3"])
        assert max(street.turns) <= 2 * (SLICE + OUTSTANDING)
        for _ in range(20):
            await asyncio.sleep(0)
        assert sum(map(len, street.got.values())) == 3 * len(links) + len(street.got[late])

    run(body)


def test_many_devices_that_come_back_at_once_are_looked_after_in_slices() -> None:
    async def body(street: Street) -> None:
        street.acknowledges = False
        street.log.add(*(street.event("m", str(number)) for number in range(4)))
        street.turns = [0]
        for _ in range(1_000):
            street.device("m", since="0")
        await street.settle(lambda: all(len(got) == 4 for got in street.got.values()))
        assert max(street.turns) <= 2 * (SLICE + OUTSTANDING)

    run(body)


def test_what_waits_in_all_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 10)

    async def body(street: Street) -> None:
        street.acknowledges = False
        for _ in range(SLICE):
            street.device("all")
        await asyncio.sleep(0)
        for number in range(60):
            street.log.add(street.event("all", str(number)))
            assert len(street.outboxes._pending) <= 10

    run(body)


def test_data_that_waits_for_a_device_is_bounded_in_bytes() -> None:
    async def body(street: Street) -> None:
        street.acknowledges = False
        link = street.device("big")
        for number in range(60):
            street.log.add(street.event("big", f"{number:05}" + "x" * 16_000))
            await asyncio.sleep(0)
        assert link.outbox is not None
        assert link.outbox.bytes < module.MAX_WAITING_BYTES + 20_000
        street.acknowledges = True
        for each, sent in street.unanswered:
            street.outboxes.acknowledged(each, sent)
        await street.settle(lambda: len(street.got[link]) == 60)
        assert [got[:5] for got in street.got[link]] == [f"{number:05}" for number in range(60)]

    run(body)


# --- one after the other ---


def test_over_udp_the_next_is_sent_when_all_messages_that_carry_one_are_acknowledged() -> None:
    async def body(street: Street) -> None:
        street.acknowledges = False
        link = street.device("row")
        link.reliable = False
        street.log.add(*(street.event("row", str(number)) for number in range(3)))
        await street.settle(lambda: street.got[link] == ["0"])
        (_, sent) = street.unanswered[0]
        # In two forms, for two handlers of the device.
        sent.messages = 2
        street.outboxes.acknowledged(link, sent)
        assert link.outbox is not None
        assert street.got[link] == ["0"]
        assert link.outbox.oldest() == "0"
        street.outboxes.acknowledged(link, sent)
        assert street.got[link] == ["0", "1"]
        assert link.outbox.oldest() == "1"

    run(body)


# --- faults ---


def test_one_devices_fault_harms_neither_the_others_nor_who_appends() -> None:
    async def body(street: Street) -> None:
        links = [street.device("all") for _ in range(20)]
        street.broken = {links[7]}
        for number in range(5):
            street.log.add(street.event("all", str(number)))
        await street.settle(lambda: all(len(street.got[link]) == 5 for link in links if link is not links[7]))
        assert street.faults.counted["outbox"] > 0

    run(body)


# --- what the store is told ---


def test_the_store_is_told_how_far_all_are() -> None:
    async def body(street: Street) -> None:
        keeper: Any = Keeper()
        moved: list[bool] = []

        async def note(*, all_known: bool = True) -> None:
            await street.outboxes.note(keeper, all_known=all_known, then=lambda: moved.append(True))

        street.acknowledges = False
        quick, slow = street.device("q"), street.device("s")
        street.log.add(street.event("q", "1"), street.event("s", "2"), street.event("x", "3"))
        await street.settle(lambda: len(street.unanswered) == 2)
        assert quick.device is not None
        assert slow.device is not None
        street.outboxes.acknowledged(*street.unanswered[0])
        # While it is not known of all how far they are, each is told of by itself.
        await note(all_known=False)
        assert keeper.kept == {quick.device.id: "3", slow.device.id: "1"}
        assert not moved
        await note()
        assert keeper.kept == {quick.device.id: "", slow.device.id: "1"}
        assert street.outboxes.noted == "3"
        street.outboxes.acknowledged(*street.unanswered[1])
        await note()
        assert keeper.kept == {quick.device.id: "", slow.device.id: ""}

    run(body)


def calls_to_find_the_next_under(prefix: str, names: int) -> int:
    """Calls of functions that one more device costs, to which events of very many names are to come."""
    filed = Filed()
    others = 200
    last = names + others
    for at in range(1, last + 1):
        name = "other" if at <= others else f"{prefix}{at}"
        filed.add((at, Cursor(str(at)), Cursor(str(at - 1)), Event(
            id=str(at), name=name, data="", published_at=0, received_at=0, owner=OWNER, coreid="f" * 24,
            partition="f" * 24, origin="api",
        )))  # fmt: skip
    wanted = (Subscription(prefix),)
    filed.find(wanted, 0, last, 3)
    calls = [0]

    def count(_frame: object, event: str, _argument: object) -> None:
        calls[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        found = filed.find(wanted, 0, last, 3)
    finally:
        sys.setprofile(None)
    assert [missed.event.id for missed in found] == [str(others + number) for number in (1, 2, 3)]
    return calls[0]


def test_a_prefix_of_very_many_names_costs_each_device_what_it_wants() -> None:
    assert calls_to_find_the_next_under("status/", 8_000) < 2 * calls_to_find_the_next_under("status/", 800)
