"""The server's side: greeting without memory, and the handshake after the cookie came back."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from wirechamber.protocols.dtls.alerts import Alert, Fatal
from wirechamber.protocols.dtls.assembly import Fragment, read_fragments
from wirechamber.protocols.dtls.cookies import SECRET, Cookies
from wirechamber.protocols.dtls.events import NeedsPsk, OtherPsk
from wirechamber.protocols.dtls.handshake import Handshake
from wirechamber.protocols.dtls.keys import psk_premaster, verify_data
from wirechamber.protocols.dtls.messages import (
    ASK_FOR_KEY,
    RANDOM,
    ClientHello,
    ExtensionType,
    HandshakeType,
    HelloVerifyRequest,
    ServerHello,
    ServerKeyExchange,
    ecdh_params,
    new_key,
    read_certificate_verify,
    read_client_hello,
    read_client_key_exchange,
    read_point,
    read_raw_public_key,
    read_spki,
    sign,
    verify,
    whole,
    write_certificate_request,
    write_hello_verify_request,
    write_point,
    write_raw_public_key,
    write_server_hello,
    write_server_key_exchange,
    write_spki,
)
from wirechamber.protocols.dtls.negotiation import choose, profile_of
from wirechamber.protocols.dtls.records import (
    DTLS10,
    DTLS12,
    HANDSHAKE,
    SEQUENCES,
    Record,
    read_records,
    write_record,
)
from wirechamber.protocols.dtls.session import Profile, Received, Session, SessionState
from wirechamber.protocols.dtls.states import SERVER, State, beginning
from wirechamber.protocols.dtls.suites import KeyExchange
from wirechamber.protocols.dtls.transmission import MTU, ChangeCipherSpec, Item, Transmission
from wirechamber.protocols.dtls.wire import Malformed, vector

# A client counts its ClientHellos up with each HelloVerifyRequest; one that comes to this is not in earnest.
MAX_HELLO_NUMBER = 64
# Records of epoch 0 are numbered from the ClientHello's on (RFC 6347, section 4.2.1), and this many must be left.
_ROOM = 1 << 16
# A Device OS device repeats its ClientHello after 3 s, which costs it less than our flight twice on a slow network.
FIRST_TIMEOUT_S: dict[Profile, float] = {"deviceos": 3.0, "deviceos-3.0": 3.0, "rfc": 1.0}
# How long a client may repeat the end of its flight: Device OS until 21 s after the first time, gives up at 45 s.
LINGER_S = 45.0


class Answer(Struct, frozen=True):
    """A datagram for whoever sent the greeting; nothing was kept of it."""

    datagram: bytes


class _Terms(Struct, frozen=True):
    """What handshakes have in common."""

    private_key: ec.EllipticCurvePrivateKey
    spki: bytes
    new_cid: Callable[[], bytes]
    psk: bool
    urandom: Callable[[int], bytes]
    new_key: Callable[[], ec.EllipticCurvePrivateKey]
    mtu: int


class Listener:
    """Answers strangers.

    Args:
        private_key: The server's, of P-256.
        new_cid: A connection id that no session has, 8 bytes.
        psk: Pre-shared keys are accepted.
        urandom: Random bytes.
        new_key: An ephemeral key.
        mtu: The longest datagram of a handshake, bytes.
    """

    def __init__(
        self,
        private_key: ec.EllipticCurvePrivateKey,
        new_cid: Callable[[], bytes],
        psk: bool = True,
        *,
        urandom: Callable[[int], bytes] = os.urandom,
        new_key: Callable[[], ec.EllipticCurvePrivateKey] = new_key,
        mtu: int = MTU,
    ) -> None:
        spki = write_spki(private_key.public_key())
        self._terms = _Terms(private_key, spki, new_cid, psk, urandom, new_key, mtu)
        self._cookies = Cookies(urandom(SECRET))

    def greet(self, datagram: bytes, peer: bytes, now: float) -> Answer | ServerHandshake | None:
        """Takes a datagram from an address without a handshake or session.

        A ClientHello gets a cookie; it must be in one record, and in one fragment, because nothing is kept until the
        cookie has come back. Whatever else it is, it gets no answer.

        Args:
            peer: The sender's address, in any form.
            now: Seconds, monotonic.
        """
        hello = _read_hello(datagram)
        if hello is None:
            return None
        record, fragment, client_hello = hello
        if self._cookies.good(client_hello, peer, now):
            return ServerHandshake(self._terms, record, fragment, client_hello, now)
        # RFC 6347, section 4.2.1: 1.0 whatever is negotiated later; Device OS was seen with 1.2 (section 3.4).
        version = DTLS10 if profile_of(client_hello) == "rfc" else DTLS12
        request = HelloVerifyRequest(version, self._cookies.make(client_hello, peer, now))
        message = whole(HandshakeType.HELLO_VERIFY_REQUEST, fragment.sequence, write_hello_verify_request(request))
        # RFC 6347, section 4.2.1: the record has the ClientHello's number, so nothing needs to be counted.
        answer = write_record(HANDSHAKE, record.sequence, message, version)
        # Whoever forges an address must not gain by it.
        return Answer(answer) if len(answer) <= len(datagram) else None


def _read_hello(datagram: bytes) -> tuple[Record, Fragment, ClientHello] | None:
    records = read_records(datagram, 0)
    if not records:
        return None
    record = records[0]
    if record.content_type != HANDSHAKE or record.epoch != 0 or record.sequence > SEQUENCES - _ROOM:
        return None
    try:
        fragment = read_fragments(record.content)[0]
        if (
            fragment.kind != HandshakeType.CLIENT_HELLO
            or len(fragment.data) != fragment.length
            or fragment.sequence > MAX_HELLO_NUMBER
        ):
            return None
        return record, fragment, read_client_hello(fragment.data)
    except Malformed:
        return None


class ServerHandshake(Handshake):
    """The server's side of a handshake, from the ClientHello with the cookie on. Made by `Listener.greet`."""

    __slots__ = (
        "_choice", "_cid", "_client_random", "_ephemeral", "_identity", "_last", "_master", "_peer_key", "_point",
        "_server_random", "_terms",
    )  # fmt: skip

    def __init__(self, terms: _Terms, record: Record, fragment: Fragment, hello: ClientHello, now: float) -> None:
        # RFC 6347, section 4.2.1: the ServerHello's record, too, has the ClientHello's number.
        transmission = Transmission(record.sequence, FIRST_TIMEOUT_S["rfc"], terms.mtu)
        super().__init__(transmission, now, expected=fragment.sequence + 1, sequence=fragment.sequence)
        self._terms = terms
        self._client_random = hello.random
        self._server_random = b""
        self._ephemeral: ec.EllipticCurvePrivateKey | None = None
        self._peer_key: ec.EllipticCurvePublicKey | None = None
        self._point: bytes | None = None
        self._identity: bytes | None = None
        self._master = b""
        self._cid = b""
        # Number of the client's Finished message.
        self._last = -1
        self._transcript.update(whole(HandshakeType.CLIENT_HELLO, fragment.sequence, fragment.data))
        with self._failing():
            self._choice = choose(hello, psk=terms.psk)
            self._offer(now)

    # --- for whoever drives it ---

    def continues(self, datagram: bytes) -> bool:
        """Whether a datagram from its address belongs to this handshake, and not to a new one."""
        records = read_records(datagram, self._cid_length)
        if not records:
            return False
        record = records[0]
        if record.epoch != 0 or record.content_type != HANDSHAKE:
            return record.epoch <= 1
        try:
            fragment = read_fragments(record.content)[0]
        except Malformed:
            return False
        if fragment.kind != HandshakeType.CLIENT_HELLO:
            return True
        # The random comes after the version; a later fragment of a ClientHello is nobody's.
        return fragment.offset == 0 and fragment.data[2 : 2 + RANDOM] == self._client_random

    def repeated(self, received: Received, now: float) -> None:
        """Takes a handshake record that came under the session's keys.

        If it repeats the end of the client's flight, ours was lost, and is sent again (RFC 6347, section 4.2.4).
        """
        if self._state is State.ESTABLISHED:
            self._fragments(received.data, now, protected=True)

    def provide_psk(self, psk: bytes | None, now: float) -> None:
        """Goes on with the key that `NeedsPsk` asked for.

        Args:
            psk: None when there is none for this identity. The client can't tell that from having the wrong key, so
                nobody learns which identities exist (RFC 4279, section 2, allows to hide it in this way).
        """
        if self._state is not State.PSK:
            return
        self._state = State.FINISHED
        with self._failing():
            self._make_keys(psk_premaster(self._shared(), psk or self._terms.urandom(RANDOM)), now)
            self._advance(now)

    def _not_opened(self) -> None:
        if self._identity is not None:
            self._events.append(OtherPsk(self._identity))

    @property
    def showed_key(self) -> bool:
        """Whether the client was shown the server's key, or what was signed with it."""
        return self._path is SERVER[KeyExchange.ECDHE_ECDSA]

    # --- flight 4 ---

    def _offer(self, now: float) -> None:
        choice, terms = self._choice, self._terms
        exchange = choice.suite.key_exchange
        self._server_random = terms.urandom(RANDOM)
        extensions = dict(choice.extensions)
        if choice.cid_form != "none":
            self._cid = terms.new_cid()
            self._cid_length = len(self._cid)
            draft = choice.cid_form == "draft"
            kind = ExtensionType.DRAFT_CONNECTION_ID if draft else ExtensionType.CONNECTION_ID
            extensions[kind] = vector(self._cid, 1)
        hello = ServerHello(DTLS12, self._server_random, b"", choice.suite.number, 0, extensions)
        flight: list[Item] = [self._say(HandshakeType.SERVER_HELLO, write_server_hello(hello))]
        if exchange is KeyExchange.ECDHE_ECDSA and choice.profile == "rfc":
            flight.append(self._say(HandshakeType.CERTIFICATE, write_raw_public_key(terms.spki)))
        if exchange.ephemeral:
            flight.append(self._say(HandshakeType.SERVER_KEY_EXCHANGE, self._server_key_exchange()))
        if exchange is KeyExchange.ECDHE_ECDSA:
            # Who does not show its key is nobody (device-protocol.md, Q11).
            flight.append(self._say(HandshakeType.CERTIFICATE_REQUEST, write_certificate_request(ASK_FOR_KEY)))
        flight.append(self._say(HandshakeType.SERVER_HELLO_DONE, b""))
        self._path = SERVER[exchange]
        self._state = beginning(self._path)
        self._transmission.first_timeout = FIRST_TIMEOUT_S[choice.profile]
        self._transmission.send(flight, now)

    def _server_key_exchange(self) -> bytes:
        self._ephemeral = self._terms.new_key()
        point = write_point(self._ephemeral.public_key())
        params = ecdh_params(point)
        if self._choice.suite.key_exchange is not KeyExchange.ECDHE_ECDSA:
            # RFC 5489, section 2: an empty hint, because the client knows what it is called here.
            return write_server_key_exchange(ServerKeyExchange(b"", params, point, None))
        digest = hashlib.sha256(self._client_random + self._server_random + params).digest()
        signature = sign(self._terms.private_key, digest)
        return write_server_key_exchange(ServerKeyExchange(None, params, point, signature))

    # --- flight 5 ---

    def _on_certificate(self, body: bytes, before: bytes, now: float) -> None:
        self._transmission.stop()
        spki = read_raw_public_key(body)
        if not spki:
            raise Fatal(Alert.HANDSHAKE_FAILURE, "the client shows no key")
        try:
            self._peer_key = read_spki(spki)
        except Malformed as problem:
            raise Fatal(Alert.UNSUPPORTED_CERTIFICATE, str(problem)) from None

    def _on_client_key_exchange(self, body: bytes, before: bytes, now: float) -> None:
        self._transmission.stop()
        exchange = self._choice.suite.key_exchange
        psk = exchange is not KeyExchange.ECDHE_ECDSA
        said = read_client_key_exchange(body, psk=psk, ephemeral=exchange.ephemeral)
        self._point = said.point
        if said.identity is None:
            shared = self._shared()
            assert shared is not None
            self._make_keys(shared, now)
            return
        # Before the question is asked: a point that is wrong needs no answer to it.
        if said.point is not None:
            self._point_checked(said.point)
        self._identity = said.identity
        self._events.append(NeedsPsk(said.identity))

    def _point_checked(self, point: bytes) -> ec.EllipticCurvePublicKey:
        try:
            return read_point(point)
        except Malformed as problem:
            # RFC 8422, section 5.10: points must be validated.
            raise Fatal(Alert.ILLEGAL_PARAMETER, str(problem)) from None

    def _shared(self) -> bytes | None:
        if self._ephemeral is None or self._point is None:
            return None
        return self._ephemeral.exchange(ec.ECDH(), self._point_checked(self._point))

    def _make_keys(self, premaster: bytes, now: float) -> None:
        choice = self._choice
        self._master, keys = self._keys(
            premaster, self._client_random, self._server_random, choice.suite, extended=choice.extended_master_secret
        )
        self._ephemeral = None
        self._session = Session(
            SessionState(
                profile=choice.profile,
                role="server",
                suite=choice.suite.number,
                cid_form=choice.cid_form,
                local_cid=self._cid,
                remote_cid=choice.remote_cid,
                read_key=keys.client_key,
                write_key=keys.server_key,
                read_iv=keys.client_iv,
                write_iv=keys.server_iv,
                psk_identity=self._identity,
                peer_public_key=None if self._peer_key is None else write_spki(self._peer_key),
            )
        )
        self._opened(now)

    def _on_certificate_verify(self, body: bytes, before: bytes, now: float) -> None:
        assert self._peer_key is not None
        if not verify(self._peer_key, read_certificate_verify(body), before):
            raise Fatal(Alert.DECRYPT_ERROR, "the client does not have the key that it shows")

    def _on_finished(self, body: bytes, before: bytes, now: float) -> None:
        if not hmac.compare_digest(body, verify_data(self._master, b"client finished", before)):
            raise Fatal(Alert.DECRYPT_ERROR, "the Finished message is wrong")
        session = self._session
        assert session is not None
        self._last = self._assembly.expected - 1
        ours = verify_data(self._master, b"server finished", self._transcript.digest())
        self._master = b""
        finished = self._say(HandshakeType.FINISHED, ours, protected=True)
        self._transmission.send([ChangeCipherSpec(), finished], now, protect=session.protect, keep=True, last=True)
        self._gives_up = now + LINGER_S
        self._established()

    def _repeated(self, kind: int, sequence: int, now: float) -> None:
        if self._state is State.ESTABLISHED:
            # Only the repeated end counts: it is authenticated, and a ClientHello is not.
            if kind == HandshakeType.FINISHED and sequence == self._last:
                self._transmission.repeat(now)
        elif kind == HandshakeType.CLIENT_HELLO and self._transmission.due is not None:
            # A client that has begun its next flight has ours, however often it repeats itself.
            self._transmission.repeat(now)

    def _handle(self, kind: int, body: bytes, before: bytes, now: float) -> None:
        self._HANDLERS[kind](self, body, before, now)

    _HANDLERS: ClassVar[dict[int, Callable[[ServerHandshake, bytes, bytes, float], None]]] = {
        HandshakeType.CERTIFICATE: _on_certificate,
        HandshakeType.CLIENT_KEY_EXCHANGE: _on_client_key_exchange,
        HandshakeType.CERTIFICATE_VERIFY: _on_certificate_verify,
        HandshakeType.FINISHED: _on_finished,
    }
