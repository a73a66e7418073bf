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

# Installed on many machines, or running on a server (RFC 6749, section 2.1).
CLIENT_TYPES = ("installed", "web")


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
        family: What came of the same login, by refreshing; None where there is nothing to refresh it with.
    """

    digest: bytes
    user: str
    hint: str
    client: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None = None
    family: str | None = None


class RefreshToken(Struct, frozen=True, kw_only=True):
    """The right to a new access token, once; it comes with the next refresh token (RFC 9700, section 4.14.2).

    Attributes:
        digest: SHA-256 of the secret.
        family: What came of the same login.
        scopes: Of the access tokens that it brings.
        life: Milliseconds that each of them lives; 0 for ever.
        used_at: When it was used. Who shows it again has copied it.
    """

    digest: bytes
    family: str
    user: str
    client: str
    scopes: tuple[str, ...]
    life: int
    created_at: int
    expires_at: int
    used_at: int | None = None


class OAuthClient(Struct, frozen=True, kw_only=True):
    """A program that a user registered: with its secret it logs in as that user, and others log in through it.

    Attributes:
        type: One of `CLIENT_TYPES`.
        scopes: What its access tokens may do at most.
        secret: SHA-256 of its secret.
    """

    id: str
    owner: str
    name: str
    type: str
    scopes: tuple[str, ...]
    secret: bytes
    created_at: int
    redirect_uri: str | None = None
