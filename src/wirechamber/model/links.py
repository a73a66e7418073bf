"""Device links: sessions, what devices told over them, and what changed.

A *session* is a pair of keys and their counters; a *link* is what a device told and where it was last. The device tells
most of it once and believes us that we know it from then on (device-protocol.md, section 11), so it outlives the
process.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Session(Struct, frozen=True, kw_only=True):
    """A DTLS session, complete: another process can go on with it.

    Attributes:
        id: 32 hex digits.
        device: None until the device has said who it is.
        cid: The connection id in the device's records; empty when it has none.
        deviceos: It speaks Device OS; otherwise plain CoAP.
        state: Keys and what was agreed, in the protocol's own form; encrypted at rest.
        address: Where the device was last.
        send_limit: Record sequence numbers below this may have been used. Whoever restores the session begins here,
            after reserving a block of its own.
        top: The highest record sequence number that was received; -1 for none.
        mids: CoAP message ids of stored events, in the gateway's form.
    """

    id: str
    cid: bytes
    deviceos: bool
    state: bytes
    created_at: int
    device: str | None = None
    address: str = ""
    send_limit: int = 0
    top: int = -1
    mids: bytes = b""


class KnownSession(Struct, frozen=True, gc=False):
    """What a process keeps in memory of a session that has not been heard since it started."""

    id: str
    cid: bytes
    device: str | None
    deviceos: bool
    address: str


class Checkpoint(Struct, frozen=True, gc=False):
    """A session's receive state and address as of now. What is stored never goes back."""

    session: str
    top: int
    mids: bytes
    address: str


class Reservation(Struct, frozen=True, gc=False):
    """Record sequence numbers below `send_limit` belong to whoever holds the session now."""

    session: str
    send_limit: int


class Subscription(Struct, frozen=True, gc=False):
    """Which events a device wants (device-protocol.md, section 7.4).

    Attributes:
        prefix: The event's name begins with it, case-sensitive.
        binary: It takes binary data.
        cbor: It takes structured data as CBOR.
        device: Only from this device.
        token: By which a device that speaks plain CoAP finds what its events belong to (RFC 7641).
    """

    prefix: str
    binary: bool = False
    cbor: bool = False
    device: str | None = None
    token: bytes = b""


class Greeting(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a device tells of itself in Hello (device-protocol.md, section 7.1).

    Attributes:
        product: Product id in its firmware; the platform's while it is in none.
        product_version: None when its firmware has none.
        flags: The protocol's bits: what it supports.
        system_version: Number of its Device OS module, or None before 3.0.
        max_message: The largest CoAP message that it takes, bytes.
    """

    platform: int
    product: int
    product_version: int | None = None
    flags: int = 0
    system_version: int | None = None
    max_message: int | None = None
    max_binary: int | None = None
    ota_chunk: int | None = None


class Greeted(Struct, frozen=True, kw_only=True):
    """A device said who it is. Subscriptions and descriptions of before are forgotten: they follow anew.

    Attributes:
        at: Milliseconds since 1970.
        greeting: None when the handshake said it (a pre-shared key).
        session: The new session, to be stored with this and to replace any other of the device; None when the
            device greeted inside a session that is stored already, or in one that ends with its connection.
        handshake: It comes right after a handshake.
    """

    device: str
    at: int
    address: str
    greeting: Greeting | None = None
    session: Session | None = None
    handshake: bool = False


class Described(Struct, frozen=True):
    """A device told its functions, and its variables with their types (`int32`, `double`, `bool`, `string`)."""

    device: str
    functions: tuple[str, ...]
    variables: dict[str, str]


class SystemDescribed(Struct, frozen=True):
    """A device told its modules and the like, as JSON shows them."""

    device: str
    at: int
    system: dict[str, Any]


# A measurement: a number, or `{"err": N}` where the device could not tell; None where it did not say why.
Vital = float | int | dict[str, int] | None


class MetricsTold(Struct, frozen=True):
    """A device told measurements of itself, by name."""

    device: str
    at: int
    metrics: dict[str, Vital]


class Subscribed(Struct, frozen=True):
    """A device wants events, beside what it wants already of this prefix and sender in another form."""

    device: str
    subscription: Subscription


class Unsubscribed(Struct, frozen=True):
    """A device does not want these events any more."""

    device: str
    prefix: str
    of: str | None = None


class KeepAlive(Struct, frozen=True, omit_defaults=True):
    """How a device said that it is kept in touch with (docs/device-link.md).

    Attributes:
        lifetime: Seconds of silence after which it is gone; None: as usual.
        queue: It listens for a moment after it has said something, and not otherwise.
        ping: Seconds of silence after which it is pinged; None: it pings by itself.
    """

    lifetime: int | None = None
    queue: bool = False
    ping: int | None = None


class KeepAliveTold(Struct, frozen=True):
    """A device told how it is kept in touch with, until it says otherwise or greets anew."""

    device: str
    keep_alive: KeepAlive


class CameOnline(Struct, frozen=True):
    """A device's owner was told that it is online."""

    device: str
    at: int
    address: str


class WentOffline(Struct, frozen=True):
    """A device's owner was told that it is offline.

    Attributes:
        resume_from: The log's cursor up to which the device has had its events; None leaves what is known.
    """

    device: str
    at: int
    resume_from: str | None = None


class HasHad(Struct, frozen=True):
    """A device has had its events up to a cursor of the log."""

    device: str
    resume_from: str


Change = (
    Greeted | Described | SystemDescribed | MetricsTold | Subscribed | Unsubscribed | KeepAliveTold | CameOnline
    | WentOffline | HasHad
)  # fmt: skip


class LinkRecord(Struct, frozen=True, kw_only=True):
    """What is known of a device's link.

    Attributes:
        address: Where it was last: a host, and maybe a port after a blank.
        resume_from: The log's cursor up to which it has had its events; None when that was never told.
        damaged: Some of what it told can't be read any more, and is left out.
    """

    device: str
    online: bool = False
    last_heard: int | None = None
    last_handshake_at: int | None = None
    address: str = ""
    resume_from: str | None = None
    greeting: Greeting | None = None
    functions: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    subscriptions: tuple[Subscription, ...] = ()
    keep_alive: KeepAlive | None = None
    damaged: bool = False


class Description(Struct, frozen=True, kw_only=True):
    """The long things that a device told of itself, and when; None for what it did not tell."""

    system: dict[str, Any] | None = None
    system_at: int | None = None
    metrics: dict[str, Vital] | None = None
    metrics_at: int | None = None


class Vitals(Struct, frozen=True):
    """What a device measured of itself at a time."""

    at: int
    metrics: dict[str, Vital]
