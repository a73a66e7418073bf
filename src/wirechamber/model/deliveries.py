"""Deliveries and their attempts: what the courier does about one event for one integration."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from wirechamber.model.events import Event

# `held` waits for its integration to be enabled again; `dead` is exhausted or refused and kept.
DeliveryState = Literal["waiting", "held", "dead"]


class Delivery(Struct, frozen=True, kw_only=True):
    """A delivery that outlived its first attempt, or that waits too long for one. It holds a copy of its event, so
    that retries never depend on the log's retention.

    Attributes:
        id: Derived from event and integration, so that making it twice gives one.
        due_at: When the next attempt may start, in steady time (see `clock`), like the other two times.
        attempts: How many have been made.
        deadline_at: When the device's answer is overdue; one hook-error is appended then, unless `error_told`.
    """

    id: str
    integration: str
    owner: str
    event: Event
    cursor: str
    state: DeliveryState
    due_at: int
    attempts: int
    deadline_at: int
    error_told: bool = False
    created_at: int
    why: str | None = None


class Attempt(Struct, frozen=True, kw_only=True):
    """One try, as the log of the integration shows it. The first success of a delivery is its settlement.

    Attributes:
        number: From 1.
        ok: The target took it.
        final: No other attempt will follow.
        status: The HTTP status of the last answer, or None when there was none.
        why: The error text (`ETIMEDOUT`, `error status 404 from HOST`); None when ok.
        detail: Requests and responses as sent, secrets masked, bodies cut (see `delivery.record`), as JSON; None once
            retention removed it.
    """

    id: str
    delivery: str
    integration: str
    owner: str
    event_id: str
    event_name: str
    device: str | None
    coreid: str
    number: int
    started_at: int
    duration_ms: int
    ok: bool
    final: bool
    status: int | None = None
    why: str | None = None
    detail: bytes | None = None


class Standing(Struct, frozen=True):
    """How an integration stands at present.

    Attributes:
        waiting: Deliveries that wait or are held; as many as were counted, if there are more.
        due_at: When the next attempt of one of them may start, in steady time; None when none waits.
        failed_at: When the newest attempt was made, if that failed; None otherwise.
        why: Why it failed.
    """

    waiting: int = 0
    due_at: int | None = None
    failed_at: int | None = None
    why: str | None = None


class Step(Struct, frozen=True):
    """How far a delivery has come that was attempted and is not done: so many attempts, and when the next may start (in
    steady time), if it waits for one."""

    attempts: int
    due_at: int | None


class DayCount(Struct, frozen=True):
    """What an integration did on one day (days since 1970, UTC)."""

    day: int
    success: int = 0
    error: int = 0
    retried: int = 0


class Settlement(Struct, frozen=True, kw_only=True):
    """Everything that one batch of finished attempts changes, stored in one transaction.

    Attributes:
        upsert: Deliveries to keep for later.
        remove: Ids of deliveries that are done.
        remember: Values that plans asked to keep, by (integration, key).
        cursor: How far the reader has come, or None to leave it.
    """

    attempts: tuple[Attempt, ...] = ()
    upsert: tuple[Delivery, ...] = ()
    remove: tuple[str, ...] = ()
    remember: tuple[tuple[str, str, Any], ...] = ()
    cursor: str | None = None
