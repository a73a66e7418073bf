"""Users and tokens."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

# The scope of a token that may do all that its user may.
ALL_SCOPES = "*"
# The right to let integrations act as the server does at Google: its key, or its machine's identity.
GOOGLE_IDENTITY = "google-identity"
# What only the operator grants, and nobody has unless it was.
PERMISSIONS = {GOOGLE_IDENTITY: "integrations without credentials act with the server's own identity at Google"}


class User(Struct, frozen=True, kw_only=True):
    """Someone who owns devices, events and integrations.

    Attributes:
        name: What they log in with; any text without blanks, compared without regard to case.
        password: The argon2 hash.
        permissions: What the operator granted, of `PERMISSIONS`.
    """

    id: str
    name: str
    password: str
    created_at: int
    account_info: dict[str, Any] = field(default_factory=dict)
    permissions: tuple[str, ...] = ()


class Token(Struct, frozen=True, kw_only=True):
    """The right of whoever holds a secret to act for a user. Only a digest of the secret is kept.

    Attributes:
        digest: SHA-256 of the secret.
        hint: The first 6 characters of the secret, to recognise it in a list.
        scopes: `object:verb` texts (cloud-api.md, section 2), or `*` for everything.
        expires_at: Milliseconds since 1970, or None for never.
    """

    digest: bytes
    user: str
    hint: str
    client: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None = None
