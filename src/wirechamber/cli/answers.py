"""What the API answers to commands, as far as they read it; what comes is checked against this."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import msgspec


class Counters(TypedDict):
    """Deliveries of today that are done, and that were given up."""

    success: int
    error: int


class Integration(TypedDict):
    """An integration in the list."""

    id: str
    integration_type: str
    name: str | None
    event: str
    url: NotRequired[str]
    disabled: bool
    paused: str | None
    todayCounters: Counters
    waiting: int
    failing: bool
    last_error: str | None
    next_try_at: str | None
    hint: NotRequired[str]


class Made(TypedDict):
    """An integration that was made or changed."""

    id: str
    name: str | None
    event: str
    disabled: bool
    warnings: list[str]
    url: NotRequired[str]


class Shown(TypedDict):
    """One integration."""

    integration: dict[str, Any]


class Kind(TypedDict):
    """A kind of integration."""

    integration_type: str
    description: str
    installed: bool
    install: str | None


class Kinds(TypedDict):
    """All kinds."""

    kinds: list[Kind]


class Request(TypedDict):
    """What was sent."""

    method: str
    url: str
    headers: list[tuple[str, str]]
    body: NotRequired[str | None]
    body_length: NotRequired[int]


class Response(TypedDict):
    """What was answered."""

    status: int
    headers: list[tuple[str, str]]
    body: NotRequired[str | None]
    body_length: NotRequired[int]


class Step(TypedDict):
    """One request of an attempt that took several."""

    request: NotRequired[Request | None]
    response: NotRequired[Response | None]
    error: NotRequired[str | None]


class Attempt(TypedDict):
    """An attempt in the log."""

    id: str
    event: str
    event_id: str
    coreid: str
    attempt: int
    final: bool
    ok: bool
    status: int | None
    error: str | None
    time: str
    duration_ms: int
    next_try_at: str | None
    request: NotRequired[Request | None]
    response: NotRequired[Response | None]
    earlier: NotRequired[list[Step]]
    together: NotRequired[int]


class Log(TypedDict):
    """Some attempts, newest first."""

    logs: list[Attempt]
    hint: NotRequired[str]


class OneLog(TypedDict):
    """One attempt."""

    log: Attempt


class Tested(TypedDict):
    """What came of a sample event."""

    ok: bool
    error: str | None
    duration_ms: int
    request: Request | None
    response: Response | None
    warnings: NotRequired[list[str]]


def fits(value: Any, form: Any) -> bool:
    """Whether a value has at least what a form has."""
    try:
        msgspec.convert(value, form)
    except msgspec.ValidationError:
        return False
    return True
