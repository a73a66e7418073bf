"""The device registry's record."""

from __future__ import annotations

import unicodedata

from msgspec import Struct, structs

from wirechamber.model.generations import Takes, takes
from wirechamber.model.links import Greeting, KeepAlive

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
        product_id: The product: as registered, else as the firmware tells; the platform id while the device is in none.
        online: Its owner was told that it is.
        last_heard: When something authentic came last; behind by some seconds while it is online.
        publishes_refused: How many of its events were not taken, since it came first.
        keep_alive: How it is kept in touch with, where it told.
        greeting: As the device told in Hello; None while it has told nothing.
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
    greeting: Greeting | None = None
    publishes_refused: int = 0
    functions: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    keep_alive: KeepAlive | None = None
    key: str | None = None

    @property
    def firmware_product_id(self) -> int | None:
        """The product that its firmware is for."""
        return None if self.greeting is None else self.greeting.product

    @property
    def firmware_version(self) -> int | None:
        """The version of its product's firmware."""
        return None if self.greeting is None else self.greeting.product_version

    @property
    def system_version(self) -> int | None:
        """The number of its Device OS."""
        return None if self.greeting is None else self.greeting.system_version

    @property
    def takes(self) -> Takes:
        """How long messages to it may be, and what it understands."""
        return takes(self.greeting)

    def greeted(self, greeting: Greeting | None) -> Device:
        """The device with what it told in Hello."""
        if greeting is None:
            return self
        told = greeting.product or greeting.platform
        return structs.replace(
            self,
            greeting=greeting,
            platform_id=greeting.platform,
            product_id=told if self.registered_product is None else self.registered_product,
        )

    @property
    def registered_product(self) -> int | None:
        """The product that somebody has put it into, whatever its firmware tells."""
        told = None if self.greeting is None else self.greeting.product
        return None if self.product_id in (self.platform_id, told) else self.product_id


def name_key(name: str) -> str:
    """By what names are the same: without regard to case, and to how accents are written (Unicode, section 3.13)."""
    return unicodedata.normalize("NFC", name.casefold())
