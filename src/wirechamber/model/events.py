"""The event: one immutable, complete record of something that was published."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Origin = Literal["device", "api", "integration", "system"]

# What streams and hooks show as the publisher (cloud-api.md, section 4): not always a device id.
BY_API = "api"
BY_CLOUD = "particle-internal"
# Of a chunk of a longer answer: what stands in it is not the whole of anything.
PART_OF_TEXT = "text/plain; part"

# A root event has depth 0, the result of its hook 1, and so on. Beyond this, an event triggers nothing.
MAX_DEPTH = 4


class Event(Struct, frozen=True, gc=False):
    """Something that was published and accepted.

    Attributes:
        id: 32 hex digits; appending the same id again within the last minutes stores nothing.
        name: As published, 1 to 64 characters; results of integrations may be longer.
        data: Text, or a data URL for binary content; None when published without data.
        published_at: When the publisher says it happened, milliseconds since 1970.
        received_at: When it was accepted here, in steady time (see `clock`): what its age and `ttl` are counted from.
        owner: Id of the user who owned it at acceptance; streams and replays authorise against this, never against
            the present owner of the device.
        product: Product id of the device; the platform's id while it is in no product.
        coreid: What clients see as the publisher: a device id, `api`, or `particle-internal`.
        partition: Order is promised among events of one partition: the device, for results the device that caused them.
        device: The device that published it or, for results, that caused it.
        origin: Who made it. Events of origin `integration` never trigger integrations.
        cause: Id of the root event, for results.
        depth: 0 for a root event, one more for each result.
        about: Id of the integration that made it, or that it tells about; never triggers that one.
        content_type: MIME type of the data; `PART_OF_TEXT` for a part that says nothing by itself.
        ttl: Seconds for which a device that was away still wants it.
        late: A result that came after the device was told that there was none; streams show it, devices do not get it.
        session, record, message: Where the device link carried it, so that its receive state can be rebuilt.
    """

    id: str
    name: str
    data: str | None
    published_at: int
    received_at: int
    owner: str
    coreid: str
    partition: str
    origin: Origin
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
