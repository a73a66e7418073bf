"""What devices measured of themselves, as events on their way to the log."""

from __future__ import annotations

from collections.abc import Mapping

from wirechamber.clock import SteadyClock
from wirechamber.gateway.intake import Arrival
from wirechamber.gateway.link import Link
from wirechamber.model.events import Event
from wirechamber.model.links import Vital
from wirechamber.services.vitals import vitals_event


class Measured(Arrival):
    """Tells the owner what a device measured."""

    __slots__ = ("_clock", "_link", "_metrics")

    def __init__(self, link: Link, metrics: Mapping[str, Vital], clock: SteadyClock) -> None:
        super().__init__()
        self._link = link
        self._metrics = metrics
        self._clock = clock

    def make(self) -> Event:
        """As `Arrival.make`."""
        assert self._link.device is not None
        return vitals_event(self._link.device, self._metrics, self._clock)
