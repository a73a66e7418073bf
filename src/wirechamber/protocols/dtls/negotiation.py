"""What a server makes of a ClientHello: which profile, which suite, which extensions."""

from __future__ import annotations

from msgspec import Struct

from wirechamber.protocols.dtls.alerts import Alert, Fatal
from wirechamber.protocols.dtls.messages import (
    ECDSA_SECP256R1_SHA256,
    RAW_PUBLIC_KEY,
    SECP256R1,
    ClientHello,
    Extensions,
    ExtensionType,
    read_list,
)
from wirechamber.protocols.dtls.records import DTLS12
from wirechamber.protocols.dtls.session import CidForm, Profile
from wirechamber.protocols.dtls.suites import (
    ECDHE_ECDSA_CCM_8,
    RENEGOTIATION_SCSV,
    SUITES,
    KeyExchange,
    Suite,
)
from wirechamber.protocols.dtls.wire import numbers, vector

_NULL_COMPRESSION = 0
# RFC 8422, section 5.1.2: uncompressed, the only one that is left.
_POINT_FORMATS = b"\x01\x00"
_EMPTY_RENEGOTIATION = b"\x00"

# What a Device OS device offers: one suite, and that it knows secure renegotiation.
DEVICEOS_SUITES = (ECDHE_ECDSA_CCM_8.number, RENEGOTIATION_SCSV)
_CERTIFICATE_TYPES = (ExtensionType.CLIENT_CERTIFICATE_TYPE, ExtensionType.SERVER_CERTIFICATE_TYPE)
_NOT_BEFORE_3_1 = {
    ExtensionType.CONNECTION_ID, ExtensionType.DRAFT_CONNECTION_ID, ExtensionType.EXTENDED_MASTER_SECRET,
}  # fmt: skip
_ONLY_RAW_PUBLIC_KEY = bytes((1, RAW_PUBLIC_KEY))


class Choice(Struct, frozen=True):
    """What was agreed on.

    Attributes:
        remote_cid: What the client wants to see in records to it.
        extensions: Of the ServerHello, without the connection id's, in their order.
        extended_master_secret: RFC 7627.
    """

    profile: Profile
    suite: Suite
    cid_form: CidForm
    remote_cid: bytes
    extensions: Extensions
    extended_master_secret: bool


def profile_of(hello: ClientHello) -> Profile:
    """Who says hello.

    A Device OS device has one suite, and the draft's connection id (device-protocol.md, 3.2). Others that have the
    draft's, such as programs with mbedTLS 2, may live without connection ids.

    Before 3.1 it had none (section 4.5), and is told by all that it says together: this suite and no other, raw public
    keys and nothing else on both sides, no connection id, and no extended master secret (RFC 7627), without which
    programs by the RFCs are hardly found. Those want the server's Certificate message, which a device can't stand.
    """
    if ExtensionType.DRAFT_CONNECTION_ID in hello.extensions and ECDHE_ECDSA_CCM_8.number in hello.suites:
        return "deviceos"
    if (
        hello.suites == DEVICEOS_SUITES
        and all(hello.extensions.get(kind) == _ONLY_RAW_PUBLIC_KEY for kind in _CERTIFICATE_TYPES)
        and not hello.extensions.keys() & _NOT_BEFORE_3_1
    ):
        return "deviceos-3.0"
    return "rfc"


def choose(hello: ClientHello, *, psk: bool) -> Choice:
    """Chooses, or raises `Fatal` when there is nothing in common, or `Malformed`.

    Args:
        psk: Pre-shared keys are accepted.
    """
    # Versions of DTLS count downward. One that is newer than ours is offered as well by naming it (RFC 6347, 4.2.1).
    if hello.version >> 8 != DTLS12 >> 8 or hello.version > DTLS12:
        raise Fatal(Alert.PROTOCOL_VERSION, f"version {hello.version:04x} only")
    if _NULL_COMPRESSION not in hello.compression:
        # RFC 5246, section 7.4.1.2: it "MUST contain" this one.
        raise Fatal(Alert.ILLEGAL_PARAMETER, "compression is demanded")
    profile = profile_of(hello)
    return _rfc(hello, psk=psk) if profile == "rfc" else _deviceos(hello, profile)


def _deviceos(hello: ClientHello, profile: Profile) -> Choice:
    offered = hello.extensions
    cid = profile == "deviceos"
    remote_cid = read_list(offered[ExtensionType.DRAFT_CONNECTION_ID], 1) if cid else b""
    if not (_fits_ecdhe(hello) and _fits_ecdsa(hello) and _offers_key(hello, ExtensionType.CLIENT_CERTIFICATE_TYPE)):
        raise Fatal(Alert.HANDSHAKE_FAILURE, "a Device OS device that lacks its suite, curve, signature or key")
    # The order and the set that were seen to work (device-protocol.md, sections 3.3 and 14.2).
    return Choice(
        profile=profile,
        suite=ECDHE_ECDSA_CCM_8,
        cid_form="draft" if cid else "none",
        remote_cid=remote_cid,
        extensions={
            ExtensionType.RENEGOTIATION_INFO: _EMPTY_RENEGOTIATION,
            **({ExtensionType.DRAFT_CONNECTION_ID: b""} if cid else {}),
            ExtensionType.CLIENT_CERTIFICATE_TYPE: bytes((RAW_PUBLIC_KEY,)),
            ExtensionType.SERVER_CERTIFICATE_TYPE: bytes((RAW_PUBLIC_KEY,)),
            ExtensionType.EC_POINT_FORMATS: _POINT_FORMATS,
        },
        extended_master_secret=False,
    )


def _rfc(hello: ClientHello, *, psk: bool) -> Choice:
    suite = next((suite for suite in SUITES.values() if _acceptable(hello, suite, psk=psk)), None)
    if suite is None:
        raise Fatal(Alert.HANDSHAKE_FAILURE, "no suite in common that the client can use")
    offered = hello.extensions
    answer: Extensions = {}
    renegotiation = offered.get(ExtensionType.RENEGOTIATION_INFO)
    if renegotiation is not None or RENEGOTIATION_SCSV in hello.suites:
        # RFC 5746, section 3.6: it must be empty at first, and the answer is empty too.
        if renegotiation not in (None, _EMPTY_RENEGOTIATION):
            raise Fatal(Alert.HANDSHAKE_FAILURE, "renegotiation of nothing")
        answer[ExtensionType.RENEGOTIATION_INFO] = _EMPTY_RENEGOTIATION
    extended = offered.get(ExtensionType.EXTENDED_MASTER_SECRET)
    if extended is not None:
        if extended:
            raise Fatal(Alert.DECODE_ERROR, "an extended master secret extension with content")
        answer[ExtensionType.EXTENDED_MASTER_SECRET] = b""
    if suite.key_exchange is KeyExchange.ECDHE_ECDSA:
        answer[ExtensionType.CLIENT_CERTIFICATE_TYPE] = bytes((RAW_PUBLIC_KEY,))
        answer[ExtensionType.SERVER_CERTIFICATE_TYPE] = bytes((RAW_PUBLIC_KEY,))
    if suite.key_exchange.ephemeral and ExtensionType.EC_POINT_FORMATS in offered:
        answer[ExtensionType.EC_POINT_FORMATS] = _POINT_FORMATS
    remote_cid = b""
    cid = offered.get(ExtensionType.CONNECTION_ID)
    if cid is not None:
        remote_cid = read_list(cid, 1)
        answer[ExtensionType.CONNECTION_ID] = b""
    return Choice(
        profile="rfc",
        suite=suite,
        cid_form="none" if cid is None else "rfc9146",
        remote_cid=remote_cid,
        extensions=answer,
        extended_master_secret=extended is not None,
    )


def cid_extension(form: CidForm, cid: bytes) -> Extensions:
    """The extension that tells the peer which connection id to use in records to us."""
    if form == "none":
        return {}
    kind = ExtensionType.DRAFT_CONNECTION_ID if form == "draft" else ExtensionType.CONNECTION_ID
    return {kind: vector(cid, 1)}


def _acceptable(hello: ClientHello, suite: Suite, *, psk: bool) -> bool:
    if suite.number not in hello.suites:
        return False
    if suite.key_exchange is KeyExchange.ECDHE_ECDSA:
        # Keys are known, certificates are not; and who can't show a key is nobody.
        return (
            _fits_ecdhe(hello)
            and _fits_ecdsa(hello)
            and _offers_key(hello, ExtensionType.CLIENT_CERTIFICATE_TYPE)
            and _offers_key(hello, ExtensionType.SERVER_CERTIFICATE_TYPE)
        )
    return psk and (not suite.key_exchange.ephemeral or _fits_ecdhe(hello))


def _fits_ecdhe(hello: ClientHello) -> bool:
    groups = hello.extensions.get(ExtensionType.SUPPORTED_GROUPS)
    # RFC 8422, section 4: without the extension the server is free to choose.
    return groups is None or SECP256R1 in numbers(read_list(groups, 2))


def _fits_ecdsa(hello: ClientHello) -> bool:
    algorithms = hello.extensions.get(ExtensionType.SIGNATURE_ALGORITHMS)
    # RFC 5246, section 7.4.1.4.1: without the extension it would have to be SHA-1.
    return algorithms is not None and ECDSA_SECP256R1_SHA256 in numbers(read_list(algorithms, 2))


def _offers_key(hello: ClientHello, kind: ExtensionType) -> bool:
    types = hello.extensions.get(kind)
    return types is not None and RAW_PUBLIC_KEY in read_list(types, 1)
