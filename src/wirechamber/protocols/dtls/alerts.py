"""Alerts: what one side tells the other before it gives up (RFC 5246, section 7.2)."""

from __future__ import annotations

from enum import IntEnum


class AlertLevel(IntEnum):
    """How grave an alert is."""

    WARNING = 1
    FATAL = 2


class Alert(IntEnum):
    """What an alert says."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100
    UNSUPPORTED_EXTENSION = 110
    UNKNOWN_PSK_IDENTITY = 115


class Fatal(Exception):
    """The handshake can't go on.

    Args:
        alert: What the peer is told.
        why: What our log is told.
    """

    def __init__(self, alert: Alert, why: str) -> None:
        super().__init__(why)
        self.alert = alert
        self.why = why


def read_alert(data: bytes) -> tuple[int, int] | None:
    """Level and description; None when it is no alert. Either may be a number that nobody has defined."""
    return (data[0], data[1]) if len(data) == 2 else None


def write_alert(level: AlertLevel, alert: Alert) -> bytes:
    """The two bytes of an alert."""
    return bytes((level, alert))
