"""Which events an owner had lately, for whoever wonders why an integration does nothing: mostly its prefix is off."""

from __future__ import annotations

from contextlib import suppress

from msgspec import Struct

from wirechamber.errors import Unavailable
from wirechamber.eventlog.base import EventLog, Scope
from wirechamber.model.integrations import IntegrationRecord

# So many of an owner's newest events are looked at.
LOOKED_AT = 200
# Pages that they may come in, when they are large.
MAX_PAGES = 8
SHOWN_NAMES = 5
_SYSTEM = ("spark/", "particle/")


class Lately(Struct, frozen=True):
    """What could have triggered an integration: names of events with the devices that published them, newest first."""

    seen: tuple[tuple[str, str | None], ...]

    @classmethod
    async def of(cls, owner: str, log: EventLog) -> Lately:
        """Of an owner's newest events; none while the log can't be read."""
        seen: dict[tuple[str, str | None], None] = {}
        with suppress(Unavailable):
            await cls._look(owner, log, seen)
        return cls(tuple(reversed(seen)))

    @staticmethod
    async def _look(owner: str, log: EventLog, seen: dict[tuple[str, str | None], None]) -> None:
        after = await log.within(owner, log.origin, LOOKED_AT)
        for _ in range(MAX_PAGES):
            page = await log.read(Scope(owner=owner), after, LOOKED_AT)
            for entry in page.entries:
                event = entry.event
                if event.origin != "integration":
                    # Those that came again are newer.
                    seen.pop((event.name, event.device), None)
                    seen[event.name, event.device] = None
            after = page.after
            if not page.more:
                return


def hint(record: IntegrationRecord, lately: Lately) -> dict[str, str]:
    """`{"hint": …}` when none of the events that came lately would have triggered an integration; else nothing."""
    if not record.active or not lately.seen:
        return {}
    devices = [device for name, device in lately.seen if name.startswith(record.event)]
    if any(record.device in (None, device) for device in devices):
        return {}
    if devices:
        return {"hint": f"events that begin with {record.event!r} came lately, but none of the device {record.device}"}
    names = list(dict.fromkeys(name for name, _ in lately.seen))
    # What it may have been meant for first, what the cloud says of devices last.
    names.sort(key=lambda name: (not _is_near(record.event, name), name.startswith(_SYSTEM)))
    shown = ", ".join(map(repr, names[:SHOWN_NAMES])) + (", …" if len(names) > SHOWN_NAMES else "")
    case = "; letter case matters" if _is_near(record.event, names[0]) else ""
    return {"hint": f"no event that came lately begins with {record.event!r}{case}. There were {shown}"}


def misses(record: IntegrationRecord, name: str, lately: Lately) -> list[str]:
    """What a test of an integration does not show: why a real event may not trigger it."""
    found: list[str] = []
    if record.disabled:
        found.append("it is disabled: no event triggers it")
    elif record.paused is not None:
        found.append("it is paused: no event triggers it until it is saved again")
    if not name.startswith(record.event):
        case = "; letter case matters" if _is_near(record.event, name) else ""
        found.append(f"an event named {name!r} would not trigger it: it does not begin with {record.event!r}{case}")
    return found + list(hint(record, lately).values())


def _is_near(prefix: str, name: str) -> bool:
    """Whether the name begins with the prefix but for letter case and blanks around."""
    return name.lower().startswith(prefix.strip().lower())
