"""Clearing away, in steps of a few milliseconds: integrations and users that were removed, attempts beyond a bound,
rows of an older version. Others write in between, and what is not done when the process ends is done after the next
start.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from wirechamber.store.base import AttemptBounds, Retention
from wirechamber.store.sqlite import attempts
from wirechamber.store.sqlite.database import Database

_encode = msgspec.json.encode
_USED = f"select attempts * {attempts.ROW_BYTES} + bytes from numbered where n = ?"

# Clearing away holds the writer for this long in one go, and then for what its last rows take.
STEP_S = 0.01
# Rows that are removed before the time is looked at: of attempts, which are small, and of all else.
SMALL_ROWS = 100
LARGE_ROWS = 20
DEVICES = 5
# What is told by an index is looked for in parts of so many.
FOUND = 10_000
# An owner beyond the bound is brought this much below it, so that it is not done at every step.
SPARE_PART = 16
# So much of an owner's bound is for bodies, at least: they go first, and rows after them.
BODIES_PART = 2
# Removals of integrations and devices that are remembered for readers in memory.
MAX_FORGOTTEN = 10_000


class Sweeper:
    """Clears away what nobody sees any more, or what is too much.

    Attributes:
        wanted: There may be something to do.
        removed: Bodies and rows of attempts that were removed since the start because there were too many.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.wanted = True
        self._before = True
        # The first day whose counters stayed when it was last looked.
        self._counted_from = -1
        self.removed = 0

    async def step(self, bounds: AttemptBounds) -> bool:
        """One step, if there is anything to do; whether there was."""
        if not self.wanted:
            return False
        self.wanted = False
        done = await self._database.write(going, durable=False)
        if not done and self._before:
            room = bounds.owner // BODIES_PART
            done = self._before = await self._database.write(
                lambda db: for_a_while(lambda: attempts.is_before(db) and attempts.bring_over(db, LARGE_ROWS, room)),
                durable=False,
            )
        if not done:
            done = await self._shrink(bounds)
        self.wanted = self.wanted or done
        return done

    async def _shrink(self, bounds: AttemptBounds) -> bool:
        found = await self._database.read(lambda db: _too_much(db, bounds))
        if found is None:
            return False
        n, bodies, size = found
        drop = _drop_bodies if bodies else _drop_rows
        gone = await self._database.write(lambda db: _drop_some(db, drop, n, size), durable=False)
        self.removed += gone
        return gone > 0

    async def tidy(self, retention: Retention) -> int:
        """Removes what retention does not cover any more, step by step; finding nothing costs no write."""
        changed = 0
        for n in await self._database.read(lambda db: _outdated(db, retention.attempts_after)):
            while step := await self._change(lambda db, n=n: _drop_old(db, n, retention.attempts_after)):
                changed += step
        for n, upto in await self._database.read(lambda db: _spent(db, retention)):
            while step := await self._change(lambda db, n=n, upto=upto: _drop_spent(db, n, upto)):
                changed += step
        dead = await self._rows(_DEAD, retention.attempts_after)
        for part in _parts([row[0] for row in dead]):
            changed += await self._change(lambda db, part=part: db.execute(_DROP_DEAD, (part,)).rowcount)
        day = retention.counters_after
        # Once a day there are some: no index is kept for it.
        if day != self._counted_from:
            integrations = await self._rows("select distinct integration from counter where day < ?", day)
            for part in _parts([row[0] for row in integrations]):
                changed += await self._change(lambda db, part=part: db.execute(_DROP_COUNTERS, (part, day)).rowcount)
            self._counted_from = day
        for what in ("integration", "device"):
            (count,) = (await self._rows(f"select count(*) from {what}_removed"))[0]
            if count > MAX_FORGOTTEN:
                changed += await self._change(lambda db, what=what: _forget(db, what))
        return changed

    async def _rows(self, query: str, *values: Any) -> list[Any]:
        return await self._database.read(lambda db: db.execute(query, values).fetchall())

    async def _change(self, work: Any) -> int:
        return int(await self._database.write(work, durable=False))


def for_a_while(work: Callable[[], bool]) -> bool:
    """Does some work again and again for `STEP_S`, or until there is no more; whether there was any."""
    until = time.monotonic() + STEP_S
    done = work()
    while done and time.monotonic() < until and work():
        pass
    return done


def going(db: sqlite3.Connection) -> bool:
    """One step of clearing away removed users or integrations; whether there was one."""
    return for_a_while(lambda: _clear_some(db))


def _clear_some(db: sqlite3.Connection) -> bool:
    row = db.execute("select id from user where removed = 1 limit 1").fetchone()
    if row is not None and _clear_user(db, row[0]):
        return True
    row = db.execute("select id from integration where removed = 1 limit 1").fetchone()
    if row is None:
        return False
    _clear_integration(db, row[0])
    return True


def mark(db: sqlite3.Connection, integrations: str, values: Sequence[Any]) -> int:
    """Marks integrations as removed: from now on they are not there.

    Args:
        integrations: Which, as a condition.
    """
    found = db.execute(
        "select id, owner, length(record) + coalesce(length(secrets), 0) from integration"
        f" where removed = 0 and {integrations}",
        values,
    ).fetchall()
    for integration, owner, size in found:
        # Their secrets are gone at once. It is a change of the store's revision, as any other of an integration.
        db.execute("update integration set removed = 1, secrets = null where id = ?", (integration,))
        db.execute(
            "update holding set integrations = integrations - 1, bytes = bytes - ? where owner = ?", (size, owner)
        )
    return len(found)


def _clear_user(db: sqlite3.Connection, user: str) -> bool:
    """One step; false when only its integrations are left."""
    for query in (
        "delete from token where digest in (select digest from token where user = ? limit {n})",
        "delete from refresh_token where digest in (select digest from refresh_token where user = ? limit {n})",
        "delete from oauth_client where id in (select id from oauth_client where owner = ? limit {n})",
        "delete from claim_code where digest in (select digest from claim_code where owner = ? limit {n})",
    ):
        if db.execute(query.format(n=LARGE_ROWS), (user,)).rowcount:
            return True
    if _free_devices(db, user):
        return True
    # What is marked is passed over each time, so not for nothing, and many at a time.
    there = db.execute("select 1 from holding where owner = ? and integrations > 0", (user,)).fetchone()
    if there is not None and mark(db, f"owner = ? limit {SMALL_ROWS}", (user,)):
        return True
    if db.execute("select 1 from integration where owner = ? limit 1", (user,)).fetchone() is not None:
        return False
    db.execute("delete from holding where owner = ?", (user,))
    db.execute("delete from user where id = ?", (user,))
    return True


def _free_devices(db: sqlite3.Connection, user: str) -> bool:
    """One step: what some of the devices used, and then they are nobody's; false when there are none."""
    found = db.execute("select id from device where owner = ? limit ?", (user, DEVICES)).fetchall()
    if not found:
        return False
    devices = _text([row[0] for row in found])
    # With a device that changes hands its usage goes, all at once; it may be long.
    used = 0
    for (device,) in found:
        hours = db.execute("select hour from usage where device = ? limit ?", (device, SMALL_ROWS)).fetchall()
        if hours:
            part = _text(sorted({row[0] for row in hours}))
            query = "delete from usage where device = ? and hour in (select value from json_each(?))"
            used = db.execute(query, (device, part)).rowcount
            break
    if not used:
        db.execute("update device set owner = null where id in (select value from json_each(?))", (devices,))
    return True


def _clear_integration(db: sqlite3.Connection, integration: str) -> None:
    """One step: the first kind of row that there is any of; at last the integration itself."""
    key = db.execute("select n from numbered where integration = ?", (integration,)).fetchone()
    n = -1 if key is None else key[0]
    if _drop(db, n, _oldest(db, n, SMALL_ROWS)):
        return
    steps: list[tuple[str, Any, int]] = [
        ("delete from delivery where id in (select id from delivery where integration = ? limit {n})",
         integration, LARGE_ROWS),
        ("delete from body where seq in (select seq from body where n = ? limit {n})", n, LARGE_ROWS),
        ("delete from counter where integration = ? and day in"
         " (select day from counter where integration = ?1 limit {n})", integration, SMALL_ROWS),
        ("delete from memory where integration = ? and key in"
         " (select key from memory where integration = ?1 limit {n})", integration, LARGE_ROWS),
    ]  # fmt: skip
    if attempts.is_before(db):
        steps.append(
            ("delete from attempt_before where rowid in"
             " (select rowid from attempt_before where integration = ? limit {n})", integration, LARGE_ROWS)
        )  # fmt: skip
    for query, value, rows in steps:
        if db.execute(query.format(n=rows), (value,)).rowcount:
            return
    db.execute("delete from numbered where n = ?", (n,))
    db.execute("delete from integration where id = ?", (integration,))


# --- too much ---


def _too_much(db: sqlite3.Connection, bounds: AttemptBounds) -> tuple[int, bool, int] | None:
    """The integration of which something must go, whether it is bodies, and how many bytes; whoever has most."""
    whole = 0
    most: tuple[int, int, int, str] | None = None
    for owner, rows, size in db.execute("select owner, sum(attempts), sum(bytes) from numbered group by owner"):
        whole += size
        used = rows * attempts.ROW_BYTES + size
        if most is None or used > most[0]:
            most = used, size, rows, owner
    if most is None:
        return None
    used, size, rows, owner = most
    bodies = True
    if used > bounds.owner:
        bodies = size > bounds.owner // BODIES_PART or rows * attempts.ROW_BYTES <= size
        over = used - bounds.owner + bounds.owner // SPARE_PART
        if bodies:
            over = min(over, size)
    elif whole > bounds.bodies:
        # Of bodies alone another one may have most.
        (owner,) = db.execute("select owner from numbered group by owner order by sum(bytes) desc limit 1").fetchone()
        over = whole - bounds.bodies + bounds.bodies // SPARE_PART
    else:
        return None
    column = "bytes" if bodies else "attempts"
    (n,) = db.execute(f"select n from numbered where owner = ? order by {column} desc limit 1", (owner,)).fetchone()
    return n, bodies, over


def _drop_bodies(db: sqlite3.Connection, n: int, size: int) -> int:
    """The oldest bodies of an integration, those of successes first, up to so many bytes."""
    rows = db.execute(
        "select seq, length(detail) from body where n = ? order by ok desc, seq limit ?", (n, LARGE_ROWS)
    ).fetchall()
    chosen, sum_of = [], 0
    for seq, length in rows:
        if sum_of >= size:
            break
        chosen.append(seq)
        sum_of += length
    db.execute("delete from body where seq in (select value from json_each(?))", (_text(chosen),))
    attempts.tally(db, [(n, 0, -sum_of)])
    return len(chosen)


def _drop_rows(db: sqlite3.Connection, n: int, size: int) -> int:
    """The oldest attempts of an integration, successes first, for so many bytes."""
    return _drop(db, n, _oldest(db, n, max(1, min(SMALL_ROWS, size // attempts.ROW_BYTES))))


def _drop_some(db: sqlite3.Connection, drop: Callable[[sqlite3.Connection, int, int], int], n: int, size: int) -> int:
    """Drops for a while, but not much more than so many bytes."""
    gone = 0
    left = size

    def some() -> bool:
        nonlocal gone, left
        (before,) = db.execute(_USED, (n,)).fetchone()
        step = drop(db, n, left)
        gone += step
        (after,) = db.execute(_USED, (n,)).fetchone()
        left -= before - after
        return step > 0 and left > 0

    for_a_while(some)
    return gone


def _oldest(db: sqlite3.Connection, n: int, limit: int) -> list[Any]:
    """The oldest attempts of an integration, all successes or none."""
    for ok in (1, 0):
        query = "select ok, id, body from attempt where n = ? and ok = ? order by id limit ?"
        rows = db.execute(query, (n, ok, limit)).fetchall()
        if rows:
            return rows
    return []


def _drop(db: sqlite3.Connection, n: int, rows: Sequence[tuple[int, Any, int | None]]) -> int:
    """Removes attempts, all of one integration and all successes or none, with their bodies."""
    if not rows:
        return 0
    bodies = _text([seq for _, _, seq in rows if seq is not None])
    (size,) = db.execute(
        "select coalesce(sum(length(detail)), 0) from body where seq in (select value from json_each(?))", (bodies,)
    ).fetchone()
    db.execute("delete from body where seq in (select value from json_each(?))", (bodies,))
    gone = db.execute(
        f"delete from attempt where n = ? and ok = ? and id in ({','.join('?' * len(rows))})",
        (n, rows[0][0], *(key for _, key, _ in rows)),
    ).rowcount
    attempts.tally(db, [(n, -gone, -size)])
    return gone


# --- too old ---

_DEAD = f"select id from delivery where state = 'dead' and due_at < ? limit {FOUND}"
_DROP_DEAD = "delete from delivery where id in (select value from json_each(?))"
_DROP_COUNTERS = "delete from counter where integration in (select value from json_each(?)) and day < ?"


def _parts(ids: Sequence[str]) -> Iterator[str]:
    """Ids as JSON, so many as one statement removes the rows of."""
    for begin in range(0, len(ids), LARGE_ROWS):
        yield _text(ids[begin : begin + LARGE_ROWS])


def _outdated(db: sqlite3.Connection, before: int) -> list[int]:
    """Integrations that have attempts from before a moment: two look-ups for each."""
    end = attempts.packed(f"{max(0, before):012x}")
    query = (
        "select n from numbered where exists"
        " (select 1 from attempt where attempt.n = numbered.n and ok = 0 and id < ?1)"
        " or exists (select 1 from attempt where attempt.n = numbered.n and ok = 1 and id < ?1)"
    )
    return [row[0] for row in db.execute(query, (end,))]


def _drop_old(db: sqlite3.Connection, n: int, before: int) -> int:
    end = attempts.packed(f"{max(0, before):012x}")
    for ok in (1, 0):
        rows = db.execute(
            "select ok, id, body from attempt where n = ? and ok = ? and id < ? order by id limit ?",
            (n, ok, end, SMALL_ROWS),
        ).fetchall()
        if rows:
            return _drop(db, n, rows)
    return 0


def _spent(db: sqlite3.Connection, retention: Retention) -> list[tuple[int, int]]:
    """Integrations with bodies of successes that are neither young nor among the newest, and up to which number."""
    oldest = db.execute("select min(seq), started_at from body").fetchone()
    if oldest[0] is None or oldest[1] >= retention.bodies_after:
        return []
    found = []
    for (n,) in db.execute("select n from numbered where bytes > 0").fetchall():
        first = db.execute("select started_at from body where n = ? and ok = 1 order by seq limit 1", (n,)).fetchone()
        if first is None or first[0] >= retention.bodies_after:
            continue
        # The newest attempts of both kinds count, as the setting says: successes.
        kept = db.execute(
            "select seq from body where n = ? and ok = 1 order by seq desc limit 1 offset ?",
            (n, max(0, retention.bodies_of_newest - 1)),
        ).fetchone()
        if kept is None:
            continue
        upto = kept[0] - 1 if retention.bodies_of_newest else kept[0]
        young = db.execute(
            "select seq from body where n = ? and ok = 1 and seq <= ? and started_at < ? order by seq desc limit 1",
            (n, upto, retention.bodies_after),
        ).fetchone()
        if young is not None:
            found.append((n, young[0]))
    return found


def _drop_spent(db: sqlite3.Connection, n: int, upto: int) -> int:
    rows = db.execute(
        "select seq, length(detail) from body where n = ? and ok = 1 and seq <= ? order by seq limit ?",
        (n, upto, LARGE_ROWS),
    ).fetchall()
    db.execute("delete from body where seq in (select value from json_each(?))", (_text([row[0] for row in rows]),))
    attempts.tally(db, [(n, 0, -sum(row[1] for row in rows))])
    return len(rows)


def _forget(db: sqlite3.Connection, what: str) -> int:
    """Keeps the newest removals only; who read less than the others must read everything."""
    (upto,) = db.execute(
        f"select changed from {what}_removed order by changed desc limit 1 offset ?", (MAX_FORGOTTEN // 2,)
    ).fetchone()
    db.execute("insert or replace into forgotten values (?, ?)", (what, upto))
    return db.execute(
        f"delete from {what}_removed where id in"
        f" (select id from {what}_removed where changed <= ? limit {20 * SMALL_ROWS})",
        (upto,),
    ).rowcount


def _text(value: Any) -> str:
    return _encode(value).decode()
