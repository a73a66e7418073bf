"""Who a device is and what it tells of itself."""

from __future__ import annotations

import hashlib
import zlib

from msgspec import Struct

from wirechamber.device.errors import DeviceError
from wirechamber.device.keys import PrivateKey, PublicKey, spki
from wirechamber.protocols.deviceos.describe import Module, System, write_system
from wirechamber.protocols.deviceos.messages import DEVICE_ID_LENGTH, Flag, Hello, write_hello
from wirechamber.protocols.dtls import PreSharedKey, PublicKeys

# device-protocol.md, 7.1: Particle's own device without hardware.
PLATFORM = 3
# The protocol's version as Device OS counts it: with content formats of events, and time to live.
SYSTEM_VERSION = 6200
# device-protocol.md, section 12.
MAX_MESSAGE = 1152


class About(Struct, frozen=True):
    """What a device says of itself in its Hello.

    Attributes:
        product: Its product; None: none, which is told by the platform's number.
        version: Of its program.
    """

    platform: int = PLATFORM
    product: int | None = None
    version: int | None = None


class Identity(Struct, frozen=True):
    """A device's id and what proves it: a key pair and the cloud's key, or a key that both know.

    Attributes:
        id: 24 lower-case hex digits.
    """

    id: str
    credentials: PublicKeys | PreSharedKey

    @property
    def fingerprint(self) -> bytes:
        """Of everything that a session belongs to."""
        credentials = self.credentials
        if isinstance(credentials, PreSharedKey):
            proof = credentials.identity + credentials.key
        else:
            proof = spki(credentials.private_key.public_key()) + spki(credentials.server_public_key)
        return hashlib.sha256(self.id.encode() + proof).digest()[:16]


def identity(device_id: str, key: PrivateKey | None, server_key: PublicKey | None, psk: bytes | None) -> Identity:
    """Puts an identity together.

    Raises:
        DeviceError: The id is none, or what proves it is not complete.
    """
    device_id = device_id.lower()
    if len(device_id) != 2 * DEVICE_ID_LENGTH or device_id.strip("0123456789abcdef"):
        raise DeviceError("a device's id has 24 hex digits")
    if psk is not None and key is None:
        return Identity(device_id, PreSharedKey(device_id.encode(), psk))
    if psk is not None or key is None or server_key is None:
        raise DeviceError("a device has a key and its cloud's public key, or a pre-shared key")
    return Identity(device_id, PublicKeys(key, server_key))


def hello_of(about: About, device_id: str) -> Hello:
    """The Hello of a device. It can't be updated over the air, so the sizes are those that mean nothing."""
    return Hello(
        product=about.platform if about.product is None else about.product,
        product_version=about.version,
        flags=Flag.GOODBYE | Flag.DESCRIBES_ITSELF,
        platform=about.platform,
        device=device_id,
        system_version=SYSTEM_VERSION,
        max_message=MAX_MESSAGE,
        max_binary=0,
        chunk_size=512,
    )


def system_of(about: About) -> bytes:
    """The description of the system: one module, the program."""
    return write_system(System(modules=(Module("monolithic", 0, about.version or 0),)))


def checksum(payload: bytes) -> int:
    """Tells whether something has changed since it was told."""
    return zlib.crc32(payload)


def hello_checksum(about: About, device_id: str) -> int:
    """Of all that the Hello tells."""
    return checksum(write_hello(hello_of(about, device_id), 0).payload)
