"""DTLS 1.2 (RFC 6347) without sockets: raw public keys, pre-shared keys, connection IDs.

A server's `Listener` answers strangers and makes a `ServerHandshake` of whoever brings the cookie back; a client begins
with a `ClientHandshake`. Both take datagrams and the time, give datagrams, events and the next deadline, and end with a
`Session`, which protects and unprotects records from then on.
"""

from wirechamber.protocols.dtls.alerts import Alert, AlertLevel
from wirechamber.protocols.dtls.client import ClientHandshake, PreSharedKey, PublicKeys
from wirechamber.protocols.dtls.events import Arrived, Established, Event, Failed, NeedsPsk, OtherPsk, Over
from wirechamber.protocols.dtls.records import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    CID_LENGTH,
    HANDSHAKE,
    MOVED,
    MOVED_BY_NAME,
    TLS12_CID,
    Named,
    read_named,
    split_records,
    write_named,
)
from wirechamber.protocols.dtls.server import Answer, Listener, ServerHandshake
from wirechamber.protocols.dtls.session import Received, Refusal, SequenceExhausted, Session, SessionState

__all__ = [
    "ALERT",
    "APPLICATION_DATA",
    "CHANGE_CIPHER_SPEC",
    "CID_LENGTH",
    "HANDSHAKE",
    "MOVED",
    "MOVED_BY_NAME",
    "TLS12_CID",
    "Alert",
    "AlertLevel",
    "Answer",
    "Arrived",
    "ClientHandshake",
    "Established",
    "Event",
    "Failed",
    "Listener",
    "Named",
    "NeedsPsk",
    "OtherPsk",
    "Over",
    "PreSharedKey",
    "PublicKeys",
    "Received",
    "Refusal",
    "SequenceExhausted",
    "ServerHandshake",
    "Session",
    "SessionState",
    "read_named",
    "split_records",
    "write_named",
]
