"""A device in Python: the same protocol cores as the gateway, in the client role."""

from wirechamber.device.client import Device
from wirechamber.device.errors import (
    BadFile,
    DeviceError,
    NotAcknowledged,
    NotAllowed,
    NotConnected,
    Refused,
    SessionInUse,
)
from wirechamber.device.wire import Traffic

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
