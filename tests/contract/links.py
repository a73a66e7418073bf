"""Records of device links for tests, with everything that a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from tests.delivery.builders import NOW
from wirechamber.model.links import Session


def a_session(number: int = 0, **rest: Any) -> Session:
    fields: dict[str, Any] = {
        "id": f"{number:032x}", "cid": number.to_bytes(8, "big"), "deviceos": True, "created_at": NOW + number,
        "state": b"master secret %d" % number, "device": f"{number:024x}", "address": "192.0.2.1 5000",
        "send_limit": 1024,
    }  # fmt: skip
    return Session(**(fields | rest))
