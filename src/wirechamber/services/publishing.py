"""Accepting events: check, store, acknowledge. Everything else reads the log."""

from __future__ import annotations

import shutil
from typing import Any

import msgspec

from wirechamber.clock import SteadyClock
from wirechamber.errors import BadInput, Unavailable
from wirechamber.eventlog.base import Cursor, EventLog
from wirechamber.model.events import BY_API, Event
from wirechamber.model.ids import derived_id, new_id
from wirechamber.model.names import DEFAULT_TTL, MAX_TTL, check_name, check_not_reserved
from wirechamber.observe.metrics import Metrics
from wirechamber.settings import Settings

# How full the disk is, is looked at this often.
DISK_CHECK_S = 1.0
MAX_IDEMPOTENCY_KEY = 255


class Publishing:
    """Accepts events that users publish through the API."""

    def __init__(self, log: EventLog, clock: SteadyClock, settings: Settings, metrics: Metrics) -> None:
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._max_bytes = settings.max_event_bytes
        self._folder = settings.data_folder
        self._floor = settings.disk_floor_mb * 1024 * 1024
        self._look_at = 0.0
        self._room = True

    async def publish(
        self, owner: str, name: Any, data: Any = None, ttl: Any = None, idempotency_key: str | None = None
    ) -> Cursor:
        """Stores an event of the owner's; returns its cursor once it is durable.

        Args:
            data: Text or nothing; any other JSON value is stored as its compact JSON.
            ttl: Seconds, as number or text.
            idempotency_key: Publishing again with the same key stores nothing.

        Raises:
            BadInput: Name, data or ttl can't be taken.
            Unavailable: The log can't be written, or the disk is nearly full.
        """
        name = check_not_reserved(check_name(name))
        text = _text(data)
        if text is not None and len(text) * 4 > self._max_bytes:
            self._check_size(text)
        now = self._clock.now()
        self.check_disk()
        event = Event(
            id=new_id(now) if idempotency_key is None else _keyed_id(owner, idempotency_key),
            name=name,
            data=text,
            published_at=now,
            received_at=self._clock.steady(),
            owner=owner,
            coreid=BY_API,
            partition=owner,
            origin="api",
            ttl=DEFAULT_TTL if ttl in (None, "") else _ttl(ttl),
        )
        (cursor,) = await self._log.append((event,))
        self._metrics.event("api")
        return cursor

    def _check_size(self, text: str) -> None:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise BadInput("data holds half of a character (a lone surrogate); send valid text") from None
        if size > self._max_bytes:
            raise BadInput(f"data is too long: {size} bytes, at most {self._max_bytes} are allowed")

    def check_disk(self) -> None:
        """Raises Unavailable when less of the disk is free than the setting wants; looked at once a second."""
        now = self._clock.monotonic()
        if now >= self._look_at:
            self._look_at = now + DISK_CHECK_S
            self._room = self._floor == 0 or shutil.disk_usage(self._folder).free >= self._floor
        if not self._room:
            raise Unavailable("the disk of this cloud is nearly full; nothing was stored, try again later")


def _text(data: Any) -> str | None:
    if data is None or isinstance(data, str):
        return data
    return msgspec.json.encode(data).decode()


def _ttl(ttl: Any) -> int:
    try:
        seconds = int(ttl)
        whole = not isinstance(ttl, bool) and (not isinstance(ttl, float) or ttl == seconds)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise BadInput("ttl must be a whole number of seconds")
    return min(max(seconds, 0), MAX_TTL)


def _keyed_id(owner: str, key: str) -> str:
    # Bytes of a header that are no UTF-8 come as lone surrogates, which are not printable.
    if not 0 < len(key) <= MAX_IDEMPOTENCY_KEY or not key.isprintable():
        raise BadInput(f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} printable characters")
    return derived_id("0" * 12, owner, key)
