"""The device registry's record."""

from __future__ import annotations

from msgspec import Struct

DEFAULT_PLATFORM = 32


class Device(Struct, frozen=True, kw_only=True):
    """A device that this cloud knows (cloud-api.md, section 3).

    Attributes:
        id: 24 lower-case hex digits.
        owner: Id of the user who claimed it, or None.
        product_id: The product; equals the platform id while the device is in none.
    """

    id: str
    created_at: int
    owner: str | None = None
    name: str | None = None
    notes: str | None = None
    platform_id: int = DEFAULT_PLATFORM
    product_id: int = DEFAULT_PLATFORM
    serial_number: str | None = None
    last_ip_address: str | None = None
    last_heard: int | None = None
    last_handshake_at: int | None = None
    functions: tuple[str, ...] = ()
    variables: dict[str, str] = {}
