"""The hub over a real tail: what is written, how often, and to whom."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest

from tests.delivery.builders import OWNER, an_event
from wirechamber.eventlog.base import Cursor, Entry, Scope
from wirechamber.eventlog.tail import Tail
from wirechamber.protocols import sse
from wirechamber.streams.hub import SLICE, Hub, Reader


class Wire:
    """A transport's writing half, as a list."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.stuck = 0
        self.gone: list[str] = []
        self.closing = False
        self.broken = False

    def write(self, data: bytes) -> None:
        if self.broken or self.closing:
            raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.stuck


def an_entry(position: int, name: str = "temp", **rest: object) -> Entry:
    return Entry(Cursor(str(position)), an_event(name, **rest))  # type: ignore[arg-type]


async def settle() -> None:
    await asyncio.sleep(0.01)


async def turns(look: Callable[[], object]) -> None:
    for _ in range(1_000):
        if look():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen")


def run(scenario: Callable[[Tail, Hub], object]) -> None:
    async def body() -> None:
        tail = Tail(Cursor("0"), int)
        hub = Hub(tail, buffer_bytes=100)
        await scenario(tail, hub)  # type: ignore[misc]
        hub.close()

    asyncio.run(body())


def join(hub: Hub, wire: Wire, **scope: str) -> Scope:
    wanted = Scope(**({"owner": OWNER} | scope))
    hub.join(wanted, Reader(wire, wire.gone.append))
    return wanted


def test_a_burst_is_one_write_of_one_chunk_each() -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        wire = Wire()
        join(hub, wire)
        tail.extend([an_entry(1), an_entry(2)])
        await settle()
        assert len(wire.writes) == 1
        chunks = wire.writes[0].split(b"\r\n")
        assert [int(size, 16) for size in chunks[0:4:2]] == [len(body) for body in chunks[1:5:2]]
        assert b"id: 1\nevent: temp\n" in chunks[1]

    run(scenario)


def test_each_reader_gets_what_its_scope_holds_and_no_other_owner_anything() -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        everything, some, device, stranger = Wire(), Wire(), Wire(), Wire()
        join(hub, everything)
        join(hub, some, prefix="temp")
        join(hub, device, coreid="a" * 24)
        join(hub, stranger, owner="someone-else")
        tail.extend([an_entry(1, "temp"), an_entry(2, "hum"), an_entry(3, "hum", coreid="a" * 24)])
        await settle()
        ids = [[number for number in b"123" if b"id: %c\n" % number in b"".join(w.writes)] for w in (everything, some)]
        assert ids == [list(b"123"), list(b"1")]
        assert b"id: 3\n" in device.writes[0]
        assert b"id: 2\n" not in device.writes[0]
        assert stranger.writes == []

    run(scenario)


def test_who_takes_no_chunks_gets_what_they_hold() -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        chunks, plain = Wire(), Wire()
        scope = join(hub, chunks)
        reader = Reader(plain, plain.gone.append, chunked=False)
        hub.join(scope, reader)
        tail.extend([an_entry(1), an_entry(2)])
        await settle()
        assert plain.writes == [sse.unchunked(chunks.writes[0])]
        assert re.fullmatch(rb"(id: .*\nevent: temp\ndata: \{.*\}\n\n){2}", plain.writes[0])
        hub.leave(scope, reader)
        tail.extend([an_entry(3)])
        await settle()
        assert (len(plain.writes), len(chunks.writes), hub.open) == (1, 2, 1)

    run(scenario)


def test_several_prefixes_are_one_stream_in_which_an_event_is_once() -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        wire = Wire()
        reader = Reader(wire, wire.gone.append)
        scope = Scope(owner=OWNER, prefix=("hum", "temp/"))
        hub.join(scope, reader)
        tail.extend([an_entry(number, name) for number, name in enumerate(("temp/a", "temp", "hum", "x", "humid"), 1)])
        await settle()
        assert re.findall(rb"id: (\d+)", b"".join(wire.writes)) == [b"1", b"3", b"5"]
        hub.leave(scope, reader)
        assert (hub._groups, hub._audiences) == ({}, {})

    run(scenario)


def test_a_slow_reader_is_let_go_and_the_others_are_not_delayed() -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        slow, quick = Wire(), Wire()
        slow.stuck = 101
        join(hub, slow)
        join(hub, quick)
        tail.extend([an_entry(1)])
        await settle()
        assert slow.writes == []
        assert slow.gone == ["slow"]
        assert len(quick.writes) == 1
        assert (hub.open, hub.let_go) == (1, 1)

    run(scenario)


def test_readers_that_close_or_break_cost_the_others_nothing() -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        wires = [Wire() for _ in range(9)]
        for index, wire in enumerate(wires):
            # Three to a group, so that there are readers and groups behind each.
            join(hub, wire, prefix="temp"[: index // 3])
        wires[0].closing = wires[4].broken = wires[8].closing = True

        def cut(reason: str) -> None:
            raise RuntimeError("this reader can't even be let go")

        hub.join(Scope(owner=OWNER), Reader(wires[4], cut))
        for position in (1, 2):
            tail.extend([an_entry(position)])
            await settle()
        good = [wire for index, wire in enumerate(wires) if index not in (0, 4, 8)]
        assert all(len(wire.writes) == 2 and wire.gone == [] for wire in good)
        assert [wires[index].gone for index in (0, 4, 8)] == [["closed"], ["failed"], ["closed"]]
        assert (hub.open, hub.let_go, hub.sent) == (6, 2, 12)
        # A newcomer is taken in, and the groups go on.
        late = Wire()
        join(hub, late)
        tail.extend([an_entry(3)])
        await settle()
        assert len(late.writes) == 1

    run(scenario)


def test_an_event_that_can_not_be_shown_costs_no_other() -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        wire = Wire()
        join(hub, wire)
        tail.extend([an_entry(1, data=b"not text"), an_entry(2)])
        await settle()
        assert b"id: 2\n" in b"".join(wire.writes)
        assert b"id: 1\n" not in b"".join(wire.writes)

    run(scenario)


def test_an_event_asks_only_the_groups_that_it_concerns() -> None:
    asked: list[str] = []

    class Asked(str):
        """Text that tells when its beginning is compared."""

        def startswith(self, *rest: object) -> bool:
            asked.append(str(self))
            return super().startswith(*rest)  # type: ignore[arg-type]

    async def scenario(tail: Tail, hub: Hub) -> None:
        wires = [Wire() for _ in range(3_000)]
        for index, wire in enumerate(wires):
            join(hub, wire, **({"coreid": f"{index:024}"} if index % 2 else {"prefix": f"n{index:05}"}))
        tail.extend([an_entry(1, Asked("n00004/x"), coreid=f"{7:024}")])
        await settle()
        assert [index for index, wire in enumerate(wires) if wire.writes] == [4, 7]
        assert asked == []

    run(scenario)


def test_a_reader_that_joins_gets_nothing_that_was_stored_before() -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        first, late = Wire(), Wire()
        join(hub, first)
        tail.extend([an_entry(1)])
        join(hub, late)
        await settle()
        assert len(first.writes) == 1
        assert late.writes == []

    run(scenario)


def test_leaving_leaves_nothing_behind() -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        wire = Wire()
        reader = Reader(wire, wire.gone.append)
        scope = Scope(owner=OWNER)
        hub.join(scope, reader)
        hub.leave(scope, reader)
        hub.leave(scope, reader)
        tail.extend([an_entry(1)])
        await settle()
        assert (wire.writes, hub.open, hub._groups, hub._audiences) == ([], 0, {}, {})

    run(scenario)


@pytest.mark.parametrize("count", [1, 3])
def test_closing_lets_every_reader_go_after_what_was_pending(count: int) -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        wires = [Wire() for _ in range(count)]
        for wire in wires:
            join(hub, wire)
        tail.extend([an_entry(1)])
        hub.close()
        assert all(len(wire.writes) == 1 and wire.gone == ["shutdown"] for wire in wires)
        # run() closes again: allowed.
        hub.close = lambda: None  # type: ignore[method-assign]

    run(scenario)


def test_very_many_readers_are_written_to_in_slices_and_small_groups_do_not_wait_for_them() -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        many = [Wire() for _ in range(10 * SLICE)]
        for wire in many:
            join(hub, wire)
        other = Wire()
        join(hub, other, owner="someone-else")
        tail.extend([an_entry(1), an_entry(2, owner="someone-else")])
        written = [0]
        while written[-1] < len(many):
            await asyncio.sleep(0)
            written.append(sum(bool(wire.writes) for wire in many))
            assert written[-1] - written[-2] <= SLICE
            # Those who wait are written to in the first turn.
            assert len(other.writes) == 1 or not written[-1]
        assert hub.sent == len(many) + 1

    run(scenario)


def test_events_that_come_while_many_are_written_to_are_one_write_in_order_and_newcomers_get_what_is_theirs() -> None:
    async def scenario(tail: Tail, hub: Hub) -> None:
        many = [Wire() for _ in range(3 * SLICE)]
        for wire in many:
            scope = join(hub, wire)
        gone = Reader(many[-1], many[-1].gone.append)
        hub.join(scope, gone)
        tail.extend([an_entry(1)])
        await turns(lambda: many[0].writes)
        tail.extend([an_entry(2)])
        newcomer = Wire()
        join(hub, newcomer)
        tail.extend([an_entry(3)])
        hub.leave(scope, gone)
        await turns(lambda: not hub._dirty)

        def ids(wire: Wire) -> list[bytes]:
            return re.findall(rb"id: (\d+)", b"".join(wire.writes))

        assert all(ids(wire) == [b"1", b"2", b"3"] for wire in many)
        assert ids(newcomer) == [b"3"]
        assert {len(wire.writes) for wire in many} == {2}
        assert hub.sent == 3 * len(many) + 1

    run(scenario)
