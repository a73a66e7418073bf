"""Frames: a length and a message under AES-128-CBC (device-protocol.md, section 5.2).

There is no MAC: the protocol can't tell a changed message from a good one. What it does see (a length, a padding, and
for our caller a message that makes no sense) ends the connection, and the keys with it, so that nobody gets to ask a
second time what a changed block decrypts to.
"""

from __future__ import annotations

from enum import StrEnum

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

BLOCK = 16
PREFIX = 2
KEY_LENGTH = 16
# Key, IV and salt.
CREDENTIALS_LENGTH = 40

# A device's largest message has 1152 bytes, of which a frame has at most 16 more (device-protocol.md, section 12).
# A length that we believe is memory that we lend to somebody who can still be silent, so there is no reason for more.
MAX_CIPHERTEXT = 2048
MAX_MESSAGE = MAX_CIPHERTEXT - 1


class Refusal(StrEnum):
    """Why a session reads no more."""

    BAD_LENGTH = "bad_length"
    TOO_LONG = "too_long"
    BAD_PADDING = "bad_padding"


class TooLong(ValueError):
    """A message is empty, or has more than MAX_MESSAGE bytes."""


def wire_length(message_length: int) -> int:
    """Bytes that a message takes on the wire, framing included: 18 for one of 4 bytes."""
    return PREFIX + BLOCK + message_length // BLOCK * BLOCK


class Session:
    """Both directions of an established link, the same for either side.

    Args:
        credentials: 40 bytes: AES key, the IV with which both directions begin, and a salt.

    Attributes:
        refused: Why nothing is read any more; the connection is to be closed. None while all is well.
        seed: From the salt. The device's first message id is `seed + 1`, modulo 65,536.
    """

    __slots__ = ("_algorithm", "_buffer", "_iv_in", "_iv_out", "refused", "seed")

    def __init__(self, credentials: bytes) -> None:
        if len(credentials) != CREDENTIALS_LENGTH:
            raise ValueError(f"credentials are {CREDENTIALS_LENGTH} bytes")
        self._algorithm = AES(credentials[:KEY_LENGTH])
        self._iv_in = self._iv_out = credentials[KEY_LENGTH : KEY_LENGTH + BLOCK]
        self._buffer = b""
        self.refused: Refusal | None = None
        # The device reads the salt's first two bytes as a number of its own, little-endian processor.
        self.seed = int.from_bytes(credentials[32:34], "little")

    def frame(self, message: bytes) -> bytes:
        """A message as it goes over the wire.

        Frames must be sent in the order in which they were made: each one's IV comes from the one before.

        Raises:
            TooLong: The message is empty, which the device would take for a closed connection, or too long.
        """
        if not 0 < len(message) <= MAX_MESSAGE:
            raise TooLong(f"a message has 1 to {MAX_MESSAGE} bytes, not {len(message)}")
        pad = BLOCK - len(message) % BLOCK
        encryptor = Cipher(self._algorithm, CBC(self._iv_out)).encryptor()
        ciphertext = encryptor.update(message + bytes((pad,)) * pad)
        # Not the last block, as CBC over several messages would have it, but the first.
        self._iv_out = ciphertext[:BLOCK]
        return len(ciphertext).to_bytes(PREFIX, "big") + ciphertext

    def receive(self, data: bytes) -> list[bytes]:
        """Takes bytes as they come, cut anywhere, and returns the messages that are complete.

        After a bad frame `refused` says why; messages before it are still returned, bytes after it are dropped.
        """
        if self.refused is not None:
            return []
        if self._buffer:
            data = self._buffer + data
        messages: list[bytes] = []
        at = 0
        while len(data) - at >= PREFIX:
            length = int.from_bytes(data[at : at + PREFIX], "big")
            if length > MAX_CIPHERTEXT:
                return self._refuse(Refusal.TOO_LONG, messages)
            if length == 0 or length % BLOCK:
                return self._refuse(Refusal.BAD_LENGTH, messages)
            end = at + PREFIX + length
            if end > len(data):
                break
            message = self._open(data[at + PREFIX : end])
            if message is None:
                return self._refuse(Refusal.BAD_PADDING, messages)
            messages.append(message)
            at = end
        self._buffer = data[at:]
        return messages

    @property
    def buffered(self) -> int:
        """Bytes of a frame that has not come whole, at most 2,049."""
        return len(self._buffer)

    def _open(self, ciphertext: bytes) -> bytes | None:
        decryptor = Cipher(self._algorithm, CBC(self._iv_in)).decryptor()
        padded = decryptor.update(ciphertext)
        self._iv_in = ciphertext[:BLOCK]
        pad = padded[-1]
        if not 0 < pad <= BLOCK or not padded.endswith(bytes((pad,)) * pad):
            return None
        return padded[:-pad]

    def _refuse(self, why: Refusal, messages: list[bytes]) -> list[bytes]:
        self.refused = why
        self._buffer = b""
        return messages
