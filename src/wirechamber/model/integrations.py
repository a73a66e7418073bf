"""The stored record of an integration, whatever its kind."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class IntegrationRecord(Struct, frozen=True, kw_only=True):
    """One configured integration of one owner.

    Attributes:
        kind: `Webhook`, `GoogleCloudPubSub`, …: the API's `integration_type`.
        event: Prefix of the names that trigger it, case-sensitive, at least one character.
        device: Only events of this device trigger it; None for any.
        settings: Everything else as the user gave it, in canonical spelling, unknown keys included. Where a secret
            stands, it holds the mask.
        secrets: The values behind the masks, by dotted path (`auth.password`); encrypted at rest by the store.
        since: Cursor at which it was created or enabled; it sees only later events. None: from the beginning.
        paused: Why the courier paused it (it is misconfigured), or None.
        revision: The store's revision of its last change; higher is later.
    """

    id: str
    owner: str
    kind: str
    event: str
    created_at: int
    updated_at: int
    device: str | None = None
    name: str | None = None
    disabled: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    since: str | None = None
    paused: str | None = None
    revision: int = 0

    @property
    def active(self) -> bool:
        """Whether events may trigger it at present."""
        return not self.disabled and self.paused is None
