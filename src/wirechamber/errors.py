"""What can go wrong, and whose fault it is.

CloudError
├── BadInput                     400  the caller sent something we cannot take
├── InvalidToken                 401  the caller must log in again
├── Forbidden, NotFound, Conflict  403, 404, 409
├── DeviceUnreachable            408  the device did not answer; the caller may retry
├── TooLarge                     413
├── TooMany                      429  a limit that a setting governs
└── Unavailable                  503  storage is away or the disk is nearly full; the caller should retry

Every one knows the status and the body that the API answers (reference: cloud-api.md, section 1). A body always
holds `error` and `error_description` as text, because pyparticleio indexes both (clients.md, section 3).
"""

from __future__ import annotations

from typing import Any, ClassVar


class CloudError(Exception):
    """Something that a caller of the cloud must be told.

    Args:
        description: What a person will read; says what to do where that is known.
        error: The short text or code in the body's `error`; the class's own if not given.
        extra: Further keys of the answer's body, such as `info` or `errors`.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "server_error"

    def __init__(self, description: str, *, error: str | None = None, **extra: Any) -> None:
        super().__init__(description)
        self.description = description
        self.error = error or self.code
        self.extra = extra

    def body(self) -> dict[str, Any]:
        """The JSON object that tells a client about this error."""
        return {"ok": False, "error": self.error, "error_description": self.description, **self.extra}


class BadInput(CloudError):
    """The request cannot be taken as it is; sending it again will not help."""

    status = 400
    code = "invalid_request"


class InvalidToken(CloudError):
    """The token is unknown, revoked or expired."""

    status = 401
    code = "invalid_token"


class Forbidden(CloudError):
    """The caller is known and may not do this."""

    status = 403
    code = "unauthorized"


class NotFound(CloudError):
    """There is no such thing, or it belongs to someone else: the two are never told apart."""

    status = 404
    code = "not_found"


class Conflict(CloudError):
    """The thing exists already, or has changed meanwhile."""

    status = 409
    code = "conflict"


class DeviceUnreachable(CloudError):
    """The device is not connected or did not answer in time."""

    status = 408
    code = "timed out"


class TooLarge(CloudError):
    """A body or a field is over its bound."""

    status = 413
    code = "too_large"


class TooMany(CloudError):
    """More than a limit allows, now; trying later may help."""

    status = 429
    code = "rate_limited"


class Unavailable(CloudError):
    """We cannot do our part at the moment, and nothing was stored."""

    status = 503
    code = "unavailable"
