"""What proves that a device is the one it says."""

from __future__ import annotations

from msgspec import Struct


class DeviceKeys(Struct, frozen=True, kw_only=True):
    """The keys of one device: either may be missing.

    Attributes:
        public_key: DER SubjectPublicKeyInfo, P-256 or RSA.
        psk: A pre-shared key; encrypted at rest.
        bound_by: Id of the user who bound the public key; None for the operator, and for the device itself.
        refused: A public key that another owner had bound: nobody but the owner or the operator can bind it again.
        changed_at: Milliseconds since 1970.
    """

    device: str
    changed_at: int
    public_key: bytes | None = None
    psk: bytes | None = None
    bound_by: str | None = None
    refused: bytes | None = None


class ClaimCode(Struct, frozen=True, kw_only=True):
    """The right of whichever device presents a code first to become a user's. Only a digest of the code is kept.

    Attributes:
        digest: SHA-256 of the code.
        device: The device that used it.
    """

    digest: bytes
    owner: str
    created_at: int
    expires_at: int
    device: str | None = None
