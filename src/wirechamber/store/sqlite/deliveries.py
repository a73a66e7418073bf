"""Deliveries, attempts, counters and cursors: written in batches, one statement per kind of row.

A batch goes in as one JSON text (`json_each`), because beside a busy event loop sqlite3 hands the GIL over at each row
of an `executemany`.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from wirechamber.model.deliveries import Attempt, DayCount, Delivery, Settlement, Standing, Step
from wirechamber.model.events import Event
from wirechamber.store.base import AttemptBounds, AttemptFilter, Retention
from wirechamber.store.sqlite import attempts
from wirechamber.store.sqlite.database import Database
from wirechamber.store.sqlite.sweeping import Sweeper

_log = structlog.get_logger("wirechamber.store")

_encode = msgspec.json.encode
_read_event = msgspec.json.Decoder(Event).decode

# What is said of a row that can't be read.
UNREADABLE = "set aside: it can't be read as it is stored"

DELIVERIES = """
insert or replace into delivery
(id, integration, owner, state, due_at, deadline_at, error_told, attempts, created_at, cursor, why, event)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
value ->> 8, value ->> 9, value ->> 10, value ->> 11
from json_each(?) where exists (select 1 from integration where id = value ->> 1 and removed = 0)
"""
REMOVED = "delete from delivery where id in (select value from json_each(?))"
REMEMBER = """
insert or replace into memory (integration, key, value)
select value ->> 0, value ->> 1, value ->> 2 from json_each(?)
where exists (select 1 from integration where id = value ->> 0 and removed = 0)
"""
MOVED = "insert or replace into reader values ('dispatch', ?)"
DELIVERY_COLUMNS = (
    "id, integration, owner, state, due_at, deadline_at, error_told, attempts, created_at, cursor, why, event"
)
# The planner takes another index, and would look at every row that waits, each second.
UNTOLD = "delivery indexed by delivery_deadline"
# Rows that one step of holding or releasing changes; other writes go in between.
STEP_ROWS = 200
HOLD = f"""
update delivery set state = 'held' where id in
(select id from delivery where state = 'waiting' and integration = ? limit {STEP_ROWS})
"""
RELEASE = f"""
update delivery set state = 'waiting', due_at = ?2 where id in
(select id from delivery where state = 'held' and integration = ?1 limit {STEP_ROWS})
"""
# So many waiting deliveries of an integration are counted where many integrations are shown.
MOST_COUNTED = 1_000
# Walks from integration to integration along the index, so a long backlog of one costs the others nothing. Of 10,000
# that wait, those of which something is due are told here: to ask each from Python would hold the interpreter up.
WAITING = """
with recursive waiting (integration) as (
    select min(integration) from delivery where state = 'waiting'
    union all
    select (select min(integration) from delivery where state = 'waiting' and integration > waiting.integration)
    from waiting where waiting.integration is not null
)
select integration from waiting
where integration is not null and integration not in (select value from json_each(?1)) and exists (
    select 1 from delivery
    where delivery.state = 'waiting' and delivery.integration = waiting.integration and due_at <= ?2
)
"""


class SqliteDeliveries:
    """`Deliveries` of the store's interface."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sweeper = Sweeper(database)
        # The integration that was the last to have its turn in `due`.
        self._served = ""
        # Which call is holding or releasing an integration's deliveries: the newest, or two would undo each other.
        self._turning: dict[str, object] = {}

    async def settle(self, settlement: Settlement) -> None:
        """Stores one batch, all or none."""
        await self._database.write(_writes_of(settlement), durable=False)
        if settlement.attempts:
            self._sweeper.wanted = True

    async def cursor(self, reader: str) -> str | None:
        """How far a durable reader has come."""
        row = await self._one("select cursor from reader where name = ?", reader)
        return None if row is None else str(row[0])

    async def due(self, now: int, limit: int, without: Sequence[str] = ()) -> list[Delivery]:
        """Waiting deliveries whose time has come, fairly from every integration."""

        def read(db: sqlite3.Connection) -> list[Any]:
            integrations = [row[0] for row in db.execute(WAITING, (_text(list(without)), now))]
            # In turn: a page has room for some of them, and those at the front may have more for hours.
            turn = bisect_right(integrations, self._served)
            rows: list[Any] = []
            # An equal share each, at least a few, so that one integration's backlog can't fill the page.
            share = max(4, limit // max(1, len(integrations)))
            for integration in integrations[turn:] + integrations[:turn]:
                if len(rows) >= limit:
                    break
                self._served = integration
                rows += db.execute(
                    f"select {DELIVERY_COLUMNS} from delivery where state = 'waiting' and integration = ?"
                    " and due_at <= ? order by due_at limit ?",
                    (integration, now, min(share, limit - len(rows))),
                )
            return rows

        return await self._readable(await self._database.read(read))

    async def next_due(self) -> int | None:
        """When the next waiting delivery is due."""
        return await self._number("select min(due_at) from delivery where state = 'waiting'")

    async def overdue_answers(self, now: int, limit: int) -> list[Delivery]:
        """Deliveries whose device waits for longer than it should and was told nothing."""
        rows = await self._all(
            f"select {DELIVERY_COLUMNS} from {UNTOLD} where error_told = 0 and state in ('waiting', 'held')"
            " and deadline_at <= ? and integration not in (select id from integration where removed = 1)"
            " order by deadline_at limit ?",
            now,
            limit,
        )
        return await self._readable(rows)

    async def next_deadline(self) -> int | None:
        """When the next such deadline passes."""
        return await self._number(
            f"select min(deadline_at) from {UNTOLD} where error_told = 0 and state in ('waiting', 'held')"
        )

    async def get(self, delivery_id: str) -> Delivery | None:
        """The delivery of that id."""
        row = await self._one(f"select {DELIVERY_COLUMNS} from delivery where id = ?", delivery_id)
        return None if row is None else _delivery(row)

    async def hold(self, integration_id: str) -> int:
        """Sets waiting deliveries aside."""
        return await self._turn(integration_id, HOLD)

    async def release(self, integration_id: str, due_at: int) -> int:
        """Makes held deliveries wait again."""
        return await self._turn(integration_id, RELEASE, due_at)

    async def release_active(self, due_at: int) -> int:
        """Makes what is held for active integrations wait again."""
        return await self._change(
            "update delivery set state = 'waiting', due_at = ? where state = 'held' and integration in"
            " (select id from integration where removed = 0 and json_valid(record) and record ->> 'disabled' = 0"
            " and record ->> 'paused' is null)",
            due_at,
        )

    async def bring_forward(self, ms: int) -> int:
        """Makes what waits due earlier."""
        return await self._change(
            "update delivery set due_at = due_at - ?1, deadline_at = deadline_at - ?1, created_at = created_at - ?1"
            " where state in ('waiting', 'held')",
            ms,
        )

    async def open_of(self, integration_id: str) -> int:
        """How many deliveries wait or are held."""
        query = "select count(*) from delivery where integration = ? and state in ('waiting', 'held')"
        row = await self._one(query, integration_id)
        return int(row[0])

    async def standing(self, integration_ids: Sequence[str]) -> dict[str, Standing]:
        """How each of these integrations stands."""
        return await self._database.read(
            lambda db: {each: _standing(db, each, failed) for each, failed in attempts.failing(db, integration_ids)}
        )

    async def steps(self, delivery_ids: Sequence[str]) -> dict[str, Step]:
        """How far these deliveries have come."""
        rows = await self._all(
            "select id, attempts, iif(state = 'waiting', due_at, null) from delivery"
            " where id in (select value from json_each(?)) and state in ('waiting', 'held')",
            _text(list(delivery_ids)),
        )
        return {delivery: Step(number, due_at) for delivery, number, due_at in rows}

    async def known(self, deliveries: Sequence[tuple[str, str]], since: int) -> set[str]:
        """Which of these were attempted or kept before."""

        def read(db: sqlite3.Connection) -> set[str]:
            kept = db.execute(
                "select value from json_each(?) where value in (select id from delivery)",
                (_text([delivery for delivery, _ in deliveries]),),
            )
            return {row[0] for row in kept} | attempts.known(db, deliveries, since)

        return await self._database.read(read)

    async def attempts(self, integration_id: str, where: AttemptFilter, limit: int) -> list[Attempt]:
        """The log of an integration, newest first."""
        return await self._database.read(lambda db: attempts.listed(db, integration_id, where, limit))

    async def counts(self, integration_ids: Sequence[str], since_day: int) -> dict[str, list[DayCount]]:
        """Daily counters, oldest first."""
        rows = await self._all(
            "select integration, day, success, error, retried from counter"
            " where integration in (select value from json_each(?)) and day >= ? order by integration, day",
            _text(list(integration_ids)),
            since_day,
        )
        found: dict[str, list[DayCount]] = {}
        for integration, *numbers in rows:
            found.setdefault(integration, []).append(DayCount(*numbers))
        return found

    async def recall(self, integration_id: str, key: str) -> Any | None:
        """A value that a plan asked to remember."""
        row = await self._one("select value from memory where integration = ? and key = ?", integration_id, key)
        return None if row is None else msgspec.json.decode(row[0])

    async def tidy(self, retention: Retention) -> int:
        """Removes what retention no longer covers, in short transactions."""
        return await self._sweeper.tidy(retention)

    async def sweep(self, bounds: AttemptBounds) -> bool:
        """One short step of clearing away."""
        return await self._sweeper.step(bounds)

    def removed(self) -> None:
        """An integration or a user was marked as removed: there is something to clear away."""
        self._sweeper.wanted = True

    @property
    def crowded_out(self) -> int:
        """Attempts, and requests and answers of attempts, that were removed because there were too many."""
        return self._sweeper.removed

    async def _readable(self, rows: Sequence[Any]) -> list[Delivery]:
        """Those that can be read; the others are set aside, so that they are not met again."""
        made: list[Delivery] = []
        lost: list[str] = []
        for row in rows:
            try:
                made.append(_delivery(row))
            except (msgspec.MsgspecError, ValueError, TypeError):
                lost.append(row[0])
        if lost:
            _log.error("deliveries_unreadable", deliveries=lost)
            await self._change(
                "update delivery set state = 'dead', why = ? where id in (select value from json_each(?))",
                UNREADABLE,
                _text(lost),
            )
        return made

    async def _one(self, query: str, *values: Any) -> Any:
        return await self._database.read(lambda db: db.execute(query, values).fetchone())

    async def _all(self, query: str, *values: Any) -> list[Any]:
        return await self._database.read(lambda db: db.execute(query, values).fetchall())

    async def _number(self, query: str) -> int | None:
        row = await self._one(query)
        return None if row[0] is None else int(row[0])

    async def _turn(self, integration_id: str, query: str, *values: Any) -> int:
        """Holds or releases step by step; ends early when another call begins with the same integration."""
        mine = self._turning[integration_id] = object()
        changed = 0
        try:
            while self._turning.get(integration_id) is mine:
                step = await self._change(query, integration_id, *values)
                if not step:
                    break
                changed += step
        finally:
            if self._turning.get(integration_id) is mine:
                del self._turning[integration_id]
        return changed

    async def _change(self, query: str, *values: Any) -> int:
        return await self._database.write(lambda db: db.execute(query, values).rowcount, durable=False)


def _standing(db: sqlite3.Connection, integration: str, failed: tuple[int, str | None] | None) -> Standing:
    due_at = None
    # State by state, along the index; of a long backlog not more than is said.
    count = "select count(*) from (select 1 from delivery where state = ? and integration = ? limit ?)"
    (waiting,) = db.execute(count, ("waiting", integration, MOST_COUNTED)).fetchone()
    (held,) = db.execute(count, ("held", integration, MOST_COUNTED)).fetchone()
    if waiting:
        query = "select min(due_at) from delivery where state = 'waiting' and integration = ?"
        (due_at,) = db.execute(query, (integration,)).fetchone()
    failed_at, why = failed or (None, None)
    return Standing(min(waiting + held, MOST_COUNTED), due_at, failed_at, why)


def _writes_of(settlement: Settlement) -> Any:
    """The work of a settlement, its rows encoded already, so that the writer's thread only executes."""
    upserts = _text([_delivery_row(delivery) for delivery in settlement.upsert])
    removed = _text(settlement.remove)
    remember = _text([(integration, key, _text(value)) for integration, key, value in settlement.remember])

    def work(db: sqlite3.Connection) -> None:
        if settlement.attempts:
            attempts.store(db, settlement.attempts)
        if settlement.upsert:
            db.execute(DELIVERIES, (upserts,))
        if settlement.remove:
            db.execute(REMOVED, (removed,))
        if settlement.remember:
            db.execute(REMEMBER, (remember,))
        if settlement.cursor is not None:
            db.execute(MOVED, (settlement.cursor,))

    return work


def _delivery_row(delivery: Delivery) -> tuple[Any, ...]:
    return (
        delivery.id,
        delivery.integration,
        delivery.owner,
        delivery.state,
        delivery.due_at,
        delivery.deadline_at,
        int(delivery.error_told),
        delivery.attempts,
        delivery.created_at,
        delivery.cursor,
        delivery.why,
        _text(delivery.event),
    )


def _delivery(row: tuple[Any, ...]) -> Delivery:
    (
        delivery_id,
        integration,
        owner,
        state,
        due_at,
        deadline_at,
        error_told,
        attempts,
        created_at,
        cursor,
        why,
        event,
    ) = row
    return Delivery(
        id=delivery_id,
        integration=integration,
        owner=owner,
        event=_read_event(event),
        cursor=cursor,
        state=state,
        due_at=due_at,
        attempts=attempts,
        deadline_at=deadline_at,
        error_told=bool(error_told),
        created_at=created_at,
        why=why,
    )


def _text(value: Any) -> str:
    return _encode(value).decode()
