"""The client's side: as a Device OS device does it (device-protocol.md, section 3), and as the RFCs say."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from wirechamber.protocols.dtls.alerts import Alert, Fatal
from wirechamber.protocols.dtls.handshake import Handshake
from wirechamber.protocols.dtls.keys import psk_premaster, verify_data
from wirechamber.protocols.dtls.messages import (
    ECDSA_SECP256R1_SHA256,
    RANDOM,
    RAW_PUBLIC_KEY,
    SECP256R1,
    ClientHello,
    ClientKeyExchange,
    Extensions,
    ExtensionType,
    HandshakeType,
    ServerHello,
    new_key,
    read_certificate_request,
    read_hello_verify_request,
    read_list,
    read_point,
    read_raw_public_key,
    read_server_hello,
    read_server_key_exchange,
    sign,
    verify,
    write_client_hello,
    write_client_key_exchange,
    write_point,
    write_raw_public_key,
    write_signature,
    write_spki,
)
from wirechamber.protocols.dtls.records import ALERT, CID_LENGTH, DTLS12
from wirechamber.protocols.dtls.session import CidForm, Profile, Session, SessionState
from wirechamber.protocols.dtls.states import CLIENT, CLIENT_HELLO, State, beginning
from wirechamber.protocols.dtls.suites import (
    ECDHE_ECDSA_CCM_8,
    ECDHE_PSK_CHACHA20,
    PSK_CCM_8,
    RENEGOTIATION_SCSV,
    SUITES,
    KeyExchange,
    Suite,
)
from wirechamber.protocols.dtls.transmission import MTU, ChangeCipherSpec, Item, Transmission
from wirechamber.protocols.dtls.wire import Malformed, number, vector

# Device OS: at 0, 3, 9 and 21 s, and no more after 45 s, for each flight (device-protocol.md, section 3.4).
FIRST_TIMEOUT_S: dict[Profile, float] = {"deviceos": 3.0, "deviceos-3.0": 3.0, "rfc": 1.0}
PATIENCE_S: dict[Profile, float] = {"deviceos": 45.0, "deviceos-3.0": 45.0, "rfc": 60.0}
# A server asks once for a cookie, and again if it changed its secret in between.
MAX_COOKIES = 4
# What Device OS offers beside the one that is used (device-protocol.md, section 3.1).
_DEVICEOS_ALGORITHMS = (0x0403, 0x0401, 0x0303, 0x0301)


class PublicKeys(Struct, frozen=True):
    """Both sides are known by their keys, of P-256."""

    private_key: ec.EllipticCurvePrivateKey
    server_public_key: ec.EllipticCurvePublicKey


class PreSharedKey(Struct, frozen=True):
    """Both sides know a key, and the server knows it by a name."""

    identity: bytes
    key: bytes


class ClientHandshake(Handshake):
    """The client's side of a handshake; the first datagram is ready at once.

    Args:
        now: Seconds, monotonic.
        profile: Those of Device OS are for `PublicKeys` only.
        cid: What records to us shall carry, RFC 9146; empty: nothing, but ours carry what the server wants; None: no
            connection ids. Device OS has it empty, and before 3.1 none.
        suites: Their numbers, in order of preference; by default what the credentials are good for.
        urandom: Random bytes.
        new_key: An ephemeral key.
        deterministic: Signs as RFC 6979 has it, like Device OS; for tests that compare bytes.
        mtu: The longest datagram, bytes.
    """

    __slots__ = (
        "_asked", "_cid", "_cookies", "_credentials", "_deterministic", "_extended", "_form", "_hello", "_master",
        "_new_key", "_point", "_profile", "_random", "_remote_cid", "_server_random", "_shows_key", "_suite",
    )  # fmt: skip

    def __init__(
        self,
        credentials: PublicKeys | PreSharedKey,
        now: float,
        profile: Profile = "deviceos",
        cid: bytes | None = None,
        *,
        suites: Sequence[int] | None = None,
        urandom: Callable[[int], bytes] = os.urandom,
        new_key: Callable[[], ec.EllipticCurvePrivateKey] = new_key,
        deterministic: bool = False,
        mtu: int = MTU,
    ) -> None:
        super().__init__(Transmission(0, FIRST_TIMEOUT_S[profile], mtu), now, expected=0, sequence=0)
        keys = isinstance(credentials, PublicKeys)
        if profile != "rfc" and not keys:
            raise ValueError("Device OS has no pre-shared keys")
        self._credentials = credentials
        self._profile: Profile = profile
        self._cid = cid if profile == "rfc" else b"" if profile == "deviceos" else None
        self._new_key = new_key
        self._deterministic = deterministic
        self._random = urandom(RANDOM)
        self._server_random = b""
        self._suite: Suite = ECDHE_ECDSA_CCM_8
        self._form: CidForm = "none"
        self._remote_cid = b""
        self._extended = False
        self._shows_key = False
        self._asked = False
        self._point: bytes | None = None
        self._master = b""
        self._cookies = 0
        if suites is None:
            offered = (ECDHE_ECDSA_CCM_8,) if keys else (ECDHE_PSK_CHACHA20, PSK_CCM_8)
            suites = [suite.number for suite in offered]
        self._hello = ClientHello(
            version=DTLS12,
            random=self._random,
            session_id=b"",
            cookie=b"",
            suites=(*suites, RENEGOTIATION_SCSV),
            compression=b"\0",
            extensions=_rfc_extensions(suites, cid, keys=keys) if profile == "rfc" else _deviceos_extensions(self._cid),
        )
        self._path = CLIENT_HELLO
        self._greet(now)

    def _greet(self, now: float) -> None:
        # RFC 6347, section 4.2.1: the first ClientHello and its answer are not part of what is hashed.
        self._transcript = hashlib.sha256()
        self._gives_up = now + PATIENCE_S[self._profile]
        hello = write_client_hello(self._hello)
        self._transmission.send([self._say(HandshakeType.CLIENT_HELLO, hello)], now)

    # --- flights 2 and 4 ---

    def _on_hello_verify_request(self, body: bytes, before: bytes, now: float) -> None:
        request = read_hello_verify_request(body)
        self._cookies += 1
        if self._cookies > MAX_COOKIES:
            raise Fatal(Alert.HANDSHAKE_FAILURE, "the server wants one cookie after the other")
        hello = self._hello
        self._hello = ClientHello(
            hello.version, hello.random, hello.session_id, request.cookie, hello.suites, hello.compression,
            hello.extensions,
        )  # fmt: skip
        self._greet(now)

    def _on_server_hello(self, body: bytes, before: bytes, now: float) -> None:
        hello = read_server_hello(body)
        suite = SUITES.get(hello.suite)
        if hello.version != DTLS12:
            raise Fatal(Alert.PROTOCOL_VERSION, f"the server speaks version {hello.version:04x}")
        if suite is None or hello.suite not in self._hello.suites or hello.compression:
            raise Fatal(Alert.ILLEGAL_PARAMETER, "the server chose what was not offered")
        self._server_random = hello.random
        self._suite = suite
        if self._profile == "rfc":
            self._read_rfc(hello)
        else:
            self._read_deviceos(hello.extensions)
        self._path = CLIENT[self._profile, suite.key_exchange]
        self._state = beginning(self._path)

    def _read_deviceos(self, extensions: Extensions) -> None:
        self._shows_key = extensions.get(ExtensionType.CLIENT_CERTIFICATE_TYPE) == bytes((RAW_PUBLIC_KEY,))
        if self._cid is None:
            return
        cid = extensions.get(ExtensionType.DRAFT_CONNECTION_ID)
        # A device would finish the handshake, and then throw the session away (device-protocol.md, Q3).
        if cid is None or len(read_list(cid, 1)) != CID_LENGTH:
            raise Fatal(Alert.HANDSHAKE_FAILURE, "no connection id of 8 bytes")
        self._form = "draft"
        self._remote_cid = read_list(cid, 1)

    def _read_rfc(self, hello: ServerHello) -> None:
        extensions = hello.extensions
        for kind in extensions:
            # RFC 5746, section 3.4: the suite that is none counts as the extension.
            if kind not in self._hello.extensions and kind != ExtensionType.RENEGOTIATION_INFO:
                raise Fatal(Alert.UNSUPPORTED_EXTENSION, f"extension {kind} was not offered")
        if extensions.get(ExtensionType.RENEGOTIATION_INFO, b"\0") != b"\0":
            raise Fatal(Alert.HANDSHAKE_FAILURE, "renegotiation of nothing")
        self._extended = ExtensionType.EXTENDED_MASTER_SECRET in extensions
        key = bytes((RAW_PUBLIC_KEY,))
        self._shows_key = extensions.get(ExtensionType.CLIENT_CERTIFICATE_TYPE) == key
        ecdsa = self._suite.key_exchange is KeyExchange.ECDHE_ECDSA
        if ecdsa and extensions.get(ExtensionType.SERVER_CERTIFICATE_TYPE) != key:
            raise Fatal(Alert.UNSUPPORTED_CERTIFICATE, "the server has a certificate, and no raw public key")
        cid = extensions.get(ExtensionType.CONNECTION_ID)
        if cid is not None:
            self._form = "rfc9146"
            self._remote_cid = read_list(cid, 1)
            self._cid_length = len(self._cid or b"")

    def _on_certificate(self, body: bytes, before: bytes, now: float) -> None:
        assert isinstance(self._credentials, PublicKeys)
        if not hmac.compare_digest(read_raw_public_key(body), write_spki(self._credentials.server_public_key)):
            raise Fatal(Alert.CERTIFICATE_UNKNOWN, "the server has another key")

    def _on_server_key_exchange(self, body: bytes, before: bytes, now: float) -> None:
        exchange = self._suite.key_exchange
        psk = exchange is not KeyExchange.ECDHE_ECDSA
        said = read_server_key_exchange(body, psk=psk, ephemeral=exchange.ephemeral)
        if exchange.ephemeral:
            self._point = said.point
        if said.signature is not None:
            assert isinstance(self._credentials, PublicKeys)
            digest = hashlib.sha256(self._random + self._server_random + said.params).digest()
            if not verify(self._credentials.server_public_key, said.signature, digest):
                raise Fatal(Alert.DECRYPT_ERROR, "the server does not have its key")

    def _on_certificate_request(self, body: bytes, before: bytes, now: float) -> None:
        read_certificate_request(body)
        self._asked = True

    # --- flight 5 ---

    def _on_server_hello_done(self, body: bytes, before: bytes, now: float) -> None:
        if body:
            raise Malformed("a ServerHelloDone with content")
        credentials = self._credentials
        flight: list[Item] = []
        if self._asked:
            assert isinstance(credentials, PublicKeys)
            # RFC 5246, section 7.4.6: whoever has nothing that was agreed on sends an empty one.
            spki = write_spki(credentials.private_key.public_key()) if self._shows_key else b""
            flight.append(self._say(HandshakeType.CERTIFICATE, write_raw_public_key(spki)))
        shared = point = None
        if self._point is not None:
            ephemeral = self._new_key()
            point = write_point(ephemeral.public_key())
            shared = ephemeral.exchange(ec.ECDH(), self._server_point())
        if isinstance(credentials, PreSharedKey):
            identity: bytes | None = credentials.identity
            premaster = psk_premaster(shared, credentials.key)
        else:
            assert shared is not None
            identity, premaster = None, shared
        exchange = write_client_key_exchange(ClientKeyExchange(identity, point))
        flight.append(self._say(HandshakeType.CLIENT_KEY_EXCHANGE, exchange))
        session = self._session = Session(self._make_state(premaster))
        if self._asked and self._shows_key:
            assert isinstance(credentials, PublicKeys)
            signature = sign(credentials.private_key, self._transcript.digest(), deterministic=self._deterministic)
            flight.append(self._say(HandshakeType.CERTIFICATE_VERIFY, write_signature(signature)))
        finished = verify_data(self._master, b"client finished", self._transcript.digest())
        flight += [ChangeCipherSpec(), self._say(HandshakeType.FINISHED, finished, protected=True)]
        self._gives_up = now + PATIENCE_S[self._profile]
        self._transmission.send(flight, now, protect=session.protect)
        self._opened(now)

    def _server_point(self) -> ec.EllipticCurvePublicKey:
        assert self._point is not None
        try:
            return read_point(self._point)
        except Malformed as problem:
            # RFC 8422, section 5.10: points must be validated.
            raise Fatal(Alert.ILLEGAL_PARAMETER, str(problem)) from None

    def _make_state(self, premaster: bytes) -> SessionState:
        self._master, keys = self._keys(
            premaster, self._random, self._server_random, self._suite, extended=self._extended
        )
        credentials = self._credentials
        identity = server_key = None
        if isinstance(credentials, PreSharedKey):
            identity = credentials.identity
        else:
            server_key = write_spki(credentials.server_public_key)
        return SessionState(
            profile=self._profile,
            role="client",
            suite=self._suite.number,
            cid_form=self._form,
            local_cid=b"" if self._form == "none" else self._cid or b"",
            remote_cid=self._remote_cid,
            read_key=keys.server_key,
            write_key=keys.client_key,
            read_iv=keys.server_iv,
            write_iv=keys.client_iv,
            psk_identity=identity,
            peer_public_key=server_key,
        )

    # --- flight 6 ---

    def _on_finished(self, body: bytes, before: bytes, now: float) -> None:
        if not hmac.compare_digest(body, verify_data(self._master, b"server finished", before)):
            raise Fatal(Alert.DECRYPT_ERROR, "the Finished message is wrong")
        self._master = b""
        self._established()
        self._over()

    def _repeated(self, kind: int, sequence: int, now: float) -> None:
        # Before our last flight the server may still send what is missing of its own, and then our clock decides.
        if self._state is State.FINISHED and kind == HandshakeType.SERVER_HELLO_DONE:
            self._transmission.repeat(now)

    def _tell(self, alert: bytes) -> None:
        # After our Finished message the server expects nothing in the clear.
        if self._state is State.FINISHED and self._session is not None:
            self._transmission.raw(self._session.protect(ALERT, alert))
        else:
            super()._tell(alert)

    def _handle(self, kind: int, body: bytes, before: bytes, now: float) -> None:
        self._HANDLERS[kind](self, body, before, now)

    _HANDLERS: ClassVar[dict[int, Callable[[ClientHandshake, bytes, bytes, float], None]]] = {
        HandshakeType.HELLO_VERIFY_REQUEST: _on_hello_verify_request,
        HandshakeType.SERVER_HELLO: _on_server_hello,
        HandshakeType.CERTIFICATE: _on_certificate,
        HandshakeType.SERVER_KEY_EXCHANGE: _on_server_key_exchange,
        HandshakeType.CERTIFICATE_REQUEST: _on_certificate_request,
        HandshakeType.SERVER_HELLO_DONE: _on_server_hello_done,
        HandshakeType.FINISHED: _on_finished,
    }


def _deviceos_extensions(cid: bytes | None) -> Extensions:
    # The order and the bytes of a device (device-protocol.md, section 3.2).
    key = vector(bytes((RAW_PUBLIC_KEY,)), 1)
    return {
        ExtensionType.SIGNATURE_ALGORITHMS: vector(b"".join(number(one, 2) for one in _DEVICEOS_ALGORITHMS), 2),
        ExtensionType.SUPPORTED_GROUPS: vector(number(SECP256R1, 2), 2),
        ExtensionType.EC_POINT_FORMATS: b"\x01\x00",
        **({} if cid is None else {ExtensionType.DRAFT_CONNECTION_ID: vector(cid, 1)}),
        ExtensionType.CLIENT_CERTIFICATE_TYPE: key,
        ExtensionType.SERVER_CERTIFICATE_TYPE: key,
    }


def _rfc_extensions(suites: Sequence[int], cid: bytes | None, *, keys: bool) -> Extensions:
    extensions: Extensions = {ExtensionType.EXTENDED_MASTER_SECRET: b""}
    if any(suite in SUITES and SUITES[suite].key_exchange.ephemeral for suite in suites):
        extensions[ExtensionType.SUPPORTED_GROUPS] = vector(number(SECP256R1, 2), 2)
        extensions[ExtensionType.EC_POINT_FORMATS] = b"\x01\x00"
    if keys:
        key = vector(bytes((RAW_PUBLIC_KEY,)), 1)
        extensions[ExtensionType.SIGNATURE_ALGORITHMS] = vector(number(ECDSA_SECP256R1_SHA256, 2), 2)
        extensions[ExtensionType.CLIENT_CERTIFICATE_TYPE] = key
        extensions[ExtensionType.SERVER_CERTIFICATE_TYPE] = key
    if cid is not None:
        extensions[ExtensionType.CONNECTION_ID] = vector(cid, 1)
    return extensions
