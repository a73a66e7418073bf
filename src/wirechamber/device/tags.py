"""What a device's messages were sent for: with these, answers come back to whoever waits for them."""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Struct

from wirechamber.device.session_file import Wanted
from wirechamber.protocols.coap.blockwise import Sending
from wirechamber.protocols.coap.message import Message
from wirechamber.protocols.deviceos.keepalive import KeepAlive


class Purpose(Enum):
    """Where nothing more must be known of a message."""

    HELLO = "hello"
    PING = "ping"
    SYSTEM = "system"
    TIME = "time"
    GOODBYE = "goodbye"
    ANSWER = "answer"


class Publishing(Struct, frozen=True):
    """An event; what it was published with comes back."""

    tag: Any


class Subscribing(Struct, frozen=True):
    """A subscription."""

    wanted: Wanted


class Describing(Struct, frozen=True):
    """A description of functions and variables, and what follows this part of it."""

    checksum: int
    rest: Sending | None


class KeepingAlive(Struct, frozen=True):
    """How the device is kept in touch with."""

    told: KeepAlive


class Out(Struct, frozen=True):
    """A message to be sent; its id, and its token if it has one, are given to it then.

    Attributes:
        token: It has one.
        within: Seconds within which an answer must come; None: none is expected beside the acknowledgement.
        keep: More answers may follow the first.
    """

    message: Message
    tag: Any
    token: bool = False
    within: float | None = None
    keep: bool = False
