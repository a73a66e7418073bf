"""What devices measure of themselves, in the shape that Particle's clients and consoles read (cloud-api.md, section 7).

Firmware numbers what it measures; the numbers' meanings are those of its header `diagnostics.h`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from wirechamber.clock import Clock, SteadyClock
from wirechamber.errors import BadInput, NotFound
from wirechamber.model.devices import Device
from wirechamber.model.events import Event
from wirechamber.model.links import Vital, Vitals
from wirechamber.model.times import iso, parse_iso
from wirechamber.services.devices import Devices
from wirechamber.services.told import event_about
from wirechamber.store.base import Store
from wirechamber.switchboard.base import Describe, Switchboard

VITALS_EVENT = "spark/device/diagnostics/update"

# By what the firmware calls it: where in `device` it stands.
_PLACES: dict[str, str] = {
    "net:cell:cgi:mcc": "network.cellular.cell_global_identity.mobile_country_code",
    "net:cell:cgi:lac": "network.cellular.cell_global_identity.location_area_code",
    "net:cell:cgi:ci": "network.cellular.cell_global_identity.cell_id",
    "net:sigstr": "network.signal.strength",
    "net:sigstrv": "network.signal.strengthv",
    "net:sigqual": "network.signal.quality",
    "net:sigqualv": "network.signal.qualityv",
    "net:alt:sigstr": "network.alternate_signal.strength",
    "net:alt:sigstrv": "network.alternate_signal.strengthv",
    "net:alt:sigqual": "network.alternate_signal.quality",
    "net:alt:sigqualv": "network.alternate_signal.qualityv",
    "net:err": "network.connection.error",
    "net:dconn": "network.connection.disconnects",
    "net:connatt": "network.connection.attempts",
    "cloud:err": "cloud.connection.error",
    "cloud:connatt": "cloud.connection.attempts",
    "cloud:dconn": "cloud.connection.disconnects",
    "coap:transmit": "cloud.coap.transmit",
    "coap:resend": "cloud.coap.retransmit",
    "coap:unack": "cloud.coap.unack",
    "coap:roundtrip": "cloud.coap.round_trip",
    "pub:limit": "cloud.publish.rate_limited",
    "batt:soc": "power.battery.charge",
    "sys:uptime": "system.uptime",
    "sys:uram": "system.memory.used",
    "sys:tram": "system.memory.total",
}
_NETWORK_STATUS = {
    0: "turned_off", 1: "turning_on", 2: "disconnected", 3: "connecting", 4: "connected", 5: "disconnecting",
    7: "turning_off",
}  # fmt: skip
_CLOUD_STATUS = {0: "disconnected", 1: "connecting", 2: "connected", 3: "disconnecting"}
_NETWORK_REASONS = {
    0: "none", 1: "error", 2: "user", 3: "network_off", 4: "listening", 5: "sleep", 6: "reset", 7: "unknown",
}  # fmt: skip
_CLOUD_REASONS = {
    0: "none", 1: "error", 2: "user", 3: "network_disconnect", 4: "listening", 5: "system_reset", 6: "sleep",
    7: "unknown", 8: "server_moved",
}  # fmt: skip
_BATTERY = {
    0: "unknown", 1: "not_charging", 2: "charging", 3: "charged", 4: "discharging", 5: "fault", 6: "disconnected",
}  # fmt: skip
_POWER = {0: "unknown", 1: "VIN", 2: "USB host", 3: "USB adapter", 4: "USB OTG", 5: "battery"}
_TECHNOLOGY = {
    0: "none", 1: "Wi-Fi", 2: "GSM", 3: "EDGE", 4: "UMTS", 5: "CDMA", 6: "LTE", 7: "IEEE 802.15.4", 8: "LTE Cat-M1",
    9: "LTE Cat-NB1",
}  # fmt: skip
# Numbers that stand for words.
_WORDS: dict[str, tuple[str, dict[int, str]]] = {
    "net:stat": ("network.connection.status", _NETWORK_STATUS),
    "net:dconnrsn": ("network.connection.disconnect_reason", _NETWORK_REASONS),
    "net:at": ("network.signal.at", _TECHNOLOGY),
    "net:alt:at": ("network.alternate_signal.at", _TECHNOLOGY),
    "cloud:stat": ("cloud.connection.status", _CLOUD_STATUS),
    "cloud:dconnrsn": ("cloud.connection.disconnect_reason", _CLOUD_REASONS),
    "batt:state": ("power.battery.state", _BATTERY),
    "pwr:src": ("power.source", _POWER),
}
_MNC = "net:cell:cgi:mnc"
# What strength and quality of a signal are called, by how the network is reached.
_SIGNAL_TYPES = {
    "Wi-Fi": ("RSSI", "SNR"), "GSM": ("RSSI", "BER"), "EDGE": ("RSSI", "BER"), "UMTS": ("RSCP", "ECN0"),
    "LTE": ("RSRP", "RSRQ"), "LTE Cat-M1": ("RSRP", "RSRQ"), "LTE Cat-NB1": ("RSRP", "RSRQ"),
}  # fmt: skip


def payload(metrics: Mapping[str, Vital], *, cloud_uptime: int | None = None) -> dict[str, Any]:
    """What a device measured, in Particle's shape: `device`, and `service` for what the cloud knows.

    What has no place there is under `device.other`, by the firmware's name; what could not be measured is
    `{"err": NUMBER}`.

    Args:
        cloud_uptime: Seconds since the device connected.
    """
    device: dict[str, Any] = {}
    for name, value in metrics.items():
        if name in _WORDS:
            place, words = _WORDS[name]
            _put(device, place, words.get(value, str(value)) if isinstance(value, int) else value)
        elif name == _MNC:
            # Negative for a code of two digits: a leading zero counts.
            digits = 2 if isinstance(value, int) and value < 0 else 3
            code = f"{abs(value):0{digits}}" if isinstance(value, int) else value
            _put(device, "network.cellular.cell_global_identity.mobile_network_code", code)
        elif name in _PLACES:
            _put(device, _PLACES[name], round(value, 2) if isinstance(value, float) else value)
        else:
            _put(device, "other", {**device.get("other", {}), name: value})
    network = device.get("network", {})
    for signal in (network.get("signal"), network.get("alternate_signal")):
        if signal is not None:
            _say_units(signal)
    service: dict[str, Any] = {"device": {"status": "ok"}}
    if cloud_uptime is not None:
        service["cloud"] = {"uptime": cloud_uptime}
    if isinstance(trip := metrics.get("coap:roundtrip"), int):
        service["coap"] = {"round_trip": trip}
    return {"device": device, "service": service}


def _put(into: dict[str, Any], place: str, value: Any) -> None:
    *parents, last = place.split(".")
    for parent in parents:
        into = into.setdefault(parent, {})
    into[last] = value


def _say_units(signal: dict[str, Any]) -> None:
    strength, quality = _SIGNAL_TYPES.get(str(signal.get("at")), (None, None))
    for name, unit, kind in (
        ("strength", "%", None), ("strengthv", "dBm", strength), ("quality", "%", None), ("qualityv", "dB", quality),
    ):  # fmt: skip
        if isinstance(signal.get(name), int | float):
            signal[f"{name}_units"] = unit
            if kind is not None:
                signal[f"{name}_type"] = kind


def vitals_event(device: Device, metrics: Mapping[str, Vital], clock: SteadyClock) -> Event:
    """The event that tells a device's owner what it measured (cloud-api.md, section 5)."""
    return event_about(device, VITALS_EVENT, msgspec.json.encode(payload(metrics)).decode(), clock)


def view(device: Device, vitals: Vitals) -> dict[str, Any]:
    """One set of measurements as the API shows it."""
    since = device.last_handshake_at
    # Of which connection older ones were is not known any more.
    uptime = None if since is None or vitals.at < since else (vitals.at - since) // 1000
    return {
        "updated_at": iso(vitals.at),
        "deviceID": device.id,
        "payload": payload(vitals.metrics, cloud_uptime=uptime),
    }


class VitalSigns:
    """What owners may ask of their devices' measurements.

    Args:
        switchboard: Reaches devices; None in a process without links.
    """

    def __init__(self, store: Store, devices: Devices, clock: Clock, switchboard: Switchboard | None = None) -> None:
        self._store = store
        self._devices = devices
        self._clock = clock
        self._switchboard = switchboard

    async def last(self, owner: str, id_or_name: str) -> dict[str, Any]:
        """The newest.

        Raises:
            Forbidden: The device is unknown or not the owner's.
            NotFound: It has told none.
        """
        device = await self._devices.get(owner, id_or_name)
        found = await self.newest(device)
        if found is None:
            raise NotFound(
                "the device has told no vitals yet; Particle.publishVitals() tells some, and POST "
                "/v1/diagnostics/:id/update asks for them"
            )
        return found

    async def newest(self, device: Device) -> dict[str, Any] | None:
        """The newest of a device, as the API shows it; None when there is none."""
        found = await self._store.links.vitals(device.id, limit=1)
        return view(device, found[0]) if found else None

    async def history(self, owner: str, id_or_name: str, start: str | None, end: str | None) -> list[dict[str, Any]]:
        """Those that are kept, newest first.

        Args:
            start, end: ISO times between which they came; None for no bound.

        Raises:
            Forbidden: The device is unknown or not the owner's.
            BadInput: A time is none.
        """
        device = await self._devices.get(owner, id_or_name)
        since, until = _time("start_date", start), _time("end_date", end)
        found = await self._store.links.vitals(device.id, since=since, until=until)
        return [view(device, each) for each in found]

    async def refresh(self, owner: str, id_or_name: str) -> None:
        """Asks the device to measure now; returns when what it told is stored.

        Raises:
            Forbidden: The device is unknown or not the owner's.
            DeviceUnreachable: It is offline, or does not answer.
        """
        device = await self._devices.get(owner, id_or_name)
        assert self._switchboard is not None
        await self._switchboard.ask(device.id, Describe())


def _time(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_iso(text)
    except (ValueError, OverflowError):
        problem = BadInput(f"{name} must be an ISO 8601 time, such as 2026-11-28T12:00:00Z", error="bad_request")
        # Where clients of these routes look.
        problem.extra["description"] = problem.description
        raise problem from None
