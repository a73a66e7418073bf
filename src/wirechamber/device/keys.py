"""The keys of a device and of its cloud, as files.

A device's private key is PEM or DER, P-256; the cloud's public key is what `wirechamber server key` writes: DER, PEM,
or the padded form of devices, whose address block says where the cloud is (device-protocol.md, section 2).
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from msgspec import Struct

from wirechamber.device.errors import BadFile

# device-protocol.md, section 2: a key padded with 0xFF to 192 bytes, then the address.
ADDRESS_AT = 192
ADDRESS_BYTES = 68
_PORT_AT = 66
_MAX_VALUE = 64
_NO_PORTS = (0, 0xFFFF)

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


class ServerKey(Struct, frozen=True):
    """The cloud's public key.

    Attributes:
        host, port: Where the cloud is, if the file says so.
    """

    key: PublicKey
    host: str | None = None
    port: int | None = None


def new_key() -> PrivateKey:
    """A new private key, P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def write_key(path: Path, key: PrivateKey) -> None:
    """Writes a private key as PEM, readable for its owner only; a file that is there already is left alone.

    Raises:
        BadFile: There is one, or it can't be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BadFile(f"{path} is there already") from None
    except OSError as problem:
        raise BadFile(f"{path} can't be written: {problem.strerror}") from problem
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def key_file(path: Path) -> PrivateKey:
    """The private key in a file, which is made on the first call.

    Raises:
        BadFile: It holds none, or can't be read or written.
    """
    if not path.exists():
        key = new_key()
        write_key(path, key)
        return key
    return read_key(path)


def read_key(source: Path | str | bytes) -> PrivateKey:
    """A private key from a file, or from its bytes: PEM or DER.

    Raises:
        BadFile: It holds none of P-256.
    """
    data = _bytes(source)
    try:
        key = load_pem_private_key(data, None) if data.startswith(b"-----") else load_der_private_key(_der(data), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise BadFile(f"{_named(source)} holds no private key: {problem}") from problem
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadFile(f"{_named(source)} holds a key of another kind; devices have P-256")
    return key


def read_server_key(source: Path | str | bytes) -> ServerKey:
    """The cloud's public key from a file, or from its bytes, in any of its forms.

    Raises:
        BadFile: It holds none of P-256.
    """
    data = _bytes(source)
    try:
        key = load_pem_public_key(data) if data.startswith(b"-----") else load_der_public_key(_der(data))
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise BadFile(f"{_named(source)} holds no public key: {problem}") from problem
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadFile(f"{_named(source)} holds a key of another kind; over UDP the cloud's is P-256")
    return ServerKey(key, *_address(data))


def read_psk(source: Path | str | bytes) -> bytes:
    """A pre-shared key: its bytes, or a file that holds it as hex digits.

    Raises:
        BadFile: It holds none.
    """
    if isinstance(source, bytes):
        return source
    try:
        key = bytes.fromhex(_bytes(source).decode("ascii").strip())
    except ValueError as problem:
        raise BadFile(f"{source} holds no hex digits") from problem
    if not key:
        raise BadFile(f"{source} is empty")
    return key


def spki(key: PublicKey) -> bytes:
    """A public key as the cloud is told it: DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem(key: PublicKey) -> str:
    """A public key for a file."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _bytes(source: Path | str | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as problem:
        raise BadFile(f"{source} can't be read: {problem.strerror}") from problem


def _named(source: Path | str | bytes) -> str:
    return "what was given" if isinstance(source, bytes) else str(source)


def _der(data: bytes) -> bytes:
    """Without what pads it: DER says how long it is."""
    if len(data) < 2:
        return data
    length = data[1]
    if length < 0x80:
        return data[: 2 + length]
    count = length & 0x7F
    return data[: 2 + count + int.from_bytes(data[2 : 2 + count], "big")]


def _address(data: bytes) -> tuple[str | None, int | None]:
    block = data[ADDRESS_AT : ADDRESS_AT + ADDRESS_BYTES]
    if data.startswith(b"-----") or len(block) < ADDRESS_BYTES or block[1] > _MAX_VALUE:
        return None, None
    value = block[2 : 2 + block[1]]
    port: int | None = int.from_bytes(block[_PORT_AT : _PORT_AT + 2], "big")
    if port in _NO_PORTS:
        port = None
    if block[0] == 0 and len(value) == 4:
        return ".".join(map(str, value)), port
    if block[0] == 1 and value.isascii() and value:
        return value.decode(), port
    return None, None
