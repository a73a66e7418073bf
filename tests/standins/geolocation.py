"""A stand-in of Google's Geolocation API that reads requests strictly (external-services.md, section 2.3).

It knows some networks and towers; what it is asked without `considerIp: false` and does not know, it places where the
asking server is, as the real one does: a client that forgets it fails by a wrong place.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.standins.server import Asked, Said, Standin, in_json

PATH = "/geolocation/v1/geolocate"
SERVER_PLACE = {"location": {"lat": 59.33, "lng": 18.07}, "accuracy": 20_000}
_MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")
# Bits of a cell id (Geolocation API, "Calculating cellId").
_BITS = {"gsm": 16, "cdma": 16, "wcdma": 28, "lte": 28}


class Geolocation(Standin):
    """The service.

    Args:
        key: The one key that it takes.
    """

    def __init__(self, key: str = "AIzaTestKey-0123456789") -> None:
        super().__init__()
        self.key = key
        self.answered: list[Any] = []
        # Of some towers, the type that they are known by.
        self.wide: dict[int, str] = {}
        self.networks = {
            "3c:37:86:5d:75:d4": (38.99, -77.55), "94:b4:0f:fd:c1:40": (38.9902, -77.5502),
            "94:b4:0f:fc:e5:d0": (38.99, -77.55),
        }  # fmt: skip
        self.towers = {(310, 410, 33, 42): (37.42, -122.08), (310, 410, 678, 200_000_001): (40.5, -100.25)}

    @property
    def questions(self) -> list[Any]:
        return [asked.json() for asked in self.asked]

    def answer(self, asked: Asked) -> Said:
        if (asked.method, asked.path) != ("POST", PATH):
            return error(404, "notFound", "Not Found", "global")
        if asked.query.get("key") != self.key:
            return error(400, "keyInvalid", "Bad Request", "usageLimits")
        if "json" not in asked.header("Content-Type"):
            return error(400, "parseError", "Parse Error", "global")
        try:
            found = self._find(json.loads(asked.body or b"{}"))
        except (ValueError, TypeError, KeyError, AttributeError):
            return error(400, "parseError", "Parse Error", "global")
        self.answered.append(json.loads(asked.body))
        return error(404, "notFound", "Not Found", "geolocation") if found is None else in_json(200, found)

    def _find(self, question: dict[str, Any]) -> dict[str, Any] | None:
        allowed = {
            "considerIp", "radioType", "carrier", "homeMobileCountryCode", "homeMobileNetworkCode", "cellTowers",
            "wifiAccessPoints",
        }  # fmt: skip
        if not isinstance(question, dict) or set(question) - allowed:
            raise ValueError
        known = [self.networks.get(mac) for mac in map(_network, question.get("wifiAccessPoints", []))]
        radio = question.get("radioType", "gsm")
        known += [
            self.towers.get(_tower(each, radio))
            for each in question.get("cellTowers", [])
            if self.wide.get(each["cellId"], radio) == radio
        ]
        places = [place for place in known if place is not None]
        if places:
            lat, lng = (sum(each) / len(places) for each in zip(*places, strict=True))
            return {"location": {"lat": round(lat, 6), "lng": round(lng, 6)}, "accuracy": 1000 / len(places)}
        return None if question.get("considerIp", True) is False else SERVER_PLACE


def _network(entry: dict[str, Any]) -> str:
    _only_numbers(entry, "signalStrength", "age", "channel", "signalToNoiseRatio")
    if not _MAC.fullmatch(entry["macAddress"]):
        raise ValueError
    return str(entry["macAddress"]).lower()


def _tower(entry: dict[str, Any], radio: str) -> tuple[int, int, int, int]:
    _only_numbers(
        entry, "cellId", "locationAreaCode", "mobileCountryCode", "mobileNetworkCode", "age", "signalStrength",
        "timingAdvance",
    )  # fmt: skip
    country, network, cell = entry["mobileCountryCode"], entry["mobileNetworkCode"], entry["cellId"]
    if not (0 <= country < 1000 and 0 <= network < 1000 and 0 <= cell < 2 ** _BITS[radio]):
        raise ValueError
    return country, network, entry["locationAreaCode"], cell


def _only_numbers(entry: dict[str, Any], *names: str) -> None:
    for name in names:
        if name in entry and (isinstance(entry[name], bool) or not isinstance(entry[name], int | float)):
            raise ValueError


def error(status: int, reason: str, message: str, domain: str) -> Said:
    errors = [{"domain": domain, "reason": reason, "message": message}]
    return in_json(status, {"error": {"code": status, "message": message, "errors": errors}})
