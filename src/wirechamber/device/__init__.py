"""A device in Python: the same protocol cores as the gateway, in the client role."""

from wirechamber.device.client import Device, Traffic
from wirechamber.device.errors import (
    BadFile,
    DeviceError,
    NotAcknowledged,
    NotAllowed,
    NotConnected,
    Refused,
    SessionInUse,
)

__all__ = [
    "BadFile",
    "Device",
    "DeviceError",
    "NotAcknowledged",
    "NotAllowed",
    "NotConnected",
    "Refused",
    "SessionInUse",
    "Traffic",
]
