"""A device's link, whatever carries it: what is known of the device while it is connected."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wirechamber.eventlog.base import Cursor
from wirechamber.gateway.allowance import Allowance
from wirechamber.gateway.meter import Counts, Purpose
from wirechamber.gateway.mids import Mids
from wirechamber.model.devices import Device
from wirechamber.model.generations import takes
from wirechamber.protocols.coap.exchange import Endpoint

if TYPE_CHECKING:
    from wirechamber.gateway.outbox import Outbox
    from wirechamber.model import links
    from wirechamber.model.links import Subscription
    from wirechamber.protocols.coap.blockwise import Receiver


class Link(ABC):
    """One device's association with this cloud.

    Attributes:
        id: Of the session, 32 hex digits.
        device: The registry's record; None until the device has said who it is.
        endpoint: Its CoAP exchanges; None while nothing of the device was heard since this process started.
        deviceos: It speaks Device OS; otherwise plain CoAP.
        reliable: What carries it loses nothing (TCP): nothing is sent again.
        online: Its owner was told that it is.
        doubtful: It was online and left a question unanswered: it is tried, and not waited for as long.
        heard: When something authentic came last, seconds, monotonic.
        idle_limit: Seconds of silence after which it is taken to be gone.
        describing: Done when the device has described itself; None while nobody waits for that.
        takes: What its device takes: how long messages may be, and what it understands.
        closed: Nothing more will be sent or received.
        mids: Message ids of its stored events, for after a restart.
        storing: Message ids of events that are on their way to the log.
        in_flight: Bytes of their data.
        parts: Blocks of a message that is not complete yet.
        published: The meter's counts of what publishing takes.
        timer: When the exchanges must be looked at next, as far as the timers know.
        keep_alive: How it is kept in touch with, where its device told.
        asleep: Its device is in queue mode and has not been heard for a while: what is for it waits.
        pinged: What `heard` was when it was pinged last.
        claimed_id: The device id that the handshake told, if it did.
        behind: Up to where the device has had its events; set while it is away.
        noted: What of that the store was told last.
        handshake: Bytes and datagrams up, and down, of the time before it was known whose they are.
    """

    __slots__ = (
        "address", "allowance", "asleep", "behind", "claimed_id", "closed", "describing", "device", "deviceos",
        "doubtful", "endpoint", "handshake", "heard", "id", "idle_limit", "in_flight", "keep_alive", "mids", "noted",
        "online", "outbox", "parts", "pinged", "published", "reliable", "storing", "subscriptions", "system_allowance",
        "takes", "timer", "told",
    )  # fmt: skip

    def __init__(self, session_id: str, *, deviceos: bool, reliable: bool = False) -> None:
        self.id = session_id
        self.deviceos = deviceos
        self.reliable = reliable
        self.device: Device | None = None
        self.endpoint: Endpoint | None = None
        self.online = False
        self.doubtful = False
        self.heard = 0.0
        self.idle_limit = 0.0
        self.describing: asyncio.Future[None] | None = None
        self.takes = takes(None)
        self.keep_alive: links.KeepAlive | None = None
        self.asleep = False
        self.pinged = 0.0
        self.closed = False
        self.address: tuple[Any, ...] = ()
        self.mids = Mids()
        self.storing: set[int] = set()
        self.in_flight = 0
        self.parts: Receiver | None = None
        self.published: Counts | None = None
        self.allowance: Allowance | None = None
        self.system_allowance: Allowance | None = None
        self.subscriptions: tuple[Subscription, ...] = ()
        self.outbox: Outbox | None = None
        self.timer: float | None = None
        # When its being heard was last noted for the store.
        self.told = 0.0
        self.claimed_id: str | None = None
        self.behind: Cursor | None = None
        self.noted: Cursor | None = None
        self.handshake: list[int] | None = None

    @property
    def alive(self) -> bool:
        """Whether it is not closed."""
        return not self.closed

    @property
    def dormant(self) -> bool:
        """Whether it is in the store only, and what its device has had is not known here."""
        return False

    def room(self, answer: int) -> int:
        """The longest message that its device takes, bytes.

        Args:
            answer: What it must have room for behind it, as `generations.Takes.room`.
        """
        return self.takes.room(reliable=self.reliable, answer=answer)

    @property
    def host(self) -> str:
        """The address that the device comes from."""
        return str(self.address[0]) if self.address else ""

    @property
    @abstractmethod
    def public_key(self) -> bytes | None:
        """The key that the device proved to hold, DER; None where a pre-shared key did that."""

    @property
    @abstractmethod
    def psk_identity(self) -> bytes | None:
        """The identity whose pre-shared key the device proved to hold."""

    @abstractmethod
    def record(self, device: str, now: int) -> links.Session | None:
        """What the store keeps of it, so that it outlives this process; None when it ends with it."""

    @abstractmethod
    def send(self, message: bytes, purpose: Purpose) -> None:
        """Sends one CoAP message; what can't be sent now is lost, as on any network."""

    @abstractmethod
    def next_id(self) -> int:
        """A message id that the device has not seen from us for long, 16 bits."""

    @abstractmethod
    def after_accounting(self, then: Callable[[], Any]) -> None:
        """Calls `then` once what was received so far can't be received again, even after a crash."""

    @abstractmethod
    def moved(self, sequence: int, address: tuple[Any, ...]) -> bool:
        """A message of this number, which can't be played again, came from this address.

        Returns:
            Whether its device is elsewhere than it was.
        """

    def count_handshake(self, up: int, up_datagrams: int, down: int, down_datagrams: int) -> None:
        """Adds to what the beginning took, before it is known whose it is."""
        counts = self.handshake
        if counts is None:
            counts = self.handshake = [0, 0, 0, 0]
        counts[0] += up
        counts[1] += up_datagrams
        counts[2] += down
        counts[3] += down_datagrams

    @abstractmethod
    def greeted(self, device: Device) -> None:
        """It is known, and stored, whose link this is."""

    @abstractmethod
    def refuse(self) -> None:
        """Tells the device, in the way that it believes, that it is not welcome."""

    @abstractmethod
    def discard(self) -> None:
        """Tells the device that its session is over, so that it comes back with a new one."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of whatever carries it."""
