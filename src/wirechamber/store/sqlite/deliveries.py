"""Deliveries, attempts, counters and cursors: written in batches, one statement per kind of row.

A batch goes in as one JSON text (`json_each`), because beside a busy event loop sqlite3 hands the GIL over at each row
of an `executemany`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import structs

from wirechamber.model.deliveries import Attempt, DayCount, Delivery, Settlement
from wirechamber.model.events import Event
from wirechamber.model.times import day
from wirechamber.store.base import AttemptFilter, Retention
from wirechamber.store.sqlite.database import Database

_encode = msgspec.json.encode
_read_event = msgspec.json.Decoder(Event).decode
_read_attempt = msgspec.json.Decoder(Attempt).decode

# Rows that one step of tidying changes; settlements go in between.
TIDY_ROWS = 2_000

ATTEMPTS = """
insert or ignore into attempt (id, delivery, integration, started_at, ok, device, record, detail)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
from json_each(?) where value ->> 2 in (select id from integration)
"""
FRESH = """
select value ->> 0 from json_each(?) where value ->> 1 in (select id from integration)
and value ->> 0 not in (select id from attempt)
"""
COUNTERS = """
insert into counter (integration, day, success, error, retried)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 from json_each(?) where true
on conflict (integration, day) do update set
success = success + excluded.success, error = error + excluded.error, retried = retried + excluded.retried
"""
DELIVERIES = """
insert or replace into delivery
(id, integration, owner, state, due_at, deadline_at, error_told, attempts, created_at, cursor, why, event)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
value ->> 8, value ->> 9, value ->> 10, value ->> 11
from json_each(?) where value ->> 1 in (select id from integration)
"""
REMOVED = "delete from delivery where id in (select value from json_each(?))"
REMEMBER = """
insert or replace into memory (integration, key, value)
select value ->> 0, value ->> 1, value ->> 2 from json_each(?) where value ->> 0 in (select id from integration)
"""
MOVED = "insert or replace into reader values ('dispatch', ?)"
DELIVERY_COLUMNS = (
    "id, integration, owner, state, due_at, deadline_at, error_told, attempts, created_at, cursor, why, event"
)
# Walks from integration to integration along the index, so a long backlog of one costs the others nothing.
WAITING = """
with recursive waiting (integration) as (
    select min(integration) from delivery where state = 'waiting'
    union all
    select (select min(integration) from delivery where state = 'waiting' and integration > waiting.integration)
    from waiting where waiting.integration is not null
)
select integration from waiting
where integration is not null and integration not in (select value from json_each(?))
"""


class SqliteDeliveries:
    """`Deliveries` of the store's interface."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def settle(self, settlement: Settlement) -> None:
        """Stores one batch, all or none."""
        await self._database.write(_writes_of(settlement), durable=False)

    async def cursor(self, reader: str) -> str | None:
        """How far a durable reader has come."""
        row = await self._one("select cursor from reader where name = ?", reader)
        return None if row is None else str(row[0])

    async def due(self, now: int, limit: int, without: Sequence[str] = ()) -> list[Delivery]:
        """Waiting deliveries whose time has come, fairly from every integration."""

        def read(db: sqlite3.Connection) -> list[Any]:
            integrations = [row[0] for row in db.execute(WAITING, (_text(list(without)),))]
            rows: list[Any] = []
            # An equal share each, at least a few, so that one integration's backlog can't fill the page.
            share = max(4, limit // max(1, len(integrations)))
            for integration in integrations:
                if len(rows) >= limit:
                    break
                rows += db.execute(
                    f"select {DELIVERY_COLUMNS} from delivery where state = 'waiting' and integration = ?"
                    " and due_at <= ? order by due_at limit ?",
                    (integration, now, min(share, limit - len(rows))),
                )
            return rows

        return [_delivery(row) for row in await self._database.read(read)]

    async def next_due(self) -> int | None:
        """When the next waiting delivery is due."""
        return await self._number("select min(due_at) from delivery where state = 'waiting'")

    async def overdue_answers(self, now: int, limit: int) -> list[Delivery]:
        """Deliveries whose device waits for longer than it should and was told nothing."""
        rows = await self._all(
            f"select {DELIVERY_COLUMNS} from delivery where error_told = 0 and state in ('waiting', 'held')"
            " and deadline_at <= ? order by deadline_at limit ?",
            now,
            limit,
        )
        return [_delivery(row) for row in rows]

    async def next_deadline(self) -> int | None:
        """When the next such deadline passes."""
        return await self._number(
            "select min(deadline_at) from delivery where error_told = 0 and state in ('waiting', 'held')"
        )

    async def get(self, delivery_id: str) -> Delivery | None:
        """The delivery of that id."""
        row = await self._one(f"select {DELIVERY_COLUMNS} from delivery where id = ?", delivery_id)
        return None if row is None else _delivery(row)

    async def hold(self, integration_id: str) -> int:
        """Sets waiting deliveries aside."""
        return await self._change(
            "update delivery set state = 'held' where state = 'waiting' and integration = ?", integration_id
        )

    async def release(self, integration_id: str, due_at: int) -> int:
        """Makes held deliveries wait again."""
        return await self._change(
            "update delivery set state = 'waiting', due_at = ?2 where state = 'held' and integration = ?1",
            integration_id,
            due_at,
        )

    async def release_active(self, due_at: int) -> int:
        """Makes what is held for active integrations wait again."""
        return await self._change(
            "update delivery set state = 'waiting', due_at = ? where state = 'held' and integration in"
            " (select id from integration where record ->> 'disabled' = 0 and record ->> 'paused' is null)",
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

    async def known(self, delivery_ids: Sequence[str]) -> set[str]:
        """Which of these were attempted or kept before."""
        rows = await self._all(
            "select value from json_each(?) where value in (select delivery from attempt)"
            " or value in (select id from delivery)",
            _text(list(delivery_ids)),
        )
        return {row[0] for row in rows}

    async def attempts(self, integration_id: str, where: AttemptFilter, limit: int) -> list[Attempt]:
        """The log of an integration, newest first."""
        conditions, values = ["integration = ?"], [integration_id]
        if where.ok is not None:
            conditions.append("ok = ?")
            values.append(where.ok)  # type: ignore[arg-type]
        if where.device is not None:
            conditions.append("device = ?")
            values.append(where.device)
        if where.before is not None:
            conditions.append("id < ?")
            values.append(where.before)
        rows = await self._all(
            f"select record, detail from attempt where {' and '.join(conditions)} order by id desc limit ?",
            *values,
            limit,
        )
        return [_attempt(row) for row in rows]

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
        changed = 0
        for query, value in (
            ("delete from attempt where id in (select id from attempt where started_at < ? limit {n})",
             retention.attempts_after),
            ("delete from delivery where id in"
             " (select id from delivery where state = 'dead' and due_at < ? limit {n})", retention.attempts_after),
            ("delete from counter where (integration, day) in"
             " (select integration, day from counter where day < ? limit {n})", retention.counters_after),
        ):  # fmt: skip
            while step := await self._change(query.format(n=TIDY_ROWS), value):
                changed += step
        for integration, oldest_kept in await self._all(_BODIES, retention.bodies_of_newest):
            while step := await self._change(
                "update attempt set detail = null where id in (select id from attempt where integration = ?"
                f" and detail is not null and ok = 1 and id < ? and started_at < ? limit {TIDY_ROWS})",
                integration,
                oldest_kept,
                retention.bodies_after,
            ):
                changed += step
        return changed

    async def _one(self, query: str, *values: Any) -> Any:
        return await self._database.read(lambda db: db.execute(query, values).fetchone())

    async def _all(self, query: str, *values: Any) -> list[Any]:
        return await self._database.read(lambda db: db.execute(query, values).fetchall())

    async def _number(self, query: str) -> int | None:
        row = await self._one(query)
        return None if row[0] is None else int(row[0])

    async def _change(self, query: str, *values: Any) -> int:
        return await self._database.write(lambda db: db.execute(query, values).rowcount, durable=False)


# For each integration with more bodies than are kept by number, the oldest attempt that keeps its own.
_BODIES = """
select id, (
    select attempt.id from attempt where attempt.integration = integration.id and detail is not null and ok = 1
    order by attempt.id desc limit 1 offset max(?1 - 1, 0)
) as oldest from integration where oldest is not null
"""


def _writes_of(settlement: Settlement) -> Any:
    """The work of a settlement, its rows encoded already, so that the writer's thread only executes."""
    attempts = [_attempt_row(attempt) for attempt in settlement.attempts]
    parameters = _text(attempts)
    ids = _text([(attempt.id, attempt.integration) for attempt in settlement.attempts])
    upserts = _text([_delivery_row(delivery) for delivery in settlement.upsert])
    removed = _text(settlement.remove)
    remember = _text([(integration, key, _text(value)) for integration, key, value in settlement.remember])

    def work(db: sqlite3.Connection) -> None:
        if attempts:
            _store_attempts(db, settlement.attempts, parameters, ids)
        if settlement.upsert:
            db.execute(DELIVERIES, (upserts,))
        if settlement.remove:
            db.execute(REMOVED, (removed,))
        if settlement.remember:
            db.execute(REMEMBER, (remember,))
        if settlement.cursor is not None:
            db.execute(MOVED, (settlement.cursor,))

    return work


def _store_attempts(db: sqlite3.Connection, attempts: Sequence[Attempt], parameters: str, ids: str) -> None:
    fresh: set[str] | None = None
    if db.execute(ATTEMPTS, (parameters,)).rowcount != len(attempts):
        # Some were settled before a crash, or their integration is gone: only new ones are counted. This is the first
        # statement of the transaction, so beginning again loses nothing.
        db.execute("rollback")
        db.execute("begin immediate")
        fresh = {row[0] for row in db.execute(FRESH, (ids,))}
        db.execute(ATTEMPTS, (parameters,))
    counts: dict[tuple[str, int], list[int]] = {}
    for attempt in attempts:
        if fresh is None or attempt.id in fresh:
            numbers = counts.setdefault((attempt.integration, day(attempt.started_at)), [0, 0, 0])
            numbers[0 if attempt.ok else 1 if attempt.final else 2] += 1
    if counts:
        db.execute(COUNTERS, (_text([(*key, *numbers) for key, numbers in counts.items()]),))


def _attempt_row(attempt: Attempt) -> tuple[Any, ...]:
    detail = None if attempt.detail is None else attempt.detail.decode()
    record = _text(structs.replace(attempt, detail=None))
    return (
        attempt.id,
        attempt.delivery,
        attempt.integration,
        attempt.started_at,
        int(attempt.ok),
        attempt.device,
        record,
        detail,
    )


def _attempt(row: tuple[Any, ...]) -> Attempt:
    record, detail = row
    attempt = _read_attempt(record)
    return attempt if detail is None else structs.replace(attempt, detail=detail.encode())


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
