"""Events as push notifications by ntfy (https://docs.ntfy.sh/publish/)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Struct

from wirechamber.integrations.answers import host_and_port, outcome_by_status
from wirechamber.integrations.base import (
    Answer,
    Context,
    Delivered,
    InvalidConfig,
    Misconfigured,
    Outcome,
    Request,
    Response,
    SingleRequest,
)
from wirechamber.integrations.declaration import Declaration, Secret, setting
from wirechamber.model.events import Event


class NtfyConfig(Struct, frozen=True, kw_only=True):
    """What a user sets. API, command line, docs and masking all read this."""

    topic: Annotated[
        str,
        setting(
            "Topic that phones subscribe to; on the public server, who knows its name can read it.",
            example="my-alarms",
            pattern="[A-Za-z0-9_-]{1,64}",
            allowed="1 to 64 letters, digits, hyphens and underscores",
        ),
    ]
    server: Annotated[str, setting("The ntfy server.")] = "https://ntfy.sh"
    priority: Annotated[Literal["min", "low", "default", "high", "urgent"], setting("How loud it is.")] = "default"
    token: Annotated[Secret | None, setting("Access token, where the topic needs one.")] = None

    def __post_init__(self) -> None:
        if not self.server.startswith(("https://", "http://")):
            raise InvalidConfig("server", "must begin with https:// or http://")


class Ntfy(SingleRequest[NtfyConfig, NtfyConfig]):
    """Send each event as a push notification by ntfy."""

    kind = "Ntfy"
    declaration = Declaration(NtfyConfig)
    sample = "a test notification"

    def prepare(self, config: NtfyConfig) -> NtfyConfig:
        """Nothing to do beforehand."""
        return config

    def target(self, event: Event, prepared: NtfyConfig, context: Context) -> str:
        """The server."""
        return host_and_port(prepared.server)[1]

    def describe_target(self, config: NtfyConfig) -> str:
        """The topic."""
        return f"ntfy topic {config.topic}"

    def request(self, event: Event, prepared: NtfyConfig, context: Context) -> Request:
        """One POST: the data is the message, the event's name the title."""
        headers = [("Title", event.name), ("Priority", prepared.priority), ("User-Agent", context.user_agent)]
        secrets: tuple[str, ...] = ()
        if prepared.token is not None:
            headers.append(("Authorization", f"Bearer {prepared.token}"))
            secrets = (prepared.token,)
        url = f"{prepared.server.rstrip('/')}/{prepared.topic}"
        hidden = ("headers.Authorization",)
        body = (event.data or event.name).encode()
        return Request("POST", url, tuple(headers), body, secrets=secrets, hidden=hidden)

    def outcome(self, event: Event, response: Response, prepared: NtfyConfig, context: Context) -> Outcome:
        """A message id on success; a wrong token is a matter of the configuration."""
        host = host_and_port(prepared.server)[0]
        if response.status in (401, 403):
            return Misconfigured(f"error status {response.status} from {host}: the token may not publish to the topic")
        failed = outcome_by_status(response, host, context.now)
        if failed is not None:
            return failed
        try:
            return Delivered(Answer(str(msgspec.json.decode(response.body)["id"])))
        except (msgspec.DecodeError, LookupError, TypeError):
            return Delivered()
