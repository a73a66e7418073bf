"""The curves: what each is about, in which unit, and what is wanted of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.harness import Size


@dataclass(frozen=True)
class Curve:
    """One line of the table.

    Attributes:
        goal: `<= 3` or `>= 3`, of the value at the largest size.
        growth: How much larger the value at the largest size may be than at the smallest.
    """

    title: str
    unit: str
    goal: str = ""
    growth: float | None = None

    def wanted(self) -> str:
        """The goal in words."""
        parts = [self.goal.replace("<=", "≤").replace(">=", "≥")] if self.goal else []
        if self.growth is not None:
            parts.append(f"≤ {self.growth:g} × from first to last")
        return ", ".join(parts)

    def met(self, values: Mapping[int, float]) -> bool | None:
        """Whether it is as wanted; None when nothing is."""
        if not values or (not self.goal and self.growth is None):
            return None
        first, last = values[min(values)], values[max(values)]
        sign, _, number = self.goal.partition(" ")
        good = not self.goal or (last <= float(number) if sign == "<=" else last >= float(number))
        return good and (self.growth is None or last <= self.growth * first)


@dataclass(frozen=True)
class Point:
    """What was measured at one size."""

    curve: str
    size: int
    value: float

    def row(self) -> dict[str, Any]:
        """As results hold it."""
        return {"curve": self.curve, "size": self.size, "value": float(f"{self.value:.3g}")}


Sizes = Mapping[Size, tuple[int, ...]]

CURVES: Mapping[str, Curve] = {
    "devices_start": Curve("devices: start", "s CPU"),
    "devices_memory": Curve("devices: memory after the start", "MB"),
    "devices_page": Curve("`GET /v1/devices?per_page=25`", "ms CPU", "<= 3"),
    "devices_list": Curve("whole list of devices", "ms CPU"),
    "devices_list_hold": Curve("whole list of devices, longest hold of the loop", "ms", "<= 50"),
    "devices_list_memory": Curve("whole list of devices, memory at its peak", "MB"),
    "devices_import": Curve("register devices from a CSV", "s CPU", "<= 10"),
    "sessions_memory": Curve("device sessions: memory each", "KB", "<= 6"),
    "sessions_idle": Curve("device sessions: idle CPU", "%", "<= 1"),
    "restart_plain": Curve("all devices speak after kill -9, none subscribed: CPU each", "ms"),
    "restart_plain_last": Curve("the same: last acknowledged after", "s"),
    "restart_subscribed": Curve("all subscribed devices speak after kill -9: CPU each", "ms", "<= 0.6"),
    "restart_subscribed_last": Curve("the same: last acknowledged after", "s", "<= 15"),
    "broadcast_hold": Curve("broadcast to all subscribed devices: longest hold of the loop", "ms", "<= 20"),
    "broadcast_twice": Curve("the same: devices that got it twice", "devices"),
    "streams_memory": Curve("streams: memory each", "KB", "<= 4"),
    "streams_idle": Curve("streams: idle CPU", "%", "<= 2"),
    "streams_fanout": Curve("streams: fan-out, CPU per message", "µs"),
    "prefixes": Curve("streams with n different prefixes of one owner, publish", "ms CPU", growth=1.2),
    "owners": Curve("n owners with a stream each, publish", "ms CPU", growth=1.2),
    "owners_saves": Curve("n owners with a stream each, idle CPU with a save a second", "%", "<= 1"),
    "quiet": Curve("n quiet owners' streams resume behind 20,000 events of others: CPU afterwards", "%", "<= 1"),
    "storm": Curve("n streams resume at once from behind the tail: all have caught up after", "s", "<= 10"),
    "storm_publish": Curve("the same: p99 of publishing meanwhile, against before", "×", "<= 2"),
    "integration_create": Curve("create an integration, n of one owner", "ms CPU", "<= 1.2"),
    "integration_matches": Curve("one event matches n integrations", "ms CPU"),
    "log_start": Curve("log of n events: start", "s CPU"),
    "log_publish": Curve("log of n events: publish", "ms CPU", growth=1.2),
    "log_trim": Curve("log of n events: trimming with nothing to do", "ms CPU"),
    "log_bytes": Curve("log of n events of 100 bytes: bytes each", "bytes", "<= 600"),
    "log_device": Curve("replay of the 50 events of one device among n", "ms CPU", "<= 5"),
    "log_prefix": Curve("replay of the 50 events of a rare prefix among n", "ms CPU"),
    "log_readers": Curve("p50 of publishing during four such replays, against before", "×", "<= 2"),
    "attempts_tidy": Curve("n attempts: tidying with nothing to do", "ms CPU"),
    "attempts_tidy_hold": Curve("the same: longest wait of another's save", "ms", "<= 50"),
    "attempts_page": Curve("log page for a device without attempts among n", "ms CPU", "<= 3"),
    "attempts_delete": Curve("delete an integration with n attempts: until it is quiet again", "s CPU"),
    "attempts_delete_hold": Curve("the same: longest wait of another's save", "ms", "<= 50"),
    "removed": Curve("rows that tell of n removed integrations and devices, an hour later", "rows", "<= 10000"),
}
