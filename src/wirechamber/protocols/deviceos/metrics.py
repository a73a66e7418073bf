"""A device's vital signs (device-protocol.md, section 7.2, metrics)."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from wirechamber.protocols.deviceos.cbor import cbor_to_json
from wirechamber.protocols.deviceos.messages import Kind

# Firmware has about 45 of its own; applications may add some.
MAX_METRICS = 512
# Of names and numbers.
MAX_NAMED_BYTES = 16_384
MAX_NAME = 64
# Ids from here on are the application's.
FIRST_OF_APPLICATION = 32_768
_FAILED = 0x8000

# Names as the firmware calls them.
NAMES = {
    1: "sys:reset", 2: "mem:free", 3: "batt:soc", 4: "sys:loop", 5: "app:loop", 6: "sys:uptime", 7: "batt:state",
    8: "net:stat", 9: "net:err", 10: "cloud:stat", 12: "net:dconn", 13: "cloud:err", 14: "cloud:dconn",
    15: "net:ip:addr", 16: "net:ip:gw", 17: "net:flags", 18: "net:cntry", 19: "net:rssi", 20: "pub:limit",
    21: "coap:resend", 22: "coap:unack", 23: "coap:transmit", 24: "pwr:src", 25: "sys:tram", 26: "sys:uram",
    27: "net:connatt", 28: "net:dconnrsn", 29: "cloud:connatt", 30: "cloud:dconnrsn", 31: "coap:roundtrip",
    33: "net:sigstr", 34: "net:sigqual", 35: "net:sigqualv", 36: "net:at", 37: "net:sigstrv", 40: "net:cell:cgi:mcc",
    41: "net:cell:cgi:mnc", 42: "net:cell:cgi:lac", 43: "net:cell:cgi:ci", 44: "cloud:connif", 45: "net:alt:sigstrv",
    46: "net:alt:sigstr", 47: "net:alt:sigqual", 48: "net:alt:sigqualv", 49: "net:alt:at", 60: "sys:protected",
}  # fmt: skip
_IDS = {name: id for id, name in NAMES.items()}
_SIGNED = frozenset((9, 13, 19, 35, 37, 41, 45, 48))
# Fixed-point numbers, eight bits of which are behind the point.
_IN_256THS = frozenset((3, 19, 33, 34, 35, 37, 45, 46, 47, 48))
_named = msgspec.json.Decoder(dict[str, float | int | dict[str, int] | None]).decode


class NotMetrics(ValueError):
    """A payload that is no list of metrics."""


class Metric(Struct, frozen=True):
    """One vital sign.

    Attributes:
        id: What it is of.
        value: None when the device could not tell it.
        error: Why it could not, a negative number of the firmware's.
    """

    id: int
    value: float | int | None
    error: int | None = None

    @property
    def name(self) -> str:
        """As the firmware calls it; `app:5` for the application's, `32` for what is not known here."""
        if self.id >= FIRST_OF_APPLICATION:
            return f"app:{self.id - FIRST_OF_APPLICATION}"
        return NAMES.get(self.id, str(self.id))


def read_metrics(payload: bytes) -> tuple[Metric, ...]:
    """Reads all there are.

    The top bit of an id says that its value is an error, which is negative. Applications' ids have that bit as well, so
    a negative value of theirs can't be told from an error of the system's.

    Raises:
        NotMetrics: It is no such list.
    """
    if len(payload) < 7 or payload[0]:
        raise NotMetrics("no list of metrics")
    kind, id_size, size = (int.from_bytes(payload[at : at + 2], "little") for at in (1, 3, 5))
    if kind != Kind.METRICS or id_size != 2 or not 1 <= size <= 8:
        raise NotMetrics("a list of another form")
    pairs = payload[7:]
    width = id_size + size
    if len(pairs) % width:
        raise NotMetrics("cut short")
    if len(pairs) // width > MAX_METRICS:
        raise NotMetrics(f"more than {MAX_METRICS}")
    return tuple(
        _metric(int.from_bytes(pairs[at : at + 2], "little"), pairs[at + 2 : at + width])
        for at in range(0, len(pairs), width)
    )


def metrics_by_name(payload: bytes) -> dict[str, float | int | dict[str, int] | None]:
    """All there are, by their names; `{"err": N}` for what the device could not tell.

    Firmware writes the binary list. One who writes its own may as well send names and numbers, as JSON or CBOR.

    Raises:
        NotMetrics: It is nothing of the kind.
    """
    if payload[:1] == b"\0":
        return {each.name: each.value if each.error is None else {"err": each.error} for each in read_metrics(payload)}
    if len(payload) > MAX_NAMED_BYTES:
        raise NotMetrics(f"longer than {MAX_NAMED_BYTES} bytes")
    try:
        found = _named(payload if payload[:1] == b"{" else cbor_to_json(payload))
    except (ValueError, RecursionError):
        raise NotMetrics("neither a list of metrics nor names and numbers") from None
    if len(found) > MAX_METRICS or any(not 0 < len(name) <= MAX_NAME for name in found):
        raise NotMetrics(f"more than {MAX_METRICS}, or names longer than {MAX_NAME} characters")
    return found


def _metric(id: int, raw: bytes) -> Metric:
    signed = int.from_bytes(raw, "little", signed=True)
    if id & _FAILED and signed < 0:
        return Metric(id & ~_FAILED, None, signed)
    value = signed if id in _SIGNED or id & _FAILED else int.from_bytes(raw, "little")
    return Metric(id, value / 256 if id in _IN_256THS else value)


def write_metrics(metrics: tuple[Metric, ...]) -> bytes:
    """The list, as firmware writes it: a device's side."""
    parts = bytearray(b"\0\4\0\2\0\4\0")
    for metric in metrics:
        if metric.value is None:
            parts += (metric.id | _FAILED).to_bytes(2, "little")
            parts += (metric.error or -1).to_bytes(4, "little", signed=True)
        else:
            value = round(metric.value * 256) if metric.id in _IN_256THS else int(metric.value)
            parts += metric.id.to_bytes(2, "little")
            parts += (value & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(parts)


def metric_id(name: str) -> int | None:
    """The id of one of the system's metrics."""
    return _IDS.get(name)
