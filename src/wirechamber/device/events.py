"""Everything that the core of a device reports."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from wirechamber.device.errors import DeviceError
from wirechamber.device.session_file import Wanted


class Connected(Struct, frozen=True):
    """The cloud has answered.

    Attributes:
        resumed: By the session that there was; otherwise a handshake was made.
    """

    resumed: bool


class Disconnected(Struct, frozen=True):
    """There is no connection; `Core.connect` is to be called after `wait` seconds, over a new socket.

    Attributes:
        refused: The cloud, or this device, ended it on purpose: trying again may not help.
    """

    why: str
    wait: float
    refused: bool = False


class Published(Struct, frozen=True):
    """What became of an event that was to be confirmed. `problem` is None when the cloud has stored it."""

    tag: Any
    problem: DeviceError | None


class Subscribed(Struct, frozen=True):
    """What became of a subscription."""

    wanted: Wanted
    problem: DeviceError | None


class TimeTold(Struct, frozen=True):
    """The cloud's time, seconds since 1970; None when it did not tell it."""

    seconds: int | None


class EventCame(Struct, frozen=True):
    """An event that the device subscribed to."""

    name: str
    payload: bytes
    content_format: int | None


class FunctionCalled(Struct, frozen=True):
    """A function is to be called; its result goes to `Core.answer_function` with the token."""

    name: str
    argument: str
    token: bytes


class VariableWanted(Struct, frozen=True):
    """A variable is wanted; its value goes to `Core.answer_variable` with the token."""

    name: str
    token: bytes


class Signalled(Struct, frozen=True):
    """Somebody wants to see which device this is (the rainbow of a Particle device), or no more."""

    on: bool


class Left(Struct, frozen=True):
    """The cloud has our goodbye, or does not answer any more."""


Event = (
    Connected | Disconnected | Published | Subscribed | TimeTold | EventCame | FunctionCalled | VariableWanted
    | Signalled | Left
)  # fmt: skip
