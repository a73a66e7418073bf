"""A device's link, whatever carries it: what is known of the device while it is connected."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wirechamber.gateway.allowance import Allowance
from wirechamber.gateway.meter import Purpose
from wirechamber.model.devices import Device
from wirechamber.protocols.coap.exchange import Endpoint

if TYPE_CHECKING:
    from wirechamber.gateway.outbox import Outbox
    from wirechamber.model.links import Subscription


class Link(ABC):
    """One device's association with this cloud.

    Attributes:
        id: Of the session, 32 hex digits.
        device: The registry's record; None until the device has said who it is.
        endpoint: Its CoAP exchanges; None while nothing of the device was heard since this process started.
        deviceos: It speaks Device OS; otherwise plain CoAP.
        online: Its owner was told that it is.
        heard: When something authentic came last, seconds, monotonic.
        idle_limit: Seconds of silence after which it is taken to be gone.
        accepts_types: It understands content formats of events (Device OS 6.2 and later).
        max_message: The largest CoAP message that it takes, bytes.
        closed: Nothing more will be sent or received.
    """

    __slots__ = (
        "accepts_types", "allowance", "closed", "deviceos", "device", "endpoint", "heard", "id", "idle_limit",
        "max_message", "online", "outbox", "subscriptions", "system_allowance", "timer",
    )  # fmt: skip

    def __init__(self, session_id: str, *, deviceos: bool) -> None:
        self.id = session_id
        self.deviceos = deviceos
        self.device: Device | None = None
        self.endpoint: Endpoint | None = None
        self.online = False
        self.heard = 0.0
        self.idle_limit = 0.0
        self.accepts_types = True
        self.max_message = 1152
        self.closed = False
        self.allowance: Allowance | None = None
        self.system_allowance: Allowance | None = None
        self.subscriptions: tuple[Subscription, ...] = ()
        self.outbox: Outbox | None = None
        # When the exchanges must be looked at next, as far as the timers know.
        self.timer: float | None = None

    @property
    def alive(self) -> bool:
        """Whether it is not closed."""
        return not self.closed

    @abstractmethod
    def send(self, message: bytes, purpose: Purpose) -> None:
        """Sends one CoAP message; what can't be sent now is lost, as on any network."""

    @abstractmethod
    def next_id(self) -> int:
        """A message id that the device has not seen from us for long, 16 bits."""

    @abstractmethod
    def after_accounting(self, then: Callable[[], Any]) -> None:
        """Calls `then` once what was received so far can't be received again, even after a crash."""
