"""A session: the keys that a handshake leaves, and records under them (RFC 6347, section 4.1; RFC 9146; RFC 6655).

This is the path of every datagram, so what can be prepared is prepared once per session, and bytes are cut once. The
first epoch after the handshake is the only one: nobody renegotiates.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import Literal

from cryptography.exceptions import InvalidTag
from msgspec import Struct

from wirechamber.protocols.dtls.records import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    DTLS12,
    HANDSHAKE,
    HEADER,
    MAX_CONTENT,
    MAX_PROTECTED,
    MOVED,
    SEQUENCES,
    TLS12_CID,
)
from wirechamber.protocols.dtls.suites import EXPLICIT_NONCE, SUITES, Aead

# Device OS since 3.1; Device OS before that, which has no connection ids; anybody else.
Profile = Literal["deviceos", "deviceos-3.0", "rfc"]
Role = Literal["server", "client"]
CidForm = Literal["none", "draft", "rfc9146"]

# RFC 6347, section 4.1.2.6: "a minimum window size of 32 MUST be supported, but a window size of 64 is preferred".
WINDOW = 64
_FULL_WINDOW = (1 << WINDOW) - 1
# A session whose sequence numbers are used up has sent 2^48 records.
LAST_SEQUENCE = SEQUENCES - 1
# device-protocol.md, Q7: a Device OS device pads what is inside to a multiple of this.
DRAFT_PADDING = 16

_EPOCH = 1 << 48
# What protection adds to what is inside, with each of the suites.
_OVERHEAD = 16
_VERSION = DTLS12.to_bytes(2, "big")
_OPENINGS = {
    kind: bytes((kind,)) + _VERSION
    for kind in (CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA, TLS12_CID, MOVED)
}
_CID_OPENING = _OPENINGS[TLS12_CID]
_MOVED_OPENING = _OPENINGS[MOVED]
_PLAIN_TYPES = {_OPENINGS[kind]: kind for kind in (ALERT, HANDSHAKE, APPLICATION_DATA)}


class Refusal(StrEnum):
    """Why a record was not taken. Nothing is told to whoever sent it (RFC 6347, section 4.1.2.7)."""

    LENGTH = "length"
    TYPE = "type"
    EPOCH = "epoch"
    CID = "cid"
    REPLAYED = "replayed"
    OLD = "old"
    TAG = "tag"
    EMPTY = "empty"


class SequenceExhausted(Exception):
    """No sequence number is left below the session's limit; with another one a nonce might be used twice."""


class Received(Struct, frozen=True, gc=False):
    """An authentic record.

    Attributes:
        content_type: What it holds.
        sequence: Its number; never the same twice in a session.
        moved: It came with outer type 253: the device has resumed its session, maybe elsewhere.
    """

    content_type: int
    data: bytes
    sequence: int
    moved: bool


class SessionState(Struct, frozen=True, gc=False):
    """What must be kept of a session, beside its counters, to go on with it after a restart. It is secret.

    Attributes:
        profile: Whom we speak with: a generation of Device OS, or anybody else.
        role: Ours.
        suite: The cipher suite's number.
        cid_form: How records carry connection ids.
        local_cid: In records to us; empty: they have none.
        remote_cid: In records from us; empty: they have none.
        psk_identity: What the client called its pre-shared key.
        peer_public_key: DER SubjectPublicKeyInfo, as the peer proved to have the private key of.
    """

    profile: Profile
    role: Role
    suite: int
    cid_form: CidForm
    local_cid: bytes
    remote_cid: bytes
    read_key: bytes
    write_key: bytes
    read_iv: bytes
    write_iv: bytes
    psk_identity: bytes | None = None
    peer_public_key: bytes | None = None


# One layout for each length of connection id that occurs; they are shared by all sessions.
_layouts: dict[int, struct.Struct] = {}


def _layout(cid_length: int) -> struct.Struct:
    layout = _layouts.get(cid_length)
    if layout is None:
        # Type and version, epoch and sequence number, connection id, length.
        layout = _layouts[cid_length] = struct.Struct(f">3s8s{cid_length}sH")
    return layout


def _around(form: CidForm, cid: bytes) -> tuple[bytes, bytes]:
    """What is authenticated of a record with a connection id: before epoch and sequence number, and after them.

    The length of what is inside (2 bytes) comes last in both forms. The type is 25 even where the record says 253.
    """
    if not cid:
        return b"", b""
    if form == "rfc9146":
        # RFC 9146, section 5.3: seq_num_placeholder, tls12_cid, cid_length, tls12_cid, version, epoch, sequence, cid.
        return b"\xff" * 8 + bytes((TLS12_CID, len(cid))) + _CID_OPENING, cid
    # device-protocol.md, section 3.5.
    return b"", _CID_OPENING + cid + bytes((len(cid),))


class Session:
    """Protects and unprotects records.

    Args:
        next_sequence: The first number to send with; after a restart one that was certainly not used.
        send_limit: Numbers below this may be used.
        top: The highest number received; everything up to it is refused. -1: none was received.

    Attributes:
        refused: Why the last record was not taken.
        moving: Records go out with outer type 253 until one is received (device-protocol.md, section 4.3).
    """

    __slots__ = (
        "_after", "_before", "_cid", "_iv", "_out_after", "_out_before", "_out_iv", "_reading", "_salted", "_unpack",
        "_window", "_writing", "moving", "next_sequence", "refused", "send_limit", "state", "top",
    )  # fmt: skip

    def __init__(
        self, state: SessionState, next_sequence: int = 0, send_limit: int = LAST_SEQUENCE, top: int = -1
    ) -> None:
        suite = SUITES[state.suite]
        self.state = state
        self.next_sequence = next_sequence
        self.send_limit = min(send_limit, LAST_SEQUENCE)
        self.top = top
        self.refused: Refusal | None = None
        self.moving = False
        self._reading: Aead = suite.aead(state.read_key)
        self._writing: Aead = suite.aead(state.write_key)
        # Whether the IV is only the first part of the nonce, and records carry the rest.
        self._salted = suite.explicit_nonce > 0
        self._iv = state.read_iv
        self._out_iv = state.write_iv
        # Bit n: number top-n was received. What was received before a restart is not known, so all of it was.
        self._window = _FULL_WINDOW
        self._cid = state.local_cid
        self._unpack = _layout(len(state.local_cid)).unpack_from
        self._before, self._after = _around(state.cid_form, state.local_cid)
        self._out_before, self._out_after = _around(state.cid_form, state.remote_cid)

    def unprotect(self, datagram: bytes) -> Received | None:
        """Reads the one record that a datagram holds; None, and `refused` says why, unless it is authentic and new."""
        cid = self._cid
        head = HEADER + len(cid)
        try:
            opening, counter, named, length = self._unpack(datagram)
        except struct.error:
            self.refused = Refusal.LENGTH
            return None
        if length != len(datagram) - head or length > MAX_PROTECTED or length < _OVERHEAD:
            self.refused = Refusal.LENGTH
            return None
        if cid:
            if opening != _CID_OPENING and (opening != _MOVED_OPENING or self.state.profile != "deviceos"):
                # RFC 9146, section 3: with a connection id negotiated, every protected record has one.
                self.refused = Refusal.TYPE
                return None
            if named != cid:
                self.refused = Refusal.CID
                return None
            aad = self._before + counter + self._after + (length - _OVERHEAD).to_bytes(2, "big")
        elif opening in _PLAIN_TYPES:
            aad = counter + opening + (length - _OVERHEAD).to_bytes(2, "big")
        else:
            self.refused = Refusal.TYPE
            return None
        sequence = int.from_bytes(counter, "big") - _EPOCH
        top = self.top
        if sequence > top:
            if sequence >= SEQUENCES:
                self.refused = Refusal.EPOCH
                return None
        elif sequence < 0:
            self.refused = Refusal.EPOCH
            return None
        elif top - sequence >= WINDOW:
            self.refused = Refusal.OLD
            return None
        elif self._window >> (top - sequence) & 1:
            self.refused = Refusal.REPLAYED
            return None
        try:
            if self._salted:
                head += EXPLICIT_NONCE
                data = self._reading.decrypt(self._iv + datagram[head - EXPLICIT_NONCE : head], datagram[head:], aad)
            else:
                data = self._reading.decrypt(_mixed(self._iv, counter), datagram[head:], aad)
        except InvalidTag:
            self.refused = Refusal.TAG
            return None
        # Only now: a forged number must not move the window (RFC 6347, section 4.1.2.6).
        if sequence > top:
            self._window = (self._window << (sequence - top) | 1) & _FULL_WINDOW if sequence - top < WINDOW else 1
            self.top = sequence
        else:
            self._window |= 1 << (top - sequence)
        self.moving = False
        if not cid:
            return Received(opening[0], data, sequence, False)
        data = data.rstrip(b"\0")
        if not data:
            self.refused = Refusal.EMPTY
            return None
        return Received(data[-1], data[:-1], sequence, opening == _MOVED_OPENING)

    def protect(self, content_type: int, data: bytes) -> bytes:
        """One record for the peer; raises `SequenceExhausted` when no number is left.

        Args:
            data: At most 16,384 bytes.
        """
        sequence = self.next_sequence
        if sequence >= self.send_limit:
            raise SequenceExhausted
        if len(data) > MAX_CONTENT:
            raise ValueError("a record holds 16,384 bytes at most")
        self.next_sequence = sequence + 1
        counter = (_EPOCH | sequence).to_bytes(8, "big")
        after = self._out_after
        if after:
            return self._protect_with_cid(content_type, data, counter, after)
        opening = _OPENINGS[content_type]
        size = len(data)
        aad = counter + opening + size.to_bytes(2, "big")
        head = opening + counter + (size + _OVERHEAD).to_bytes(2, "big")
        if self._salted:
            return head + counter + self._writing.encrypt(self._out_iv + counter, data, aad)
        return head + self._writing.encrypt(_mixed(self._out_iv, counter), data, aad)

    def _protect_with_cid(self, content_type: int, data: bytes, counter: bytes, after: bytes) -> bytes:
        inner = data + bytes((content_type,))
        state = self.state
        if state.cid_form == "draft":
            inner += bytes(-len(inner) % DRAFT_PADDING)
        size = len(inner)
        aad = self._out_before + counter + after + size.to_bytes(2, "big")
        opening = _MOVED_OPENING if self.moving else _CID_OPENING
        head = opening + counter + state.remote_cid + (size + _OVERHEAD).to_bytes(2, "big")
        if self._salted:
            return head + counter + self._writing.encrypt(self._out_iv + counter, inner, aad)
        return head + self._writing.encrypt(_mixed(self._out_iv, counter), inner, aad)


def _mixed(iv: bytes, counter: bytes) -> bytes:
    # RFC 7905, section 2: the record's number, xored into the IV.
    return (int.from_bytes(iv, "big") ^ int.from_bytes(counter, "big")).to_bytes(12, "big")
