"""How much devices may publish: as much as their firmware lets them (device-protocol.md, section 12)."""

from __future__ import annotations

from typing import Any

from tests.gateway.inside import HandClock
from wirechamber.gateway.intake import Arrival
from wirechamber.gateway.link import Link
from wirechamber.gateway.meter import Meter
from wirechamber.gateway.publications import Publications
from wirechamber.gateway.tcp import TcpLink
from wirechamber.model.devices import Device
from wirechamber.model.generations import takes
from wirechamber.model.links import Greeting
from wirechamber.protocols.coap.message import Code, read_message
from wirechamber.protocols.deviceos.messages import Publish
from wirechamber.settings import Settings


class Clock(HandClock):
    def steady(self) -> int:
        return self.now()

    def ahead(self) -> int:
        return 0


class Intake:
    """Keeps what is to be stored."""

    def __init__(self) -> None:
        self.waiting: list[Arrival] = []

    def add(self, arrival: Arrival) -> bool:
        self.waiting.append(arrival)
        return True


class Wire(TcpLink):
    """A link whose answers are kept."""

    __slots__ = ("answers",)

    def __init__(self) -> None:
        Link.__init__(self, "s", deviceos=True, reliable=True)
        self.answers: list[int] = []

    def send(self, message: bytes, purpose: Any) -> None:
        self.answers.append(read_message(message).code)


class Desk:
    """Where a device's events are taken, with the settings that one has by default."""

    def __init__(self, version: int) -> None:
        self.clock = Clock()
        self.intake = Intake()
        settings = Settings()
        self.publications = Publications(
            intake=self.intake,  # type: ignore[arg-type]
            meter=Meter(), clock=self.clock, rate=settings.publish_rate, burst=settings.publish_burst,
            max_bytes=settings.max_event_bytes, claim=lambda link, code: None, tell=lambda link, name, data: None,
            heard=lambda link, moved: None,
        )  # fmt: skip
        self.link = Wire()
        self.link.device = Device(id="0" * 24, created_at=0, owner="a" * 32)
        self.link.takes = takes(Greeting(platform=32, product=32, flags=0x36, system_version=version))
        self._id = 0

    def publish(self, size: int = 1, times: int = 1) -> int:
        """Publishes; returns how many were taken."""
        before = len(self.intake.waiting)
        for _ in range(times):
            self._id += 1
            self.publications.take(self.link, Publish("x", b"x" * size, None, 60, True, self._id), self._id, size, ())
        return len(self.intake.waiting) - before

    def store(self) -> None:
        """What waits is stored."""
        waiting, self.intake.waiting = self.intake.waiting, []
        for arrival in waiting:
            arrival.stored()


def test_firmware_that_keeps_its_own_measure_is_never_refused() -> None:
    # Four within any second, for a minute; and those of two seconds at once, when the network has held them up.
    desk = Desk(6200)
    for _ in range(60):
        assert desk.publish(times=4) == 4
        desk.clock.at += 1.0
    desk.clock.at += 1.0
    assert desk.publish(times=8) == 8
    assert desk.publish() == 0
    assert desk.link.answers[-1] == Code.TOO_MANY_REQUESTS
    assert desk.publications.refused == {"rate": 1}


def test_eight_in_quick_succession_are_stored() -> None:
    desk = Desk(6200)
    for _ in range(8):
        assert desk.publish() == 1
        desk.clock.at += 0.3


def test_firmware_since_6_3_is_bounded_by_what_is_not_acknowledged_yet() -> None:
    desk = Desk(6300)
    assert desk.publish(times=100) == 100
    desk.store()
    assert desk.publish(16_000, times=3) == 2
    assert desk.link.answers[-1] == Code.TOO_MANY_REQUESTS
    assert desk.publications.refused == {"in_flight": 1}
    # As soon as they are stored, there is room again.
    desk.store()
    assert desk.link.in_flight == 0
    assert desk.publish(16_000, times=2) == 2
    # What can't be stored leaves room, too.
    for arrival in desk.intake.waiting:
        arrival.refused()
    assert desk.link.in_flight == 0


def test_a_flood_is_one_whatever_the_firmware() -> None:
    desk = Desk(6300)
    taken = 0
    for _ in range(2_000):
        taken += desk.publish()
        desk.store()
    assert taken == 512
