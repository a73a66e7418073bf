"""From secrets to keys: the PRF of TLS 1.2 and what is made with it (RFC 5246, sections 5, 6.3, 7.4.9 and 8.1)."""

from __future__ import annotations

import hmac

from msgspec import Struct

from wirechamber.protocols.dtls.suites import Suite

MASTER_SECRET = 48
VERIFY_DATA = 12


def prf(secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """`length` bytes of P_SHA256 (RFC 5246, section 5)."""
    seed = label + seed
    block = seed
    made = b""
    while len(made) < length:
        block = hmac.digest(secret, block, "sha256")
        made += hmac.digest(secret, block + seed, "sha256")
    return made[:length]


def psk_premaster(other: bytes | None, psk: bytes) -> bytes:
    """The pre-master secret with a pre-shared key.

    Args:
        other: What was agreed on beside it (RFC 5489, section 2); None: zeros as long as the key (RFC 4279, section 2).
    """
    other = bytes(len(psk)) if other is None else other
    return len(other).to_bytes(2, "big") + other + len(psk).to_bytes(2, "big") + psk


def master_secret(premaster: bytes, client_random: bytes, server_random: bytes) -> bytes:
    """RFC 5246, section 8.1."""
    return prf(premaster, b"master secret", client_random + server_random, MASTER_SECRET)


def extended_master_secret(premaster: bytes, session_hash: bytes) -> bytes:
    """RFC 7627, section 4: bound to everything up to the ClientKeyExchange, which `session_hash` is the hash of."""
    return prf(premaster, b"extended master secret", session_hash, MASTER_SECRET)


class KeyBlock(Struct, frozen=True):
    """The keys of both directions."""

    client_key: bytes
    server_key: bytes
    client_iv: bytes
    server_iv: bytes


def key_block(master: bytes, client_random: bytes, server_random: bytes, suite: Suite) -> KeyBlock:
    """RFC 5246, section 6.3; an AEAD has no MAC keys."""
    key, iv = suite.key_length, suite.iv_length
    block = prf(master, b"key expansion", server_random + client_random, 2 * (key + iv))
    ivs = block[2 * key :]
    return KeyBlock(block[:key], block[key : 2 * key], ivs[:iv], ivs[iv:])


def verify_data(master: bytes, label: bytes, digest: bytes) -> bytes:
    """What a Finished message holds (RFC 5246, section 7.4.9).

    Args:
        label: `client finished` or `server finished`.
        digest: SHA-256 of the handshake's messages before it.
    """
    return prf(master, label, digest, VERIFY_DATA)
