"""The cipher suites that are spoken, and what sets them apart."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESCCM, ChaCha20Poly1305
from msgspec import Struct

# Announces secure renegotiation; no suite (RFC 5746, section 3.3).
RENEGOTIATION_SCSV = 0x00FF

# RFC 6655, section 3: 4 bytes from the handshake, 8 in the record.
EXPLICIT_NONCE = 8


class KeyExchange(StrEnum):
    """How the two sides come to a secret."""

    ECDHE_ECDSA = "ecdhe_ecdsa"
    PSK = "psk"
    ECDHE_PSK = "ecdhe_psk"

    @property
    def ephemeral(self) -> bool:
        """Whether a key is agreed on that exists for this handshake only."""
        return self is not KeyExchange.PSK


class Aead(Protocol):
    """An AEAD of `cryptography` with its key."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Ciphertext and tag."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Plaintext; raises `InvalidTag`."""


class _ChaCha20:
    """ChaCha20-Poly1305, made anew for each record: that takes 1 µs, and kept it would hold 2 KB for each direction."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        return ChaCha20Poly1305(self._key).encrypt(nonce, data, associated_data)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        return ChaCha20Poly1305(self._key).decrypt(nonce, data, associated_data)


class Suite(Struct, frozen=True):
    """A cipher suite. Its PRF and its handshake hash are SHA-256 in all that are here.

    Attributes:
        iv_length: Bytes of the nonce that the handshake gives: 4, and the record has 8 more; or all 12.
    """

    number: int
    name: str
    key_exchange: KeyExchange
    key_length: int
    iv_length: int
    tag_length: int

    @property
    def explicit_nonce(self) -> int:
        """Bytes of the nonce that each record carries."""
        return 12 - self.iv_length

    def aead(self, key: bytes) -> Aead:
        """The cipher with its key."""
        return AESCCM(key, tag_length=self.tag_length) if self.explicit_nonce else _ChaCha20(key)


# RFC 7251, section 2.1: what Device OS speaks (device-protocol.md, section 3.1).
ECDHE_ECDSA_CCM_8 = Suite(0xC0AE, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8", KeyExchange.ECDHE_ECDSA, 16, 4, 8)
# RFC 6655, section 3: mandatory for CoAP with pre-shared keys (RFC 7252, section 9.1.3.1).
PSK_CCM_8 = Suite(0xC0A8, "TLS_PSK_WITH_AES_128_CCM_8", KeyExchange.PSK, 16, 4, 8)
# RFC 7905, section 2: what was recorded stays secret when the pre-shared key is lost.
ECDHE_PSK_CHACHA20 = Suite(
    0xCCAC, "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256", KeyExchange.ECDHE_PSK, 32, 12, 16
)  # fmt: skip

# In order of preference.
SUITES = {suite.number: suite for suite in (ECDHE_ECDSA_CCM_8, ECDHE_PSK_CHACHA20, PSK_CCM_8)}
