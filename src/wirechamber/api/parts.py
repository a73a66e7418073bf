"""What the API is made of: the services it calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from wirechamber.api.http import Network
from wirechamber.clock import Clock
from wirechamber.eventlog.base import EventLog
from wirechamber.observe.metrics import Metrics
from wirechamber.services.access import Access
from wirechamber.services.devices import Devices
from wirechamber.services.functions import Functions
from wirechamber.services.grants import Grants
from wirechamber.services.identity import Identity
from wirechamber.services.integrations import Integrations
from wirechamber.services.publishing import Publishing
from wirechamber.services.usage import Usages
from wirechamber.services.vitals import VitalSigns
from wirechamber.settings import Settings
from wirechamber.streams.hub import Hub
from wirechamber.streams.past import Past


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a handler may use.

    Attributes:
        ready: Raises Unavailable when this cloud can't do its part.
        trusted_proxies: Networks whose word on the client's address counts.
    """

    settings: Settings
    clock: Clock
    metrics: Metrics
    access: Access
    grants: Grants
    devices: Devices
    functions: Functions
    identity: Identity
    usage: Usages
    vitals: VitalSigns
    integrations: Integrations
    publishing: Publishing
    log: EventLog
    hub: Hub
    past: Past
    ready: Callable[[], Awaitable[None]]
    trusted_proxies: tuple[Network, ...] = field(default=())

    def base_url(self, host: str, scheme: str) -> str:
        """How clients reach this cloud: the setting, else as this client did."""
        return self.settings.base_url.rstrip("/") or f"{scheme}://{host}"
