"""What a switchboard is: it finds whoever holds a device's link, and puts a question to the device through it.

The gateway in this process is one holder; with more processes, others are. Callers never know which.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from wirechamber.errors import CloudError, DeviceUnreachable

# Both sides of a value: what Device OS knows (device-protocol.md, section 7.2), as JSON shows it.
Value = int | float | bool | str


class CallFunction(Struct, frozen=True):
    """Call a function with one argument. Answered by its result, a signed 32-bit number."""

    name: str
    argument: str


class ReadVariable(Struct, frozen=True):
    """Read a variable, of the type that the device told (`int32`, `double`, `bool`, `string`)."""

    name: str
    type: str


class Ping(Struct, frozen=True):
    """Are you there? Answered by True."""


class Signal(Struct, frozen=True):
    """Show (or stop showing) a rainbow of colours, so that a person sees which device it is. Answered by True."""

    on: bool


class Describe(Struct, frozen=True):
    """Tell your metrics now. Answered by True once they are stored."""


class Described(Struct, frozen=True):
    """Has it told its functions and variables since it connected? Answered by True once it has, or will not."""


class Leave(Struct, frozen=True):
    """Its keys are not good any more: end its sessions. Answered by True."""


Question = CallFunction | ReadVariable | Ping | Signal | Describe | Described | Leave


class Offline(DeviceUnreachable):
    """No link to the device is open; there is nobody to ask."""


class NotThere(CloudError):
    """The device answered that it has no such function or variable."""

    status = 404
    code = "not_found"


class Holder(Protocol):
    """Whoever holds the link of a device."""

    async def ask(self, device: str, question: Question) -> Value:
        """Puts the question to the device.

        Raises:
            Offline: There is no link at present.
            DeviceUnreachable: It did not answer in time.
            NotThere: It has no such thing.
        """


class Switchboard(Protocol):
    """Reaches any device of this cloud."""

    async def ask(self, device: str, question: Question) -> Value:
        """As `Holder.ask`, wherever the device is held."""
