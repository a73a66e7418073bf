"""Events that are not delivered to a device, and why: too long for it, in no form that it takes, or never acknowledged.

What can't be delivered is given up: it is counted with its reason, told once for each device, and nobody waits for it.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

import structlog
from msgspec import Struct

from wirechamber.gateway.link import Link
from wirechamber.model.events import Event
from wirechamber.observe.logs import Seldom

# How many connections of a device may end with the same event unacknowledged. Firmware that can't take a message drops
# the connection (0.6 to 5.x) or crashes; so may a network, but not in the same place again and again.
MAX_CONNECTIONS = 3
# Devices of which it is remembered what they did not acknowledge when a connection ended, and events of one.
MAX_DEVICES = 10_000
MAX_EVENTS = 16
# Devices that are told apart in the log, and how often each is told about for the same reason, seconds.
MAX_TOLD = 10_000
TOLD_EVERY_S = 3600.0


class Why(StrEnum):
    """Why a device does not get an event."""

    TOO_LARGE = "too_large"
    # It takes no such data: a handler for text, and an event of bytes.
    FORMAT = "format"
    UNACKNOWLEDGED = "unacknowledged"
    # Too much waits already: it is sent later.
    BUSY = "busy"


class Unsent(Struct, frozen=True):
    """An event was not sent.

    Attributes:
        size: Bytes of its message, or of its data where the device takes no more in any message; 0: that is not why.
        room: What the device takes, bytes.
        partly: Some of its handlers get it, in another form.
    """

    why: Why
    size: int = 0
    room: int = 0
    partly: bool = False


class Undelivered:
    """Counts and tells.

    Attributes:
        counts: Events that devices did not get, by reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter({why.value: 0 for why in Why if why is not Why.BUSY})
        self._log = Seldom(structlog.get_logger("wirechamber.gateway"), TOLD_EVERY_S, MAX_TOLD)

    def note(self, link: Link, event: Event, unsent: Unsent) -> None:
        """A device does not get an event."""
        why = unsent.why
        self.counts[why.value] += 1
        entry, text = _TEXTS[why]
        device = "" if link.device is None else link.device.id
        # Of the message, and for it: structured data may be longer than the text that it was made of.
        more = {"message": unsent.size, "room": unsent.room} if unsent.room else {}
        self._log.warning(
            entry,
            why=text,
            about=device,
            device=device,
            name=event.name,
            bytes=len((event.data or "").encode("utf-8", "replace")),
            firmware=link.takes.generation.name,
            owner=event.owner,
            **more,
        )


_TEXTS = {
    Why.TOO_LARGE: (
        "event_too_large_for_devices",
        "longer than the device takes in one message; let the answers of webhooks come in chunks",
    ),
    Why.FORMAT: (
        "event_of_no_use_to_device",
        "its handlers take text, and the event is binary; subscribe for binary or structured data",
    ),
    Why.UNACKNOWLEDGED: (
        "event_never_acknowledged",
        "one connection of the device after the other ended with it; it is not sent again",
    ),
}


class Suspects:
    """What devices had not acknowledged when a connection ended: how many connections, by device and event's id.

    Which of several it was is not known, so each is sent by itself until it is acknowledged or given up.
    """

    def __init__(self) -> None:
        self._by_device: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._by_device)

    def ended(self, device: str, events: list[str]) -> None:
        """A connection ended, and these were not acknowledged."""
        if not events:
            return
        # The one that had trouble last is forgotten last.
        suspects = self._by_device.pop(device, {})
        for event in events:
            suspects[event] = suspects.get(event, 0) + 1
        while len(suspects) > MAX_EVENTS:
            del suspects[next(iter(suspects))]
        self._by_device[device] = suspects
        if len(self._by_device) > MAX_DEVICES:
            del self._by_device[next(iter(self._by_device))]

    def any(self, device: str) -> bool:
        """Whether the device has any: then it is sent one event at a time."""
        return device in self._by_device

    def guilty(self, device: str, event: str) -> bool:
        """Whether an event has had its chances."""
        suspects = self._by_device.get(device)
        return suspects is not None and suspects.get(event, 0) >= MAX_CONNECTIONS

    def clear(self, device: str, event: str) -> None:
        """The event was acknowledged, or is given up."""
        suspects = self._by_device.get(device)
        if suspects is not None and suspects.pop(event, 0) and not suspects:
            del self._by_device[device]

    def forget(self, device: str) -> None:
        """The device has everything."""
        self._by_device.pop(device, None)
