"""The handshake's messages: one reader and one writer for each (RFC 5246, section 7.4; RFC 6347, section 4.2).

Readers raise `Malformed`. They get and give bodies; the 12-byte header in front of each is `header`'s business.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct as Layout

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Struct

from wirechamber.protocols.dtls.wire import Malformed, Reader, number, numbers, vector

MESSAGE_HEADER = 12
RANDOM = 32
# RFC 4279, section 5.3: "implementations MUST support PSK identities up to 128 octets in length".
MAX_IDENTITY = 128
# OpenSSL offers about ten, GnuTLS about fifteen; GREASE adds a few.
MAX_EXTENSIONS = 64


class HandshakeType(IntEnum):
    """RFC 5246, section 7.4, and RFC 6347, section 4.3.2."""

    HELLO_REQUEST = 0
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    HELLO_VERIFY_REQUEST = 3
    CERTIFICATE = 11
    SERVER_KEY_EXCHANGE = 12
    CERTIFICATE_REQUEST = 13
    SERVER_HELLO_DONE = 14
    CERTIFICATE_VERIFY = 15
    CLIENT_KEY_EXCHANGE = 16
    FINISHED = 20


class ExtensionType(IntEnum):
    """The extensions that mean something here."""

    SUPPORTED_GROUPS = 10
    EC_POINT_FORMATS = 11
    SIGNATURE_ALGORITHMS = 13
    CLIENT_CERTIFICATE_TYPE = 19
    SERVER_CERTIFICATE_TYPE = 20
    EXTENDED_MASTER_SECRET = 23
    CONNECTION_ID = 54
    # A draft's number, as mbedTLS 2.22 has it (device-protocol.md, Q2).
    DRAFT_CONNECTION_ID = 254
    RENEGOTIATION_INFO = 0xFF01


SECP256R1 = 23
ECDSA_SECP256R1_SHA256 = 0x0403
# RFC 7250, section 3.
RAW_PUBLIC_KEY = 2
# RFC 8422, section 5.4: named_curve; section 5.5: ecdsa_sign.
_NAMED_CURVE = 3
_ECDSA_SIGN = 64

_CURVE = ec.SECP256R1()
_ECDSA = ec.ECDSA(Prehashed(SHA256()))
_DETERMINISTIC_ECDSA = ec.ECDSA(Prehashed(SHA256()), deterministic_signing=True)
# An uncompressed point of P-256 (RFC 8422, section 5.4.1).
_POINT = 65
# A SubjectPublicKeyInfo of a P-256 key up to its point (RFC 5480, section 2): always the same, so no ASN.1 of a
# stranger's needs to be parsed.
SPKI_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")

Extensions = dict[int, bytes]

# Type and length (1 + 3 bytes), message number, offset and length of the fragment (3 + 3 bytes).
_header = Layout(">IH6s")


def header(kind: int, length: int, sequence: int, offset: int, fragment: int) -> bytes:
    """RFC 6347, section 4.2.2: type, length of the whole, message number, and which part of it this is."""
    return _header.pack(kind << 24 | length, sequence, (offset << 24 | fragment).to_bytes(6, "big"))


def whole(kind: int, sequence: int, body: bytes) -> bytes:
    """A message with its header, in one piece: as it is hashed (RFC 6347, section 4.2.6)."""
    return header(kind, len(body), sequence, 0, len(body)) + body


# --- keys ---


def new_key() -> ec.EllipticCurvePrivateKey:
    """An ephemeral key of P-256."""
    return ec.generate_private_key(_CURVE)


def read_point(point: bytes) -> ec.EllipticCurvePublicKey:
    """A public key of P-256 from an uncompressed point on the curve."""
    if len(point) != _POINT or point[0] != 4:
        raise Malformed("not an uncompressed point of P-256")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, point)
    except ValueError:
        raise Malformed("the point is not on the curve") from None


def write_point(key: ec.EllipticCurvePublicKey) -> bytes:
    """The uncompressed point of a public key."""
    numbers_ = key.public_numbers()
    return b"\x04" + number(numbers_.x, 32) + number(numbers_.y, 32)


def read_spki(der: bytes) -> ec.EllipticCurvePublicKey:
    """A public key of P-256 from its SubjectPublicKeyInfo."""
    if not der.startswith(SPKI_PREFIX):
        raise Malformed("not a public key of P-256")
    return read_point(der[len(SPKI_PREFIX) :])


def write_spki(key: ec.EllipticCurvePublicKey) -> bytes:
    """The SubjectPublicKeyInfo of a public key of P-256."""
    return SPKI_PREFIX + write_point(key)


# --- extensions ---


def _read_extensions(reader: Reader) -> Extensions:
    extensions: Extensions = {}
    if not reader.left:
        return extensions
    inner = Reader(reader.vector(2))
    reader.end()
    while inner.left:
        kind = inner.number(2)
        body = inner.vector(2)
        # RFC 5246, section 7.4.1.4: "There MUST NOT be more than one extension of the same type."
        if kind in extensions or len(extensions) == MAX_EXTENSIONS:
            raise Malformed(f"extension {kind} twice, or too many of them")
        extensions[kind] = body
    return extensions


def _write_extensions(extensions: Extensions) -> bytes:
    if not extensions:
        return b""
    return vector(b"".join(number(kind, 2) + vector(body, 2) for kind, body in extensions.items()), 2)


def read_list(body: bytes, size: int) -> bytes:
    """The one vector that makes up an extension's body, with its length in `size` bytes."""
    reader = Reader(body)
    content = reader.vector(size)
    reader.end()
    return content


# --- hellos ---


class ClientHello(Struct, frozen=True):
    """RFC 6347, section 4.2.1."""

    version: int
    random: bytes
    session_id: bytes
    cookie: bytes
    suites: tuple[int, ...]
    compression: bytes
    extensions: Extensions


def read_client_hello(body: bytes) -> ClientHello:
    """Reads a ClientHello."""
    reader = Reader(body)
    version = reader.number(2)
    random = reader.take(RANDOM)
    session_id = reader.vector(1, 0, 32)
    cookie = reader.vector(1)
    suites = numbers(reader.vector(2, 2))
    compression = reader.vector(1, 1)
    return ClientHello(version, random, session_id, cookie, suites, compression, _read_extensions(reader))


def write_client_hello(hello: ClientHello) -> bytes:
    """Writes a ClientHello."""
    return (
        number(hello.version, 2) + hello.random + vector(hello.session_id, 1) + vector(hello.cookie, 1)
        + vector(b"".join(number(suite, 2) for suite in hello.suites), 2) + vector(hello.compression, 1)
        + _write_extensions(hello.extensions)
    )  # fmt: skip


class HelloVerifyRequest(Struct, frozen=True):
    """RFC 6347, section 4.2.1."""

    version: int
    cookie: bytes


def read_hello_verify_request(body: bytes) -> HelloVerifyRequest:
    """Reads a HelloVerifyRequest."""
    reader = Reader(body)
    request = HelloVerifyRequest(reader.number(2), reader.vector(1))
    reader.end()
    return request


def write_hello_verify_request(request: HelloVerifyRequest) -> bytes:
    """Writes a HelloVerifyRequest."""
    return number(request.version, 2) + vector(request.cookie, 1)


class ServerHello(Struct, frozen=True):
    """RFC 5246, section 7.4.1.3."""

    version: int
    random: bytes
    session_id: bytes
    suite: int
    compression: int
    extensions: Extensions


def read_server_hello(body: bytes) -> ServerHello:
    """Reads a ServerHello."""
    reader = Reader(body)
    version = reader.number(2)
    random = reader.take(RANDOM)
    session_id = reader.vector(1, 0, 32)
    suite = reader.number(2)
    compression = reader.number(1)
    return ServerHello(version, random, session_id, suite, compression, _read_extensions(reader))


def write_server_hello(hello: ServerHello) -> bytes:
    """Writes a ServerHello."""
    return (
        number(hello.version, 2) + hello.random + vector(hello.session_id, 1) + number(hello.suite, 2)
        + number(hello.compression, 1) + _write_extensions(hello.extensions)
    )  # fmt: skip


# --- certificates and signatures ---


def read_raw_public_key(body: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a Certificate message (RFC 7250, section 3: one length field); may be empty."""
    reader = Reader(body)
    spki = reader.vector(3)
    reader.end()
    return spki


def write_raw_public_key(spki: bytes) -> bytes:
    """A Certificate message that holds a raw public key."""
    return vector(spki, 3)


class CertificateRequest(Struct, frozen=True):
    """RFC 5246, section 7.4.4, as far as a raw public key has to do with it."""

    types: bytes
    algorithms: tuple[int, ...]


def read_certificate_request(body: bytes) -> CertificateRequest:
    """Reads a CertificateRequest; whatever authorities it names are of no interest."""
    reader = Reader(body)
    request = CertificateRequest(reader.vector(1, 1), numbers(reader.vector(2, 2)))
    reader.vector(2)
    reader.end()
    return request


def write_certificate_request(request: CertificateRequest) -> bytes:
    """Writes a CertificateRequest without authorities."""
    return vector(request.types, 1) + vector(b"".join(number(one, 2) for one in request.algorithms), 2) + vector(b"", 2)


# What a server asks for that wants a key of P-256.
ASK_FOR_KEY = CertificateRequest(bytes((_ECDSA_SIGN,)), (ECDSA_SECP256R1_SHA256,))


class Signature(Struct, frozen=True):
    """RFC 5246, section 4.7: a CertificateVerify message, and the end of a ServerKeyExchange."""

    algorithm: int
    value: bytes


def _read_signature(reader: Reader) -> Signature:
    signature = Signature(reader.number(2), reader.vector(2))
    reader.end()
    return signature


def read_certificate_verify(body: bytes) -> Signature:
    """Reads a CertificateVerify."""
    return _read_signature(Reader(body))


def write_signature(signature: Signature) -> bytes:
    """Writes a CertificateVerify, or the end of a ServerKeyExchange."""
    return number(signature.algorithm, 2) + vector(signature.value, 2)


def sign(key: ec.EllipticCurvePrivateKey, digest: bytes, *, deterministic: bool = False) -> Signature:
    """Signs what has this SHA-256.

    Args:
        deterministic: The same signature each time (RFC 6979).
    """
    return Signature(ECDSA_SECP256R1_SHA256, key.sign(digest, _DETERMINISTIC_ECDSA if deterministic else _ECDSA))


def verify(key: ec.EllipticCurvePublicKey, signature: Signature, digest: bytes) -> bool:
    """Whether the key's owner signed what has this SHA-256, with the one algorithm that is spoken here."""
    if signature.algorithm != ECDSA_SECP256R1_SHA256:
        return False
    try:
        key.verify(signature.value, digest, _ECDSA)
    except InvalidSignature:
        return False
    return True


# --- key exchange ---


class ServerKeyExchange(Struct, frozen=True):
    """What the server adds for the key exchange (RFC 8422, section 5.4; RFC 4279, section 2; RFC 5489, section 2).

    Attributes:
        hint: Which key is wanted; None when no pre-shared key is used.
        params: Curve and point as they are signed; empty when nothing ephemeral is used.
        point: The server's ephemeral public key, from `params`.
        signature: None with a pre-shared key.
    """

    hint: bytes | None
    params: bytes
    point: bytes
    signature: Signature | None


def ecdh_params(point: bytes) -> bytes:
    """Curve and public key of an ephemeral key exchange."""
    return bytes((_NAMED_CURVE,)) + number(SECP256R1, 2) + vector(point, 1)


def read_server_key_exchange(body: bytes, *, psk: bool, ephemeral: bool) -> ServerKeyExchange:
    """Reads a ServerKeyExchange of the key exchange at hand."""
    reader = Reader(body)
    hint = reader.vector(2, 0, MAX_IDENTITY) if psk else None
    params = point = b""
    signature = None
    if ephemeral:
        if reader.number(1) != _NAMED_CURVE or reader.number(2) != SECP256R1:
            raise Malformed("a curve that was not offered")
        point = reader.vector(1)
        params = ecdh_params(point)
    if not psk:
        signature = _read_signature(reader)
    reader.end()
    return ServerKeyExchange(hint, params, point, signature)


def write_server_key_exchange(exchange: ServerKeyExchange) -> bytes:
    """Writes a ServerKeyExchange."""
    return (
        (b"" if exchange.hint is None else vector(exchange.hint, 2)) + exchange.params
        + (b"" if exchange.signature is None else write_signature(exchange.signature))
    )  # fmt: skip


class ClientKeyExchange(Struct, frozen=True):
    """What the client adds for the key exchange.

    Attributes:
        identity: Of its pre-shared key; None when none is used.
        point: Its ephemeral public key; None when none is used.
    """

    identity: bytes | None
    point: bytes | None


def read_client_key_exchange(body: bytes, *, psk: bool, ephemeral: bool) -> ClientKeyExchange:
    """Reads a ClientKeyExchange of the key exchange at hand."""
    reader = Reader(body)
    identity = reader.vector(2, 0, MAX_IDENTITY) if psk else None
    point = reader.vector(1) if ephemeral else None
    reader.end()
    return ClientKeyExchange(identity, point)


def write_client_key_exchange(exchange: ClientKeyExchange) -> bytes:
    """Writes a ClientKeyExchange."""
    return (b"" if exchange.identity is None else vector(exchange.identity, 2)) + (
        b"" if exchange.point is None else vector(exchange.point, 1)
    )
