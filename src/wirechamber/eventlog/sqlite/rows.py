"""An event as a row: columns for what is searched, and the rest as JSON without what goes without saying."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from wirechamber.model.events import Event, Origin

# What a row takes beside its texts: ids, indexes, and the room that pages leave free.
ROW_BYTES = 300


class _Rest(Struct, omit_defaults=True, gc=False):
    """What `record` says. Version 1 of the file kept every field there, and it is read as well.

    Attributes:
        received_at: None: as the column says, which counts an event's age.
        published_at: None: as it was received.
        coreid: None: the device.
        partition: None: the device's, or the owner's where there is none.
    """

    name: str
    data: str | None
    owner: str
    origin: Origin
    received_at: int | None = None
    published_at: int | None = None
    partition: str | None = None
    coreid: str | None = None
    product: int | None = None
    device: str | None = None
    cause: str | None = None
    depth: int = 0
    about: str | None = None
    content_type: str = "text/plain"
    ttl: int = 60
    late: bool = False
    session: str | None = None
    record: int | None = None
    message: int | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Rest).decode


def record_of(event: Event, age_from: int) -> str:
    """What a row's `record` says of an event whose column `received_at` is `age_from`."""
    partition = event.partition
    return _encode(
        _Rest(
            event.name, event.data, event.owner, event.origin,
            None if event.received_at == age_from else event.received_at,
            None if event.published_at == event.received_at else event.published_at,
            None if partition == (event.owner if event.device is None else event.device) else partition,
            None if event.coreid == event.device else event.coreid,
            event.product, event.device, event.cause, event.depth, event.about, event.content_type, event.ttl,
            event.late, event.session, event.record, event.message,
        )
    ).decode()  # fmt: skip


def event_of(event_id: str, age_from: int, record: str) -> Event:
    """The event of a row."""
    rest = _decode(record)
    coreid = rest.device if rest.coreid is None else rest.coreid
    assert coreid is not None
    partition = rest.partition
    if partition is None:
        partition = rest.owner if rest.device is None else rest.device
    received_at = age_from if rest.received_at is None else rest.received_at
    published_at = received_at if rest.published_at is None else rest.published_at
    return Event(
        event_id, rest.name, rest.data, published_at, received_at, rest.owner, coreid, partition, rest.origin,
        rest.product, rest.device, rest.cause, rest.depth, rest.about, rest.content_type, rest.ttl, rest.late,
        rest.session, rest.record, rest.message,
    )  # fmt: skip
