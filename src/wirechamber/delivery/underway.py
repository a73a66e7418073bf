"""What deliveries are under way, noted where it outlives the process: a delivery that ends the process is found out.

A template that takes all memory, or a kind that kills its process, would do so again after each start, because what was
acknowledged is delivered. So a mapped file says at any moment which plans are under way, and whose code runs just now;
the kernel keeps it when the process is killed. A note is a copy of some bytes in memory, without a system call.

After an unclean end the file tells who may be to blame:

- Whose code ran is suspected. At the second such end it is set aside: no attempt is made any more.
- What only waited for an answer is blamed for nothing at first: a process that is killed has hundreds of these. What
  waited at many ends in a row is tried again by itself, and set aside if that goes on.

A delivery whose attempt comes to its end is not suspected any more.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct as Layout

import structlog
from msgspec import Struct

_log = structlog.get_logger("wirechamber.delivery")

FILE = "under-way"
# Ends at which a delivery's own code was running; at the last of these it is set aside.
BUSY_ENDS = 2
# Ends in a row at which it was under way in any manner: after the first number it goes by itself, after the second …
CAREFUL_ENDS = 3
WAITING_ENDS = 5
# Deliveries of one integration that were set aside; then the integration is paused.
PAUSED_AFTER = 2
# For so long what was set aside counts against its integration.
REMEMBERED_MS = 24 * 3_600_000
MAX_SUSPECTS = 512
# Deliveries that the note of one plan names, beside its integration.
NAMED = 31

_MAGIC = b"wirechamber 1\n\0\0"
_SUSPECT = Layout("<32s24sBBHI")
_SLOT = 24 + 4 + NAMED * 32
_NOW = len(_MAGIC)
_SUSPECTS = _NOW + 8
_SLOTS = _SUSPECTS + MAX_SUSPECTS * _SUSPECT.size
_NOTHING = bytes(4)
_HOUR_MS = 3_600_000

WHY = "set aside: the cloud ended {} times while this was being delivered"


class Suspect(Struct):
    """A delivery that was under way when the process ended.

    Attributes:
        busy: At so many ends its own code was running.
        waiting: At so many ends in a row it was under way.
        at: When that was last, in hours since 1970.
        aside: It is set aside.
    """

    integration: str
    busy: int = 0
    waiting: int = 0
    at: int = 0
    aside: bool = False

    @property
    def guilty(self) -> bool:
        """Whether no attempt may be made any more."""
        return self.busy >= BUSY_ENDS or self.waiting >= WAITING_ENDS


class UnderWay:
    """The notes of this process, and what those of the one before say.

    Args:
        folder: Where the file is.
        plans: How many may be under way at a time.
        now: Steady time, in milliseconds.

    Attributes:
        cautious: Integrations whose code ran at the last end: their deliveries do not go together in one plan.
        hopeless: Integrations of which too many were set aside.
    """

    def __init__(self, folder: Path, plans: int, now: int) -> None:
        self._file = folder / FILE
        self._suspects, self.cautious = _read(self._file, now)
        counts: dict[str, int] = {}
        for suspect in self._suspects.values():
            if suspect.aside or suspect.guilty:
                counts[suspect.integration] = counts.get(suspect.integration, 0) + 1
        self.hopeless = frozenset(each for each, count in counts.items() if count >= PAUSED_AFTER)
        self._careful = {key for key, each in self._suspects.items() if each.waiting >= CAREFUL_ENDS}
        self._places: dict[str, int] = {}
        # The first slot is for what is looked at before it is part of a plan; tests go beside the lanes.
        slots = 1 + plans + SPARE
        self._map = self._new(_SLOTS + slots * _SLOT)
        self._free = list(range(slots, 1, -1))
        if self._suspects:
            _log.warning(
                "deliveries_suspected",
                deliveries=len(self._suspects),
                set_aside=[key for key, each in self._suspects.items() if each.guilty and not each.aside],
            )

    # --- what is noted, at any moment ---

    def look(self, delivery: str, integration: str) -> None:
        """The code of a delivery's kind runs from now on, though it is part of no plan yet."""
        self._write(1, integration, [delivery])
        self._now(1)

    def begin(self, integration: str, deliveries: Sequence[str]) -> int:
        """A plan is under way from now on; returns its place in the notes, 0 when there is none left."""
        if not self._free:
            return 0
        slot = self._free.pop()
        self._write(slot, integration, deliveries)
        return slot

    def runs(self, slot: int) -> None:
        """A plan's own code runs from now on."""
        self._now(slot)

    def rests(self) -> None:
        """Nobody's code runs any more."""
        self._map[_NOW : _NOW + 4] = _NOTHING

    def end(self, slot: int) -> None:
        """A plan has ended."""
        if slot:
            at = _SLOTS + (slot - 1) * _SLOT + 24
            self._map[at : at + 4] = _NOTHING
            self._free.append(slot)

    # --- who is suspected ---

    @property
    def any(self) -> bool:
        """Whether anybody is suspected at all."""
        return bool(self._suspects)

    def verdict(self, delivery: str) -> str | None:
        """Why no attempt of a delivery may be made, if that is so."""
        suspect = self._suspects.get(delivery)
        if suspect is None or not suspect.guilty:
            return None
        return WHY.format(max(suspect.busy, suspect.waiting))

    def careful(self, delivery: str) -> bool:
        """Whether a delivery must go while no other such one does."""
        return delivery in self._careful

    def through(self, delivery: str) -> None:
        """An attempt of a delivery has ended, or it was set aside and that is written down."""
        suspect = self._suspects.get(delivery)
        if suspect is None or suspect.aside:
            return
        if suspect.guilty:
            suspect.aside = True
            self._put(self._places[delivery], delivery, suspect)
        else:
            del self._suspects[delivery]
            self._careful.discard(delivery)
            self._clear(self._places.pop(delivery))

    def forget(self, integrations: Sequence[str]) -> None:
        """These were saved anew, or are gone: what happened with their old configuration does not count any more."""
        for delivery, suspect in list(self._suspects.items()):
            if suspect.aside and suspect.integration in integrations:
                del self._suspects[delivery]
                self._clear(self._places.pop(delivery))

    def close(self) -> None:
        """The process ends in order: nothing of what is under way is to blame."""
        self.rests()
        for slot in range((len(self._map) - _SLOTS) // _SLOT):
            at = _SLOTS + slot * _SLOT + 24
            self._map[at : at + 4] = _NOTHING
        self._map.close()

    # --- bytes ---

    def _now(self, slot: int) -> None:
        self._map[_NOW : _NOW + 4] = slot.to_bytes(4, "little")

    def _write(self, slot: int, integration: str, deliveries: Sequence[str]) -> None:
        named = deliveries[:NAMED]
        note = b"%-24.24b%b%b" % (
            integration.encode(),
            len(named).to_bytes(4, "little"),
            b"".join([b"%-32.32b" % each.encode() for each in named]),
        )
        at = _SLOTS + (slot - 1) * _SLOT
        self._map[at : at + len(note)] = note

    def _put(self, place: int, delivery: str, suspect: Suspect) -> None:
        _SUSPECT.pack_into(
            self._map,
            _SUSPECTS + place * _SUSPECT.size,
            delivery.encode()[:32],
            suspect.integration.encode()[:24],
            min(suspect.busy, 255),
            min(suspect.waiting, 255),
            suspect.aside,
            suspect.at,
        )

    def _clear(self, place: int) -> None:
        at = _SUSPECTS + place * _SUSPECT.size
        self._map[at : at + _SUSPECT.size] = bytes(_SUSPECT.size)

    def _new(self, size: int) -> mmap.mmap:
        """A fresh file in place of the old one, which stays as it is until this one says as much."""
        fresh = self._file.with_suffix(".new")
        try:
            descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                # A page without room behind it would end the process when it is written.
                os.posix_fallocate(descriptor, 0, size)
                made = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
            self._fill(made)
            made.flush()
            fresh.rename(self._file)
        except OSError as problem:
            _log.warning("under_way_unnoted", why=str(problem))
            made = mmap.mmap(-1, size)
            self._fill(made)
        return made

    def _fill(self, made: mmap.mmap) -> None:
        self._map = made
        made[: len(_MAGIC)] = _MAGIC
        for place, (delivery, suspect) in enumerate(self._suspects.items()):
            self._places[delivery] = place
            self._put(place, delivery, suspect)


# Plans beyond the lanes' places that have a note: tests that owners make.
SPARE = 64


def _read(file: Path, now: int) -> tuple[dict[str, Suspect], frozenset[str]]:
    """Who is suspected after what a file says, and the integrations whose code was running."""
    try:
        notes = file.read_bytes()
    except OSError:
        return {}, frozenset()
    if not notes.startswith(_MAGIC) or len(notes) < _SLOTS:
        return {}, frozenset()
    before = dict(_suspects(notes, now // _HOUR_MS))
    busy = int.from_bytes(notes[_NOW : _NOW + 4], "little")
    after = {key: each for key, each in before.items() if each.busy or each.aside}
    cautious: set[str] = set()
    for slot in range(1, (len(notes) - _SLOTS) // _SLOT + 1):
        integration, deliveries = _slot(notes, slot)
        if slot == 1 and busy != 1:
            continue
        if slot == busy and deliveries:
            cautious.add(integration)
        for delivery in deliveries:
            known = before.get(delivery) or Suspect(integration)
            if known.aside:
                continue
            known.waiting += 1
            known.busy += slot == busy
            known.at = now // _HOUR_MS
            after[delivery] = known
    # Those to whom most points, if there are too many.
    ranked = sorted(after.items(), key=lambda item: (item[1].busy, item[1].waiting), reverse=True)
    return dict(ranked[:MAX_SUSPECTS]), frozenset(cautious)


def _suspects(notes: bytes, hour: int) -> Iterator[tuple[str, Suspect]]:
    for place in range(MAX_SUSPECTS):
        delivery, integration, busy, waiting, aside, at = _SUSPECT.unpack_from(notes, _SUSPECTS + place * _SUSPECT.size)
        if delivery[0] and abs(hour - at) * _HOUR_MS <= REMEMBERED_MS:
            yield _text(delivery), Suspect(_text(integration), busy, waiting, at, bool(aside))


def _slot(notes: bytes, slot: int) -> tuple[str, list[str]]:
    at = _SLOTS + (slot - 1) * _SLOT
    count = min(NAMED, int.from_bytes(notes[at + 24 : at + 28], "little"))
    begin = at + 28
    return _text(notes[at : at + 24]), [
        _text(notes[begin + 32 * each : begin + 32 * (each + 1)]) for each in range(count)
    ]


def _text(padded: bytes) -> str:
    return padded.decode("ascii", "replace").rstrip(" \0")
