"""How a device is kept in touch with: it says so by a request of this cloud's own, `PUT /K` (docs/device-link.md).

The words are those of LwM2M 1.1 (OMA-TS-LightweightM2M_Core, registration): `lt` is the lifetime in seconds,
`Q` queue mode, where whatever waits for a device is sent right after its next word. `ping` is ours: after so many
seconds of silence the cloud pings the device, which so learns whether the way back through its NAT was still open.
"""

from __future__ import annotations

from msgspec import Struct

from wirechamber.protocols.coap.message import Code, Message, Option, Type

KEEP_ALIVE = b"K"
# LwM2M's default lifetime is a day; a month is as long as anybody should wait to be told that a device is gone.
MAX_LIFETIME_S = 31 * 86_400
# A NAT that forgets sooner is none that a cloud could keep open for many (RFC 4787, REQ-5: at least 2 minutes).
MIN_PING_S = 20
_DIGITS = 8


class KeepAlive(Struct, frozen=True):
    """What a device says.

    Attributes:
        lifetime: Seconds of silence after which it is gone; None: as usual.
        queue: It listens for a moment after it has said something, and not otherwise.
        ping: Seconds of silence after which the cloud is to ping it; None: it does that itself.
    """

    lifetime: int | None = None
    queue: bool = False
    ping: int | None = None


def read_keep_alive(message: Message) -> KeepAlive | None:
    """Reads the query of such a request; None when it makes no sense. Words that are not known mean nothing."""
    lifetime: int | None = None
    ping: int | None = None
    queue = False
    for word in message.all(Option.URI_QUERY):
        name, _, value = word.partition(b"=")
        if name == b"Q":
            queue = True
        elif name in (b"lt", b"ping"):
            if not value.isdigit() or len(value) > _DIGITS:
                return None
            if name == b"lt":
                lifetime = int(value)
            else:
                ping = int(value)
    if lifetime is not None and not 0 < lifetime <= MAX_LIFETIME_S:
        return None
    if ping is not None and (queue or not MIN_PING_S <= ping <= MAX_LIFETIME_S):
        return None
    return KeepAlive(lifetime, queue, ping)


def write_keep_alive(told: KeepAlive, id: int) -> Message:
    """Such a request. Answered by 2.04; by 4.04 of a cloud that does not know it."""
    words = [b"Q"] if told.queue else []
    if told.lifetime is not None:
        words.append(b"lt=%d" % told.lifetime)
    if told.ping is not None:
        words.append(b"ping=%d" % told.ping)
    options = ((Option.URI_PATH.value, KEEP_ALIVE), *((Option.URI_QUERY.value, word) for word in words))
    return Message(Type.CON, Code.PUT.value, id, b"", options)
