"""The device registry's record."""

from __future__ import annotations

import unicodedata

from msgspec import Struct

from wirechamber.model.links import KeepAlive

DEFAULT_PLATFORM = 32

# Platforms that reach the cloud over a cellular network (cloud-api.md, section 3).
CELLULAR = frozenset((10, 13, 23, 25, 26, 28, 35, 37, 42))


class Device(Struct, frozen=True, kw_only=True):
    """A device that this cloud knows (cloud-api.md, section 3).

    The fields from `online` on are what its link told: the store fills them in, and storing the record leaves them.

    Attributes:
        id: 24 lower-case hex digits.
        owner: Id of the user who claimed it, or None.
        platform_id: As the device told; as registered until then.
        product_id: The product; equals the platform id while the device is in none.
        online: Its owner was told that it is.
        last_heard: When something authentic came last; behind by some seconds while it is online.
        firmware_version, firmware_product_id, system_version: As the device told in Hello.
        keep_alive: How it is kept in touch with, where it told.
        key: Whether it has a public key, a pre-shared key, or neither.
    """

    id: str
    created_at: int
    owner: str | None = None
    name: str | None = None
    notes: str | None = None
    platform_id: int = DEFAULT_PLATFORM
    product_id: int = DEFAULT_PLATFORM
    serial_number: str | None = None
    online: bool = False
    last_ip_address: str | None = None
    last_heard: int | None = None
    last_handshake_at: int | None = None
    firmware_product_id: int | None = None
    firmware_version: int | None = None
    system_version: int | None = None
    functions: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    keep_alive: KeepAlive | None = None
    key: str | None = None


def name_key(name: str) -> str:
    """By what names are the same: without regard to case, and to how accents are written (Unicode, section 3.13)."""
    return unicodedata.normalize("NFC", name.casefold())
