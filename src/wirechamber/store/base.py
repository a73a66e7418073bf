"""What a store is, whatever keeps it: small repositories and a revision.

Users, tokens, devices, keys and integrations change rarely and are written durably at once; deliveries and attempts are
written in batches, where a power loss repeats a delivery and never loses one (the log is the truth they follow).
Sessions and what devices told are written durably too, many at a time: a device believes us that we have it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from wirechamber.model.deliveries import Attempt, DayCount, Delivery, Settlement, Standing, Step
from wirechamber.model.devices import Device
from wirechamber.model.integrations import IntegrationRecord
from wirechamber.model.keys import ClaimCode, DeviceKeys
from wirechamber.model.links import (
    Change,
    Checkpoint,
    Description,
    KnownSession,
    LinkRecord,
    Reservation,
    Session,
    Vitals,
)
from wirechamber.model.usage import Usage
from wirechamber.store.accounts import OAuthClients, Tokens, Users

# Each set-up of a device makes a code: of one user there are so many.
MAX_CLAIM_CODES = 1_000
# Measurements of one device, about a kilobyte each.
MAX_VITALS = 250


class DeviceFilter(Struct, frozen=True):
    """Which of an owner's devices to list: `name` is a part of the name, without regard to case."""

    owner: str | None = None
    name: str | None = None
    online: bool | None = None


class DeviceCount(Struct, frozen=True):
    """How many devices there are: all, and those on a cellular platform."""

    all: int
    cellular: int


class DeviceChanges(Struct, frozen=True):
    """What happened to the registry since a revision, for those who keep devices in memory.

    Attributes:
        changed: Devices that are new, or have another owner, name, notes or product.
        removed: Ids of devices that are not known any more.
        rekeyed: Ids of devices whose keys changed; their sessions were removed with it.
        whole: `changed` is all that there are: removals are not remembered for so long, and whatever else a reader
            knows is gone.
    """

    revision: int
    changed: Sequence[Device]
    removed: Sequence[str]
    rekeyed: Sequence[str]
    whole: bool = False


class Devices(Protocol):
    """Every device this cloud knows. What its link told is filled in; writing a record leaves that as it is."""

    async def add(self, device: Device) -> None:
        """Raises Conflict when the id is known, or the owner has another device of that name."""

    async def add_new(self, devices: Sequence[Device]) -> list[str]:
        """Adds those whose ids are not known yet, all or none; returns the ids of the others.

        Raises:
            Conflict: An owner has another device of one of the names.
            NotFound: One's owner is unknown.
        """

    async def get(self, device_id: str) -> Device | None: ...

    async def by_name(self, owner: str, name: str) -> Device | None:
        """The owner's device of that name, compared without regard to case."""

    async def find(self, where: DeviceFilter, *, limit: int | None = None, offset: int = 0) -> tuple[list[Device], int]:
        """One page, newest `last_handshake_at` first and then newest created, and the number of all that match.

        A page of all devices of an owner costs about the same however many those are.
        """

    async def ids(self, where: DeviceFilter) -> list[str]:
        """The ids of all that match, in the order of `find`."""

    async def some(self, device_ids: Sequence[str]) -> list[Device]:
        """Those of these ids that there are, in their order."""

    async def count(self, owner: str) -> DeviceCount:
        """How many devices an owner has."""

    async def update(self, device: Device) -> None:
        """Stores the whole record. Raises NotFound, or Conflict when the owner has another device of that name."""

    async def claim(self, device_id: str, owner: str, *, proved: bool = False) -> Device | None:
        """Gives a free device to the owner, atomically. Returns the device as it is now (whose owner may be another,
        if it was not free), or None when it is unknown.

        Whenever a device gets another owner, what was the old one's goes: name, notes, usage, vitals and, while it is
        offline, its address; and a public key that neither the new one nor the operator nor the device itself bound.

        Args:
            proved: The device itself asks for it, by its key, which it keeps.
        """

    async def remove(self, device_id: str) -> bool:
        """Removes it with its keys, sessions, what it told and its usage."""

    async def changes(self, since_revision: int) -> DeviceChanges:
        """Everything that changed after a revision; 0 for all that exist."""


class Keys(Protocol):
    """What proves that a device is the one it says. Pre-shared keys are encrypted at rest."""

    async def get(self, device_id: str) -> DeviceKeys | None: ...

    async def set(self, keys: DeviceKeys) -> bool:
        """Stores the whole record. Another key than before ends the device's sessions in the same transaction.

        Returns:
            Whether something changed.

        Raises:
            NotFound: The device is unknown.
        """

    async def bind(self, keys: DeviceKeys) -> DeviceKeys:
        """Stores the keys if the device has none at all yet, atomically; returns what it has now.

        Raises:
            NotFound: The device is unknown.
        """


class Claims(Protocol):
    """Claim codes, by digest."""

    async def add(self, code: ClaimCode) -> None:
        """Stores it. Of an owner's `MAX_CLAIM_CODES` the oldest goes."""

    async def redeem(self, digest: bytes, device_id: str, now: int) -> ClaimCode | None:
        """Marks the code as used by the device, atomically; None when there is no such code, its time is over, or
        another device used it."""

    async def remove_expired(self, now: int) -> int: ...


class Sessions(Protocol):
    """DTLS sessions. Every write survives power loss: what a device was sent or answered rests on it."""

    async def add(self, session: Session) -> None:
        """Stores a session; one of an unknown device is left out."""

    async def known(self) -> list[KnownSession]:
        """All of them, lightly."""

    async def get(self, session_id: str) -> Session | None:
        """None, too, if it can't be read."""

    async def several(self, session_ids: Sequence[str]) -> dict[str, Session | None]:
        """Those that are there; None for one that can't be read: damaged, or sealed with another key."""

    async def of_device(self, device_id: str) -> list[Session]:
        """Those that can be read, oldest first."""

    async def account(
        self, checkpoints: Sequence[Checkpoint], reservations: Sequence[Reservation], cursor: str | None
    ) -> None:
        """Writes state down, all or none. Nothing goes back: a number that is lower than the stored one leaves it.
        Sessions that are not there are left out.

        Args:
            cursor: How far the log is contained in these and earlier checkpoints; None leaves it.
        """

    async def cursor(self) -> str | None:
        """From where on the log must be read after a restart; None before the first `account`."""

    async def remove(self, session_ids: Sequence[str]) -> int: ...


class Links(Protocol):
    """What devices told, and where they are. Changes are not changes of the store's revision."""

    async def apply(self, changes: Sequence[Change]) -> None:
        """Stores changes in their order, all or none, and survives power loss; calls at the same time share a
        transaction. Changes of devices that are not known (any more) are left out."""

    async def heard(self, times: Mapping[str, int]) -> None:
        """When devices were heard last, milliseconds since 1970; a power loss may take it back."""

    async def refused(self, counts: Mapping[str, int]) -> None:
        """So many more events of devices were refused; a power loss may take it back."""

    async def get(self, device_id: str) -> LinkRecord | None: ...

    async def several(self, device_ids: Sequence[str]) -> dict[str, LinkRecord]:
        """Those of them that have one."""

    async def description(self, device_id: str) -> Description:
        """The long things that it told; empty when it told none."""

    async def vitals(
        self, device_id: str, *, since: int | None = None, until: int | None = None, limit: int | None = None
    ) -> list[Vitals]:
        """What the device measured of itself, newest first; of each device the newest `MAX_VITALS` are kept.

        Args:
            since, until: Milliseconds since 1970, the first in and the last not.
        """

    async def forget_vitals(self, before: int) -> int:
        """Removes what was measured before; returns how many there were."""

    async def online(self) -> list[LinkRecord]:
        """Every device that is online, by id."""

    async def remove(self, device_id: str) -> bool:
        """Forgets all that a device told, and its sessions."""


class UsageFilter(Struct, frozen=True):
    """Whose usage, and of when: `since` and `until` are hours since 1970, the first in and the last not."""

    device: str | None = None
    devices: Sequence[str] | None = None
    owner: str | None = None
    since: int | None = None
    until: int | None = None


class Usages(Protocol):
    """What devices used, by hour and purpose."""

    async def add(self, rows: Sequence[Usage]) -> None:
        """Adds to what is there; rows of unknown devices are left out. A power loss may take back the last seconds."""

    async def hours(self, where: UsageFilter) -> list[Usage]:
        """Rows as they are, by hour, device and purpose."""

    async def totals(self, where: UsageFilter) -> list[Usage]:
        """Sums over hours, by device and purpose; `hour` is the first one with any."""

    async def tidy(self, before_hour: int) -> int:
        """Removes older hours; returns how many rows."""


class IntegrationChanges(Struct, frozen=True):
    """What happened to integrations since a revision.

    Attributes:
        whole: `changed` is all that there are: removals are not remembered for so long, and whatever else a reader
            knows is gone.
    """

    revision: int
    changed: Sequence[IntegrationRecord]
    removed: Sequence[str]
    whole: bool = False


class Holding(Struct, frozen=True):
    """What an owner's integrations are together: how many, and bytes of their configurations as stored."""

    integrations: int = 0
    bytes: int = 0


class HoldingFull(Exception):
    """An owner's integrations would be more (`many`), or larger, than they may be.

    Attributes:
        holding: What there is without the one in question.
    """

    def __init__(self, holding: Holding, *, many: bool) -> None:
        super().__init__(str(holding))
        self.holding = holding
        self.many = many


class Integrations(Protocol):
    """Configured integrations. `secrets` are encrypted at rest."""

    async def add(self, record: IntegrationRecord, most: Holding | None = None) -> IntegrationRecord:
        """Stores it and returns it with its revision. Its cost does not grow with what the owner has.

        Raises:
            HoldingFull: The owner would have more than `most`.
        """

    async def get(self, integration_id: str) -> IntegrationRecord | None: ...

    async def of_owner(self, owner: str) -> list[IntegrationRecord]:
        """Oldest first."""

    async def page(
        self,
        owner: str,
        limit: int,
        after: tuple[int, str] | None = None,
        kind: str | None = None,
        offset: int = 0,
    ) -> list[IntegrationRecord]:
        """Some of an owner's, oldest first; fewer than `limit` when they are large, none only when there are no more.

        Args:
            after: `created_at` and id of the last one of the page before.
            kind: Only those of this kind.
            offset: Leaves out so many; its cost grows with them.
        """

    async def named(self, owner: str, name: str, limit: int) -> list[IntegrationRecord]:
        """Those of an owner that people call so, oldest first; its cost grows with what the owner has."""

    async def count(self, owner: str, kind: str) -> int:
        """How many of a kind an owner has; its cost grows with what the owner has."""

    async def holding(self, owner: str) -> Holding:
        """What an owner has, at hand."""

    async def update(self, record: IntegrationRecord, most: Holding | None = None) -> IntegrationRecord:
        """Stores the whole record and returns it with its new revision.

        Raises:
            NotFound: It is not there.
            HoldingFull: It is larger than before, and the owner would have more than `most`.
        """

    async def remove(self, integration_id: str) -> bool:
        """Removes it with its deliveries, attempts, counters and memory: from now on it is not there. Its rows are
        cleared away by `Deliveries.sweep`."""

    async def changes(self, since_revision: int) -> IntegrationChanges:
        """Everything that changed after a revision; 0 for all that exist."""


class AttemptFilter(Struct, frozen=True):
    """Which attempts to list. `ok` None means both; `before` is an attempt id to page back from; `id` names one."""

    id: str | None = None
    ok: bool | None = None
    device: str | None = None
    before: str | None = None


class AttemptBounds(Struct, frozen=True):
    """How much is kept of attempts, in bytes.

    Attributes:
        owner: Of one owner's: rows, requests and answers.
        bodies: Of everybody's requests and answers together.
    """

    owner: int
    bodies: int


class Retention(Struct, frozen=True):
    """How long attempts are kept; all times are moments in milliseconds since 1970.

    Attributes:
        bodies_of_newest: A success keeps its detail while it is among this many newest of its integration …
        bodies_after: … or started after this.
        attempts_after: Attempts, failures too, are removed when they started before this.
        counters_after: The first day (days since 1970) whose counters stay.
    """

    bodies_of_newest: int
    bodies_after: int
    attempts_after: int
    counters_after: int


class Deliveries(Protocol):
    """What the courier still has to do, what it did, and how far dispatch has read."""

    async def settle(self, settlement: Settlement) -> None:
        """Stores one batch, all or none; daily counters follow from its attempts. Deliveries and attempts of an
        integration that was removed meanwhile are left out. The same attempt twice is stored (and counted) once."""

    async def cursor(self, reader: str) -> str | None:
        """How far a durable reader has come (`dispatch` is moved by `settle`)."""

    async def due(self, now: int, limit: int, without: Sequence[str] = ()) -> list[Delivery]:
        """Waiting deliveries whose time has come, the most overdue first of each integration, none of the
        integrations in `without`. Its cost must not grow with the backlog of those. Integrations have their turn one
        after the other, from call to call."""

    async def next_due(self) -> int | None:
        """When the next waiting delivery is due."""

    async def overdue_answers(self, now: int, limit: int) -> list[Delivery]:
        """Waiting or held deliveries whose device has waited past its deadline and was told nothing yet."""

    async def next_deadline(self) -> int | None:
        """When the next such deadline passes."""

    async def get(self, delivery_id: str) -> Delivery | None: ...

    async def hold(self, integration_id: str) -> int:
        """Sets an integration's waiting deliveries aside (it was disabled). Returns how many. Others write in between;
        of `hold` and `release` at the same time, the one that began later has its way."""

    async def release(self, integration_id: str, due_at: int) -> int:
        """Makes an integration's held deliveries wait again. Returns how many."""

    async def release_active(self, due_at: int) -> int:
        """The same for every integration that is active (asked once, at the start). Returns how many."""

    async def bring_forward(self, ms: int) -> int:
        """Makes what waits due so much earlier, since steady time was set back. Returns how many."""

    async def open_of(self, integration_id: str) -> int:
        """How many deliveries of the integration are waiting or held."""

    async def standing(self, integration_ids: Sequence[str]) -> dict[str, Standing]:
        """How each of these integrations stands. Its cost does not grow with what waits for them."""

    async def steps(self, delivery_ids: Sequence[str]) -> dict[str, Step]:
        """How far these deliveries have come, of those that are not done."""

    async def known(self, deliveries: Sequence[tuple[str, str]], since: int) -> set[str]:
        """Which of these deliveries were attempted or kept before (asked once, after a restart).

        Args:
            deliveries: Their ids, each with that of its integration.
            since: When the first of their events came, milliseconds since 1970.
        """

    async def attempts(self, integration_id: str, where: AttemptFilter, limit: int) -> list[Attempt]:
        """Newest first: none only when there are no more, but fewer than `limit` when they are large."""

    async def counts(self, integration_ids: Sequence[str], since_day: int) -> dict[str, list[DayCount]]:
        """Daily counters, oldest first; days without any are left out."""

    async def recall(self, integration_id: str, key: str) -> Any | None:
        """A value that the integration's plan asked to remember."""

    async def tidy(self, retention: Retention) -> int:
        """Removes what retention no longer covers; returns how many rows changed. Works in short transactions."""

    async def sweep(self, bounds: AttemptBounds) -> bool:
        """Clears away for some milliseconds: rows of removed integrations and users, the oldest attempts of whoever
        has too many, and what an older version left. Returns whether there was anything to do."""

    @property
    def crowded_out(self) -> int:
        """How many attempts, or requests and answers of attempts, went because there were too many."""


class Store(Protocol):
    """All repositories over one data store."""

    @property
    def users(self) -> Users: ...
    @property
    def tokens(self) -> Tokens: ...
    @property
    def clients(self) -> OAuthClients: ...
    @property
    def devices(self) -> Devices: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def claims(self) -> Claims: ...
    @property
    def sessions(self) -> Sessions: ...
    @property
    def links(self) -> Links: ...
    @property
    def usage(self) -> Usages: ...
    @property
    def integrations(self) -> Integrations: ...
    @property
    def deliveries(self) -> Deliveries: ...

    async def seen(self, cursor: str) -> None:
        """Notes how far the log has come. Should it end before that after a restart, events are missing at its end."""

    def revision(self) -> int:
        """A number that grows with every change to users, tokens, devices, keys or integrations, made by any process.

        Synchronous and cheap (microseconds): caches compare it before they answer.
        """

    def accounts_changed(self, since_revision: int) -> Collection[str]:
        """Ids of users who changed, were removed or had a token removed after a revision; as cheap as `revision`."""
