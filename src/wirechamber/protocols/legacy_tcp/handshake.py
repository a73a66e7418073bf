"""The handshake (device-protocol.md, section 5.1), as server and as device.

    server                                   device
      nonce (40)                       -->
                                       <--   RSA to the server: nonce, device id, device's public key (256)
      RSA to the device: credentials,  -->
      and their HMAC, signed (384)

The device is authenticated by its key, which the caller must know: only its owner can read the credentials. The server
is authenticated by the signature. The protocol has no forward secrecy, and no choice of anything.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from wirechamber.protocols.legacy_tcp.events import Established, Event, Failed, Failure, NeedsAdmission
from wirechamber.protocols.legacy_tcp.session import CREDENTIALS_LENGTH, Session

SERVER_KEY_BITS = 2048
DEVICE_KEY_BITS = 1024
EXPONENT = 65537

NONCE_LENGTH = 40
DEVICE_ID_LENGTH = 12
DEVICE_KEY_LENGTH = 162
IDENTITY_LENGTH = NONCE_LENGTH + DEVICE_ID_LENGTH + DEVICE_KEY_LENGTH
SERVER_BLOCK = SERVER_KEY_BITS // 8
DEVICE_BLOCK = DEVICE_KEY_BITS // 8

# A device gives up on each read and each write after this long.
STEP_S = 20.0
# After its Hello the device wants one in return within this time.
HELLO_ANSWER_S = 4.0


class _Steps:
    """What both sides have in common: a buffer with a bound, bytes to send, and a time limit for the step under way.

    Attributes:
        over: Whether it ended, well or not.
    """

    def __init__(self, expects: int, now: float) -> None:
        self._expects = expects
        self._buffer = b""
        self._outgoing = b""
        self._deadline: float | None = now + STEP_S
        self.over = False

    def outgoing(self) -> bytes:
        """Takes what is to be sent."""
        data, self._outgoing = self._outgoing, b""
        return data

    def deadline(self) -> float | None:
        """When to call `tick`, unless something happens before."""
        return self._deadline

    def tick(self, now: float) -> list[Event]:
        """Ends the handshake if the other side has had its time."""
        if self._deadline is None or now < self._deadline:
            return []
        return self._fail(Failure.LATE)

    @property
    def missing(self) -> int:
        """Bytes that this step still lacks; taking fewer costs next to nothing, the last ones an RSA operation."""
        return max(0, self._expects - len(self._buffer))

    def _gather(self, data: bytes) -> bytes | None:
        """The bytes of this step once they are all there. There are never more: nobody speaks before an answer."""
        self._buffer += data[: self._expects + 1 - len(self._buffer)]
        return self._buffer if len(self._buffer) >= self._expects else None

    def _end(self) -> None:
        self.over = True
        self._deadline = None
        self._buffer = b""

    def _fail(self, why: Failure) -> list[Event]:
        self._end()
        self._outgoing = b""
        return [Failed(why)]


class ServerHandshake(_Steps):
    """One device's handshake, as the server sees it.

    Args:
        private_key: RSA, 2048 bits.
        now: Seconds, of any steady clock.
        dice: Random bytes.
    """

    def __init__(self, private_key: RSAPrivateKey, now: float, dice: Callable[[int], bytes] = os.urandom) -> None:
        if private_key.key_size != SERVER_KEY_BITS:
            raise ValueError(f"devices expect a server key of {SERVER_KEY_BITS} bits")
        super().__init__(SERVER_BLOCK, now)
        self._private_key = private_key
        self._dice = dice
        self._outgoing = self._nonce = dice(NONCE_LENGTH)
        self._asked: NeedsAdmission | None = None
        self._device_key: RSAPublicKey | None = None

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Takes bytes as they come, cut anywhere."""
        if self.over or not data:
            return []
        if self._asked is not None:
            return self._fail(Failure.TALKED_OUT_OF_TURN)
        block = self._gather(data)
        if block is None:
            return []
        if len(block) > SERVER_BLOCK:
            return self._fail(Failure.TALKED_OUT_OF_TURN)
        identity = self._decrypt(block)
        # Both are looked at whatever the other says. A wrong padding, a wrong length and a wrong nonce are one and the
        # same to whoever sent the block: no answer, and the nonce is used up (RFC 8017, section 7.2.2, warns of servers
        # that tell such errors apart, by word or by time).
        fits = len(identity) == IDENTITY_LENGTH
        heard = hmac.compare_digest(identity[:NONCE_LENGTH], self._nonce)
        if not (fits and heard):
            return self._fail(Failure.NOT_FOR_US)
        device_id = identity[NONCE_LENGTH : NONCE_LENGTH + DEVICE_ID_LENGTH]
        device_public_key = identity[NONCE_LENGTH + DEVICE_ID_LENGTH :]
        self._device_key = _read_device_key(device_public_key)
        if self._device_key is None:
            return self._fail(Failure.BAD_KEY)
        self._asked = NeedsAdmission(device_id, device_public_key)
        self._deadline = now + STEP_S
        return [self._asked]

    def admit(self) -> Established:
        """Answers the device: it is who it says if it owns the key.

        Raises:
            RuntimeError: Nobody waits to be admitted.
        """
        asked, device_key = self._asked, self._device_key
        if self.over or asked is None or device_key is None:
            raise RuntimeError("no device waits to be admitted")
        credentials = self._dice(CREDENTIALS_LENGTH)
        sealed = device_key.encrypt(credentials, PKCS1v15())
        mac = hmac.digest(credentials, sealed, "sha1")
        # A block of type 1 around the bare HMAC: no DigestInfo says what it is.
        self._outgoing = sealed + self._private_key.sign(mac, PKCS1v15(), NoDigestInfo())
        self._end()
        return Established(Session(credentials), asked.device_id, asked.device_public_key)

    def refuse(self) -> None:
        """Leaves the device without an answer; close the connection. Devices understand no reason."""
        self._end()
        self._outgoing = b""

    def _decrypt(self, block: bytes) -> bytes:
        # OpenSSL since 3.2 answers a wrong padding with bytes that only look like a message ("implicit rejection"). An
        # older one tells, and so does any for a number beyond the modulus: then the bytes are made up here.
        made_up = self._dice(IDENTITY_LENGTH)
        try:
            return self._private_key.decrypt(block, PKCS1v15())
        except ValueError:
            return made_up


class ClientHandshake(_Steps):
    """The device's side.

    Args:
        device_id: 12 bytes.
        private_key: The device's, RSA, 1024 bits.
        server_public_key: RSA, 2048 bits.
        now: Seconds, of any steady clock.
    """

    def __init__(
        self, device_id: bytes, private_key: RSAPrivateKey, server_public_key: RSAPublicKey, now: float
    ) -> None:
        if len(device_id) != DEVICE_ID_LENGTH:
            raise ValueError(f"a device id has {DEVICE_ID_LENGTH} bytes")
        if (private_key.key_size, server_public_key.key_size) != (DEVICE_KEY_BITS, SERVER_KEY_BITS):
            raise ValueError(f"keys have {DEVICE_KEY_BITS} and {SERVER_KEY_BITS} bits")
        super().__init__(NONCE_LENGTH, now)
        self._device_id = device_id
        self._private_key = private_key
        self._server_key = server_public_key
        self._public_key = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._introduced = False

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Takes bytes as they come, cut anywhere.

        Bytes after the handshake's end would be the server's first frame. It does not send one before the device's
        Hello, so here they are an error.
        """
        if self.over or not data:
            return []
        block = self._gather(data)
        if block is None:
            return []
        if len(block) > self._expects:
            return self._fail(Failure.TALKED_OUT_OF_TURN)
        if not self._introduced:
            self._outgoing = self._server_key.encrypt(block + self._device_id + self._public_key, PKCS1v15())
            self._introduced = True
            self._expects = DEVICE_BLOCK + SERVER_BLOCK
            self._buffer = b""
            self._deadline = now + STEP_S
            return []
        sealed, signature = block[:DEVICE_BLOCK], block[DEVICE_BLOCK:]
        try:
            credentials = self._private_key.decrypt(sealed, PKCS1v15())
            signed = self._server_key.recover_data_from_signature(signature, PKCS1v15(), NoDigestInfo())
        except (ValueError, InvalidSignature):
            return self._fail(Failure.NOT_THE_SERVER)
        if not hmac.compare_digest(signed, hmac.digest(credentials, sealed, "sha1")):
            return self._fail(Failure.NOT_THE_SERVER)
        if len(credentials) != CREDENTIALS_LENGTH:
            return self._fail(Failure.NOT_THE_SERVER)
        self._end()
        return [Established(Session(credentials), self._device_id, self._public_key)]


def _read_device_key(der: bytes) -> RSAPublicKey | None:
    """A device's key, or None when it is none that Device OS makes: RSA, 1024 bits, exponent 65537, plainly written."""
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, RSAPublicKey) or key.key_size != DEVICE_KEY_BITS or key.public_numbers().e != EXPONENT:
        return None
    # Keys are compared as bytes: one key must not have two forms.
    return key if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == der else None
