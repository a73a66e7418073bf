"""The keys by which devices know this cloud, and the form in which a device's memory takes them.

Two: P-256 for DTLS, RSA-2048 for the older link over TCP. Each is made on first use, by the server or by a command,
and never changes: every device has its public half written into it.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from wirechamber.errors import BadInput
from wirechamber.hosts import check_host
from wirechamber.secrets import SecretsUnreadable, create_private, read_private

EC_FILE = "server-ec.key"
RSA_FILE = "server-rsa.key"
RSA_BITS = 2048

# device-protocol.md, section 2: where key and address lie in a device's memory.
UDP_KEY_BYTES = 192
TCP_KEY_BYTES = 384
ADDRESS_BYTES = 128
PORT_AT = 66
MAX_HOST = PORT_AT - 2
IPV4, NAME = 0, 1
UNUSED = b"\xff"


class ServerKeys:
    """The keys in a data folder. Whoever reads one for the first time makes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ec(self) -> ec.EllipticCurvePrivateKey:
        """The key for DTLS.

        Raises:
            SecretsUnreadable: The file is damaged, or open to others.
        """
        file = self._folder / EC_FILE
        if not file.exists():
            create_private(file, _pem(ec.generate_private_key(ec.SECP256R1())))
        key = _read(file)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise SecretsUnreadable(f"{file} is damaged: put it back from your backup")
        return key

    def rsa(self) -> rsa.RSAPrivateKey:
        """The key for TCP.

        Raises:
            SecretsUnreadable: The file is damaged, or open to others.
        """
        file = self._folder / RSA_FILE
        if not file.exists():
            create_private(file, _pem(rsa.generate_private_key(65537, RSA_BITS)))
        key = _read(file)
        if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != RSA_BITS:
            raise SecretsUnreadable(f"{file} is damaged: put it back from your backup")
        return key

    def public(self, *, tcp: bool = False) -> bytes:
        """The public half, DER SubjectPublicKeyInfo: 91 bytes for DTLS, 294 for TCP."""
        key = self.rsa() if tcp else self.ec()
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def for_device(self, host: str, port: int, *, tcp: bool = False) -> bytes:
        """The block that a device's memory holds: key and address, padded (device-protocol.md, section 2).

        Args:
            host: An IPv4 address or a name.

        Raises:
            BadInput: The host can't be written into it.
        """
        key = self.public(tcp=tcp)
        return key.ljust(TCP_KEY_BYTES if tcp else UDP_KEY_BYTES, UNUSED) + address_block(host, port)


def address_block(host: str, port: int) -> bytes:
    """Where a device finds its cloud, 128 bytes: type, length, value; the port at 66, big-endian.

    Raises:
        BadInput: The host is none, or an IPv6 address, for which the block has no type, or its name is too long.
    """
    try:
        name = check_host(host, ipv6=False)
    except ValueError as problem:
        raise BadInput(str(problem)) from None
    try:
        address = ipaddress.IPv4Address(name)
    except ValueError:
        kind, value = NAME, name.encode()
        if len(value) > MAX_HOST:
            raise BadInput(f"a device's memory takes names of {MAX_HOST} characters at most") from None
    else:
        kind, value = IPV4, address.packed
        if address.is_unspecified or address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
            raise BadInput(f"devices refuse the address {host}; name the one under which they reach this cloud")
    if not 0 < port < 0xFFFF:
        raise BadInput("the port must be between 1 and 65534")
    block = bytes((kind, len(value))) + value
    return (block.ljust(PORT_AT, UNUSED) + port.to_bytes(2, "big")).ljust(ADDRESS_BYTES, UNUSED)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(file: Path) -> object:
    try:
        return load_pem_private_key(read_private(file), None)
    except (ValueError, TypeError):
        raise SecretsUnreadable(f"{file} is damaged: put it back from your backup") from None
