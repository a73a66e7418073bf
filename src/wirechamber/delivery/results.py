"""The events that tell about a delivery: hook-sent, hook-response, hook-error (integrations.md, section 8).

Their ids derive from the delivery, so appending them again after a crash stores nothing twice. A hook-error derives
from the delivery alone: whoever comes first, the final failure or the passed deadline, it is told once.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs

from wirechamber.integrations.base import Answer, Topics
from wirechamber.model.events import BY_CLOUD, PART_OF_TEXT, Event
from wirechamber.model.ids import derived_id
from wirechamber.model.names import result_name

CHUNK_BYTES = 512
# An answer of 100,000 bytes that are no UTF-8 is 300,000 bytes of replacement characters, 510 in a chunk.
MAX_CHUNKS = 600
RESULT_TTL = 60


def of_success(
    event: Event, integration: str, delivery: str, topics: Topics, answer: Answer | None, now: int, *, late: bool
) -> list[Event]:
    """hook-sent, and the answer in chunks if there is one.

    Args:
        late: The device was told already that there is no answer; it does not get this one.
    """
    made = [_result(event, integration, delivery, topics.sent, "", now, "sent", late)]
    if answer is None:
        return made
    if not answer.chunked:
        made.append(_result(event, integration, delivery, topics.response, answer.data, now, "response", late))
        return made
    for index, chunk in enumerate(chunks(answer.data)):
        name = f"{topics.response}/{index}"
        part = _result(event, integration, delivery, name, chunk, now, f"response/{index}", late)
        made.append(part if chunk == answer.data else structs.replace(part, content_type=PART_OF_TEXT))
    return made


def of_failure(event: Event, integration: str, delivery: str, topics: Topics, why: str, now: int) -> Event:
    """The one hook-error of a delivery."""
    return _result(event, integration, delivery, f"{topics.error}/0", why, now, "error")


def chunks(text: str) -> Iterator[str]:
    """Pieces of at most 512 bytes in UTF-8; exactly 512 but for the last one and where a character would be cut.

    Streams carry text, so a character is never split; devices that count on 512 get it for ASCII.
    """
    if len(text) <= CHUNK_BYTES and text.isascii():
        yield text
        return
    data = text.encode("utf-8", "replace")
    start = 0
    for _ in range(MAX_CHUNKS):
        if start >= len(data):
            return
        end = min(start + CHUNK_BYTES, len(data))
        # A byte 10xxxxxx continues a character (RFC 3629, section 3).
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[start:end].decode()
        start = end


def _result(
    event: Event, integration: str, delivery: str, name: str, data: str, now: int, part: str, late: bool = False
) -> Event:
    return Event(
        id=derived_id(delivery, part),
        name=result_name(name),
        data=data,
        published_at=now,
        received_at=now,
        owner=event.owner,
        coreid=BY_CLOUD,
        partition=event.partition,
        origin="integration",
        product=event.product,
        device=event.device,
        cause=event.cause or event.id,
        depth=event.depth + 1,
        about=integration,
        ttl=RESULT_TTL,
        late=late,
    )
