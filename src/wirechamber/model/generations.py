"""What the generations of Device OS take: how long a message may be, and what is understood in it.

A device tells its generation by its Hello: by its version since 3.0, before that by the flags that it sets. The sizes
are those of its buffers, read in its sources (`communication/`, tag by tag); docs/firmware.md tells them to people.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from wirechamber.model.links import Greeting

# The flag of Hello by which firmware since 0.8 says that it can tell its vitals.
DIAGNOSTICS = 0x02
# Platforms of the Spark Core, whose buffers were the smallest.
CORE = frozenset((0, 1))
CORE_MESSAGE = 640
# Content formats of events, and subscriptions that ask for them (device-protocol.md, section 8).
TYPES_SINCE = 6200
# Publishing is bounded by bytes that are not acknowledged, and no more by events a second.
IN_FLIGHT_SINCE = 6300
# RFC 7252, section 4.6, and what Device OS has had since 3.0 on all but a few platforms.
USUAL_MESSAGE = 1152
# A Hello that tells less, tells nothing: not even the name of an event would fit.
LEAST_MESSAGE = 128

# What firmware needs behind a message to answer it (`Message::splinter`): without room for an acknowledgement it gives
# none, or drops the connection; without room for what it answers a call with, it crashes.
ROOM_FOR_ACK = 5
ROOM_FOR_ANSWER = 16
# Over TCP a message stands in its buffer behind two bytes of length, is filled up to whole blocks by 1 to 16 bytes, and
# has room for as many behind it (device-protocol.md, section 5.2).
_PREFIX, _BLOCK = 2, 16


class Generation(Struct, frozen=True):
    """Firmware that takes the same.

    Attributes:
        name: The versions, for people.
        max_message: The longest CoAP message, bytes, where the Hello does not say.
        over_udp: The same over UDP.
        max_argument: The longest argument of a function, bytes.
        types: It knows content formats of events; without, everything is text.
        in_flight: Bytes of events that it sends before the first is acknowledged; None: it goes by events a second.
    """

    name: str
    max_message: int
    over_udp: int
    max_argument: int
    types: bool = False
    in_flight: int | None = None


# Its argument has a place of 64 bytes, of which one is for the end; what does not fit arrives empty.
UPTO_0_7 = Generation("0.6 and 0.7", 800, 768, 63)
UPTO_2 = Generation("0.8 to 2.x", 800, 800, 622)
UPTO_3 = Generation("3.x", 960, 960, 864)
UPTO_5 = Generation("4.x and 5.x", USUAL_MESSAGE, USUAL_MESSAGE, 1024)
UPTO_6_1 = Generation("6.0 and 6.1", USUAL_MESSAGE, USUAL_MESSAGE, 1024)
UPTO_6_2 = Generation("6.2", USUAL_MESSAGE, USUAL_MESSAGE, 1024, types=True)
NEWEST = Generation("6.3 and later", USUAL_MESSAGE, USUAL_MESSAGE, 1024, types=True, in_flight=32 * 1024)
# What says no Hello: CoAP by the RFCs.
PLAIN = Generation("CoAP", USUAL_MESSAGE, USUAL_MESSAGE, 1024, types=True)

GENERATIONS = (UPTO_0_7, UPTO_2, UPTO_3, UPTO_5, UPTO_6_1, UPTO_6_2, NEWEST)


class Takes(Struct, frozen=True, gc=False):
    """What one device takes.

    Attributes:
        told: The longest CoAP message, bytes, as its Hello says; None: it does not say.
        core: It is a Spark Core.
    """

    generation: Generation = PLAIN
    told: int | None = None
    core: bool = False

    @property
    def types(self) -> bool:
        """Whether it knows content formats of events."""
        return self.generation.types

    @property
    def max_argument(self) -> int:
        """The longest argument of a function, bytes."""
        if self.core:
            return UPTO_0_7.max_argument
        if self.generation is UPTO_3 and self.max_message(reliable=True) >= USUAL_MESSAGE:
            # 3.x has the larger sizes where it has the larger buffer: on Argon, Boron and their like.
            return UPTO_5.max_argument
        return self.generation.max_argument

    def max_message(self, *, reliable: bool) -> int:
        """The size of its buffer, bytes.

        Args:
            reliable: Messages go over TCP.
        """
        if self.told is not None and self.told >= LEAST_MESSAGE:
            return self.told
        usual = self.generation.max_message if reliable else self.generation.over_udp
        return min(usual, CORE_MESSAGE) if self.core else usual

    def room(self, *, reliable: bool, answer: int) -> int:
        """The longest CoAP message that it can take, bytes.

        Args:
            reliable: It goes over TCP.
            answer: Bytes that it must have room for behind the message, to answer it (`ROOM_FOR_ACK`,
                `ROOM_FOR_ANSWER`).
        """
        buffer = self.max_message(reliable=reliable)
        if self.generation is PLAIN:
            return buffer
        if not reliable:
            return buffer - answer
        around = _PREFIX + _BLOCK
        whole = (buffer - around) // _BLOCK * _BLOCK - 1
        # Events are not acknowledged there, and what is has room for a frame of its own.
        return whole if answer <= ROOM_FOR_ACK else min(whole, buffer - 2 * around - answer)


@lru_cache(maxsize=1024)
def takes(greeting: Greeting | None) -> Takes:
    """What a device takes that greeted so; None: that needs no Hello."""
    if greeting is None:
        return Takes()
    return Takes(_generation(greeting), greeting.max_message, greeting.platform in CORE)


def _generation(greeting: Greeting) -> Generation:
    version = greeting.system_version
    if version is None:
        return UPTO_2 if greeting.flags & DIAGNOSTICS else UPTO_0_7
    for generation, below in ((UPTO_2, 3000), (UPTO_3, 4000), (UPTO_5, 6000), (UPTO_6_1, TYPES_SINCE)):
        if version < below:
            return generation
    return NEWEST if version >= IN_FLIGHT_SINCE else UPTO_6_2
