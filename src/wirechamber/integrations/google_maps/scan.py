"""What the device locator library publishes, and what of it goes to Google (integrations.md, section 12)."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import Struct

from wirechamber.jsontext import trouble

# The library's buffer of 256 bytes holds some 6 networks; other senders may have more, Google reads the strongest.
MAX_ENTRIES = 64
# Ids of GSM cells have 16 bits (Geolocation API, "Calculating cellId"); Google takes a tower of no said type for GSM.
MAX_GSM_CELL = 0xFFFF
MAX_LTE_CELL = 0xFFF_FFFF
# What a modem reports for "unknown", or keeps for no cell at all (3GPP TS 23.003, sections 4.1 and 4.7; TS 24.008).
UNKNOWN_AREAS = frozenset((0, 0xFFFE, 0xFFFF))
UNKNOWN_CELLS = frozenset((0, 0xFFFF, MAX_LTE_CELL))
# One network alone is not answered, to protect whose it is (Geolocation API, "WiFi access point object").
LEAST_NETWORKS = 2
# So much of the networks in sight must be the same for a device that has not moved.
SAME = 0.7
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


class Network(Struct, frozen=True):
    """A Wi-Fi network: BSSID, signal in dBm, channel."""

    m: str
    s: int | float | None = None
    c: int | None = None


class Networks(Struct, frozen=True):
    """The Wi-Fi networks in sight."""

    a: list[Network]


class Tower(Struct, frozen=True):
    """A cell tower: cell id, location area code, country, network."""

    i: int
    l: int  # noqa: E741
    c: int
    n: int


class Towers(Struct, frozen=True):
    """The cell towers in sight, the serving one first; `o` is the operator's name."""

    a: list[Tower]
    o: str | None = None


class Scan(Struct, frozen=True):
    """The event's data: `w` from a Wi-Fi device, `c` from a cellular one."""

    w: Networks | None = None
    c: Towers | None = None


class BadScan(Exception):
    """The event's data is no scan; the text says why."""


_decode = msgspec.json.Decoder(Scan).decode


def read(data: str | None) -> Scan:
    """The scan in an event's data, without entries that can't help.

    Raises:
        BadScan: It is none, or nothing usable is left.
    """
    try:
        scan = _decode((data or "").encode("utf-8", "replace"))
    except msgspec.ValidationError as problem:
        why = trouble(data or "", problem)
        raise BadScan(f"the event's data is no scan of the device locator library: {why}") from None
    except (msgspec.DecodeError, RecursionError) as problem:
        why = f": {trouble(data, problem)}" if data else ""
        raise BadScan(f"the event's data is no scan of the device locator library: it is no JSON{why}") from None
    networks = _usable(scan.w.a) if scan.w is not None else []
    towers = [tower for tower in scan.c.a if _is_known(tower)] if scan.c is not None else []
    if not networks and not towers:
        raise BadScan("the scan names no usable Wi-Fi network and no usable cell tower; Google was not asked")
    operator = None if scan.c is None else scan.c.o
    return Scan(
        Networks(networks[:MAX_ENTRIES]) if networks else None,
        Towers(towers[:MAX_ENTRIES], operator or None) if towers else None,
    )


def too_little(scan: Scan) -> str | None:
    """Why Google could tell nothing from a scan, so that to ask would only cost; None when it is worth its price."""
    if scan.c is not None:
        return None
    lasting = 0 if scan.w is None else sum(_is_lasting(each.m) for each in scan.w.a)
    if lasting >= LEAST_NETWORKS:
        return None
    return (
        f"the scan names {lasting or 'no'} usable Wi-Fi network{'' if lasting == 1 else 's'} and no usable cell tower, "
        f"and Google places no device by fewer than {LEAST_NETWORKS} networks; it was not asked"
    )


def is_wide(scan: Scan) -> bool:
    """Whether the serving tower can't be one of GSM: it is one of LTE or, where there is 3G still, of WCDMA."""
    return scan.c is not None and scan.c.a[0].i > MAX_GSM_CELL


def question(scan: Scan, radio: str = "lte") -> dict[str, Any]:
    """The body of the Geolocation request.

    Args:
        radio: The type of towers that can't be GSM's; the library does not tell it.
    """
    # By default Google falls back to the address that the request comes from: the place of this server.
    found: dict[str, Any] = {"considerIp": False}
    if scan.w is not None:
        found["wifiAccessPoints"] = [
            _some(macAddress=each.m, signalStrength=each.s, channel=each.c) for each in scan.w.a
        ]
    if scan.c is not None:
        if scan.c.o is not None:
            found["carrier"] = scan.c.o
        if is_wide(scan):
            found["radioType"] = radio
        found["cellTowers"] = [
            {"cellId": each.i, "locationAreaCode": each.l, "mobileCountryCode": each.c, "mobileNetworkCode": each.n}
            for each in scan.c.a
        ]
    return found


def sights(scan: Scan) -> list[str]:
    """What the device sees, without how strong: the same list for a device that does not move."""
    found = [] if scan.w is None else [each.m for each in scan.w.a]
    # The serving tower alone: the neighbours come and go.
    return found + ([] if scan.c is None else [f"{each.c}-{each.n}-{each.l}-{each.i}" for each in scan.c.a[:1]])


def same_place(seen: Collection[str], before: Collection[str]) -> bool:
    """Whether two sights are of one place: most networks are in both."""
    one, other = set(seen), set(before)
    return bool(one) and len(one & other) >= SAME * len(one | other)


def _usable(networks: list[Network]) -> list[Network]:
    """Each network once; those whose address says nothing of a place only when there are no others."""
    found: dict[str, Network] = {}
    for each in networks:
        mac = each.m.lower().replace("-", ":")
        if _MAC.fullmatch(mac) and mac != "ff:ff:ff:ff:ff:ff":
            found.setdefault(mac, Network(mac, each.s, each.c))
    lasting = [each for each in found.values() if _is_lasting(each.m)]
    return lasting or list(found.values())


def _is_lasting(mac: str) -> bool:
    # Addresses of groups (bit 0x01 of the first byte) and locally administered ones (0x02), which phones make up
    # (IEEE 802), belong to no access point that stays; nor do those of IANA's block, nor the empty one.
    return not int(mac[:2], 16) & 3 and not mac.startswith("00:00:5e:") and mac != "00:00:00:00:00:00"


def _is_known(tower: Tower) -> bool:
    return (
        tower.l not in UNKNOWN_AREAS
        and tower.l > 0
        and 0 < tower.c < 1000
        and 0 <= tower.n < 1000
        and 0 < tower.i <= MAX_LTE_CELL
        and tower.i not in UNKNOWN_CELLS
    )  # fmt: skip


def _some(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
