"""Shared access signatures (Azure, "Control access to IoT Hub using SAS tokens")."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from urllib.parse import quote_plus


def sign(resource: str, policy: str, key: bytes, expiry: int) -> str:
    """A token for a resource and everything below it.

    Args:
        resource: Host first, no scheme: `myhub.azure-devices.net/devices`.
        policy: Name of the shared access policy whose key signs.
        expiry: Seconds since 1970.
    """
    encoded = quote_plus(resource)
    digest = hmac.new(key, f"{encoded}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = quote_plus(base64.b64encode(digest))
    return f"SharedAccessSignature sr={encoded}&sig={signature}&se={expiry}&skn={quote_plus(policy)}"


def read_key(text: str) -> bytes:
    """The key in its text form, Base64.

    Raises:
        ValueError: It is none.
    """
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be a key as the portal shows it, in Base64") from None
    if len(key) < 16:
        raise ValueError("must be a key as the portal shows it, in Base64; this one is too short")
    return key
