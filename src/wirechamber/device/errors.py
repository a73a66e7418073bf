"""What can go wrong for a device.

DeviceError
├── BadFile            a key or session file that can't be used
├── SessionInUse       another process goes on with the same session
├── NotConnected       the cloud was not reached in time; nothing was sent
├── NotAllowed         the cloud refuses this device or its key, or has another key itself
├── NotAcknowledged    it was sent, and nothing came back: the cloud may have it, or not
└── Refused            the cloud has it and says no; `code` and `seconds` say why and for how long
"""

from __future__ import annotations

from wirechamber.protocols.coap.message import Code, code_text


class DeviceError(Exception):
    """Something that whoever runs the device must be told."""


class BadFile(DeviceError):
    """A file that can't be used, and why."""


class SessionInUse(DeviceError):
    """Two processes with one session would use the same nonces; the second one is refused."""


class NotConnected(DeviceError):
    """There is no connection, and there was none in time."""


class NotAllowed(DeviceError):
    """The two sides do not know each other: trying again will not help until somebody registers a key."""


class NotAcknowledged(DeviceError):
    """Nothing came back. The cloud may have it or not; sending it again may store it twice."""


_MEANINGS = {
    Code.TOO_MANY_REQUESTS: "the device publishes faster than it may",
    Code.SERVICE_UNAVAILABLE: "the cloud can't store it at present",
    Code.REQUEST_ENTITY_TOO_LARGE: "it is too large",
    Code.BAD_REQUEST: "the cloud can't make anything of it",
    Code.FORBIDDEN: "it is not allowed",
    Code.NOT_FOUND: "there is no such thing",
}


class Refused(DeviceError):
    """The cloud says no.

    Attributes:
        code: CoAP's response code as people write it: `4.29` is the rate limit (RFC 8516), `5.03` a full disk.
        reason: The code and what it means.
        seconds: After how many seconds it may be tried again, where the cloud said so.
    """

    def __init__(self, number: int, seconds: int | None = None) -> None:
        self.code = code_text(number)
        self.seconds = seconds
        meaning = _MEANINGS.get(Code(number), "") if number in Code._value2member_map_ else ""
        wait = "" if seconds is None else f"; it may try again in {seconds} s"
        self.reason = f"{self.code}{f': {meaning}' if meaning else ''}"
        super().__init__(f"refused with {self.reason}{wait}")
