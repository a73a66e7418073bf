"""Attempts: a compact row each, and what was sent and answered apart from it.

A row is found by its integration's number, whether it succeeded, and its id, which begins with the time. Ids are kept
as bytes. Bodies are numbered in the order in which they came.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec
from msgspec import structs

from wirechamber.model.deliveries import Attempt
from wirechamber.model.times import day
from wirechamber.store.base import AttemptFilter

_encode = msgspec.json.encode
_read_before = msgspec.json.Decoder(Attempt).decode

# What a row and its places in the indexes take, about; bodies are counted by themselves.
ROW_BYTES = 150
# A page of attempts ends after so many bytes of bodies: whoever shows it decodes and encodes them at once.
PAGE_BYTES = 1024 * 1024
# Rows of one statement: SQLite takes 32,766 values.
ROWS = 500
_COLUMNS = "id, ok, delivery, event, name, coreid, device, number, final, status, duration_ms, why, started_at, body"
_INSERT = (
    "insert or ignore into attempt (n, ok, id, delivery, event, name, coreid, device, number, final, status,"
    " duration_ms, why, started_at, body) values "
)
_PLACES = "(" + ",".join("?" * 15) + ")"
_INSERT_BODY = "insert into body (seq, n, ok, attempt, started_at, detail) values "
_COUNTERS = """
insert into counter (integration, day, success, error, retried)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 from json_each(?) where true
on conflict (integration, day) do update set
success = success + excluded.success, error = error + excluded.error, retried = retried + excluded.retried
"""
_TALLY = """
update numbered set attempts = attempts + (tally.value ->> 1), bytes = bytes + (tally.value ->> 2)
from json_each(?) as tally where numbered.n = tally.value ->> 0
"""
_HEX = re.compile("(?:[0-9a-f]{2})+")
# Milliseconds by which an attempt's time may be before that of its event, whose clock is the same one.
_SLACK_MS = 60_000


def numbers(db: sqlite3.Connection, integrations: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Number and owner of integrations that are there."""
    rows = db.execute(
        "select numbered.integration, numbered.n, numbered.owner from numbered"
        " join integration on integration.id = numbered.integration"
        " where integration.removed = 0 and numbered.integration in (select value from json_each(?))",
        (_encode(list(set(integrations))).decode(),),
    )
    return {integration: (n, owner) for integration, n, owner in rows}


def store(db: sqlite3.Connection, attempts: Sequence[Attempt]) -> None:
    """Stores attempts and counts them, each once however often it is stored; those of removed integrations are left
    out. It must be the first in its transaction: that is begun again when some are there already."""
    known = numbers(db, [attempt.integration for attempt in attempts])
    mine = [attempt for attempt in attempts if attempt.integration in known]
    if not mine:
        return
    if len({attempt.id for attempt in mine}) < len(mine) or _insert(db, mine, known) != len(mine):
        # Some were settled before a crash.
        db.execute("rollback")
        db.execute("begin immediate")
        mine = list({a.id: a for a in mine if not _there(db, known[a.integration][0], a)}.values())
        _insert(db, mine, known)
    counts: dict[tuple[str, int], list[int]] = {}
    for attempt in mine:
        of_day = counts.setdefault((attempt.integration, day(attempt.started_at)), [0, 0, 0])
        of_day[0 if attempt.ok else 1 if attempt.final else 2] += 1
    if counts:
        db.execute(_COUNTERS, (_text([(*key, *of_day) for key, of_day in counts.items()]),))


def tally(db: sqlite3.Connection, changes: Iterable[tuple[int, int, int]]) -> None:
    """Notes how many attempts, and bytes of bodies, integrations have more or less than before.

    Args:
        changes: Number of the integration, attempts, bytes.
    """
    sums: dict[int, list[int]] = {}
    for n, rows, size in changes:
        of = sums.setdefault(n, [0, 0])
        of[0] += rows
        of[1] += size
    if sums:
        db.execute(_TALLY, (_text([(n, *of) for n, of in sums.items()]),))


def listed(db: sqlite3.Connection, integration: str, where: AttemptFilter, limit: int) -> list[Attempt]:
    """Attempts of an integration, newest first."""
    found = numbers(db, [integration]).get(integration)
    if found is None:
        return []
    n, owner = found
    conditions, values = "", []
    if where.id is not None:
        conditions += " and id = ?"
        values.append(packed(where.id))
    if where.device is not None:
        conditions += " and device = ?"
        values.append(packed(where.device))
    if where.before is not None:
        conditions += " and id < ?"
        values.append(packed(where.before))
    index = "" if where.device is None else "indexed by attempt_of_device"
    rows: list[Any] = []
    for ok in (0, 1) if where.ok is None else (int(where.ok),):
        query = f"select {_COLUMNS} from attempt {index} where n = ? and ok = ?{conditions} order by id desc limit ?"
        rows += db.execute(query, (n, ok, *values, limit))
    rows.sort(key=lambda row: row[0], reverse=True)
    made: list[Attempt] = []
    size = 0
    before = is_before(db)
    for attempt in chain(
        (_attempt(db, integration, owner, row) for row in rows[:limit]),
        _listed_before(db, integration, where, limit) if before else (),
    ):
        made.append(attempt)
        size += len(attempt.detail or b"")
        if len(made) >= limit or size >= PAGE_BYTES:
            break
    return made


def failing(db: sqlite3.Connection, integrations: Sequence[str]) -> Iterator[tuple[str, tuple[int, str | None] | None]]:
    """Each of the integrations that are there, with time and reason of its newest attempt if that failed."""
    newest = "select id, started_at, why from attempt where n = ? and ok = ? order by id desc limit 1"
    for integration, (n, _) in numbers(db, integrations).items():
        failed = db.execute(newest, (n, 0)).fetchone()
        done = db.execute(newest, (n, 1)).fetchone()
        if failed is None or (done is not None and done[0] > failed[0]):
            yield integration, None
        else:
            attempt_id, started_at, why = failed
            yield integration, (int(unpacked(attempt_id)[:12], 16) if started_at is None else started_at, why)


def known(db: sqlite3.Connection, deliveries: Sequence[tuple[str, str]], since: int) -> set[str]:
    """Which of these deliveries were attempted.

    Args:
        deliveries: Ids of deliveries, each with that of its integration.
        since: When the first of their events came, milliseconds since 1970.
    """
    wanted: dict[str, set[Any]] = {}
    for delivery, integration in deliveries:
        wanted.setdefault(integration, set()).add(packed(delivery))
    begin = packed(f"{max(0, since - _SLACK_MS):012x}")
    there: set[str] = set()
    for integration, (n, _) in numbers(db, wanted).items():
        mine = wanted[integration]
        for ok in (0, 1):
            query = "select delivery from attempt where n = ? and ok = ? and id >= ?"
            there.update(unpacked(row[0]) for row in db.execute(query, (n, ok, begin)) if row[0] in mine)
    if is_before(db):
        query = "select value from json_each(?) where value in (select delivery from attempt_before)"
        there.update(row[0] for row in db.execute(query, (_text([each for each, _ in deliveries]),)))
    return there


# --- rows of an older version ---


def is_before(db: sqlite3.Connection) -> bool:
    """Whether attempts of an older version are left."""
    return db.execute("select 1 from sqlite_master where name = 'attempt_before'").fetchone() is not None


def bring_over(db: sqlite3.Connection, limit: int, room: int) -> bool:
    """Brings the newest attempts of an older version over; removes their table and returns false when none is left.

    Args:
        room: Bytes of bodies that an integration may have; there is no room for older ones beyond it.
    """
    rows = db.execute("select rowid, record, detail from attempt_before order by id desc limit ?", (limit,)).fetchall()
    if not rows:
        db.execute("drop table attempt_before")
        return False
    made: list[Attempt] = []
    for _, record, detail in rows:
        try:
            attempt = _read_before(record)
        except msgspec.MsgspecError:
            continue
        body = detail.encode() if isinstance(detail, str) else detail
        made.append(structs.replace(attempt, detail=body))
    full = dict(db.execute("select integration, bytes >= ? from numbered", (room,)))
    made = [structs.replace(each, detail=None) if full.get(each.integration) else each for each in made]
    places = numbers(db, [attempt.integration for attempt in made])
    _insert(db, [attempt for attempt in made if attempt.integration in places], places, oldest=True)
    db.execute("delete from attempt_before where rowid in (select value from json_each(?))",
               (_text([row[0] for row in rows]),))  # fmt: skip
    return True


def _listed_before(db: sqlite3.Connection, integration: str, where: AttemptFilter, limit: int) -> Iterator[Attempt]:
    conditions, values = ["integration = ?"], [integration]
    for column, value in (("id", where.id), ("ok", where.ok), ("device", where.device)):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)  # type: ignore[arg-type]
    if where.before is not None:
        conditions.append("id < ?")
        values.append(where.before)
    query = f"select record, detail from attempt_before where {' and '.join(conditions)} order by id desc limit ?"
    for record, detail in db.execute(query, (*values, limit)):
        attempt = _read_before(record)
        yield attempt if detail is None else structs.replace(attempt, detail=detail.encode())


# --- rows ---


def packed(text: str) -> bytes | str:
    """An id as it is stored: as bytes if it is in hex."""
    return bytes.fromhex(text) if _HEX.fullmatch(text) else text


def unpacked(stored: bytes | str) -> str:
    """The id again."""
    return stored.hex() if isinstance(stored, bytes) else stored


def _insert(
    db: sqlite3.Connection, attempts: Sequence[Attempt], known: dict[str, tuple[int, str]], *, oldest: bool = False
) -> int:
    """Inserts rows and their bodies; returns how many rows were new.

    Args:
        oldest: The bodies are older than those that are there, newest first.
    """
    if oldest:
        edge, step = (db.execute("select coalesce(min(seq), 1) from body").fetchone()[0], -1)
    else:
        edge, step = (db.execute("select coalesce(max(seq), 0) from body").fetchone()[0], 1)
    stored = 0
    for begin in range(0, len(attempts), ROWS):
        part = attempts[begin : begin + ROWS]
        rows: list[Any] = []
        bodies: list[Any] = []
        changes: list[tuple[int, int, int]] = []
        for attempt in part:
            n = known[attempt.integration][0]
            seq = None
            if attempt.detail is not None:
                edge += step
                seq = edge
                bodies += (seq, n, int(attempt.ok), packed(attempt.id), attempt.started_at, attempt.detail)
            rows += _row(n, attempt, seq)
            changes.append((n, 1, 0 if attempt.detail is None else len(attempt.detail)))
        stored += db.execute(_INSERT + ",".join([_PLACES] * len(part)), rows).rowcount
        if bodies:
            db.execute(_INSERT_BODY + ",".join(["(?,?,?,?,?,?)"] * (len(bodies) // 6)), bodies)
        tally(db, changes)
    return stored


def _there(db: sqlite3.Connection, n: int, attempt: Attempt) -> bool:
    query = "select 1 from attempt where n = ? and ok = ? and id = ?"
    return db.execute(query, (n, int(attempt.ok), packed(attempt.id))).fetchone() is not None


def _row(n: int, attempt: Attempt, seq: int | None) -> tuple[Any, ...]:
    return (
        n,
        int(attempt.ok),
        packed(attempt.id),
        packed(attempt.delivery),
        packed(attempt.event_id),
        attempt.event_name,
        None if attempt.coreid == attempt.device else packed(attempt.coreid),
        None if attempt.device is None else packed(attempt.device),
        attempt.number,
        int(attempt.final),
        attempt.status,
        attempt.duration_ms,
        attempt.why,
        None if attempt.id.startswith(f"{attempt.started_at:012x}") else attempt.started_at,
        seq,
    )


def _attempt(db: sqlite3.Connection, integration: str, owner: str, row: Sequence[Any]) -> Attempt:
    (
        key, ok, delivery, event, name, coreid, device, number, final, status, duration_ms, why, started_at, seq,
    ) = row  # fmt: skip
    attempt_id = unpacked(key)
    of_device = None if device is None else unpacked(device)
    body = None
    if seq is not None:
        body = db.execute("select detail from body where seq = ? and attempt = ?", (seq, key)).fetchone()
    return Attempt(
        id=attempt_id,
        delivery=unpacked(delivery),
        integration=integration,
        owner=owner,
        event_id=unpacked(event),
        event_name=name,
        device=of_device,
        coreid=of_device or "" if coreid is None else unpacked(coreid),
        number=number,
        started_at=int(attempt_id[:12], 16) if started_at is None else started_at,
        duration_ms=duration_ms,
        ok=bool(ok),
        final=bool(final),
        status=status,
        why=why,
        detail=None if body is None else body[0],
    )


def _text(value: Any) -> str:
    return _encode(value).decode()
