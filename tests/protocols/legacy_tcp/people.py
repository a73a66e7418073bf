"""A device, a server, and what they say to each other."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wirechamber.protocols.legacy_tcp import ClientHandshake, Established, NeedsAdmission, ServerHandshake, Session

DEVICE_ID = bytes.fromhex("0123456789abcdef01234567")


@cache
def _key(which: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def server_key(which: str = "ours") -> rsa.RSAPrivateKey:
    return _key(which, 2048)


def device_key(which: str = "its own") -> rsa.RSAPrivateKey:
    return _key(which, 1024)


def public_der(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def server(now: float = 0.0) -> ServerHandshake:
    return ServerHandshake(server_key(), now)


def device(now: float = 0.0) -> ClientHandshake:
    return ClientHandshake(DEVICE_ID, device_key(), server_key().public_key(), now)


def asked(cloud: ServerHandshake, identity: bytes) -> NeedsAdmission:
    [event] = cloud.receive(identity, 0.0)
    assert isinstance(event, NeedsAdmission)
    return event


def shake_hands() -> tuple[Session, Session]:
    """The server's session and the device's."""
    cloud, client = server(), device()
    assert client.receive(cloud.outgoing(), 0.0) == []
    asked(cloud, client.outgoing())
    established = cloud.admit()
    [event] = client.receive(cloud.outgoing(), 0.0)
    assert isinstance(event, Established)
    return established.session, event.session
