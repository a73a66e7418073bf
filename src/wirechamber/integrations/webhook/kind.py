"""The kind itself: what the courier and the API ask of a webhook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec import structs

from wirechamber.integrations.answers import outcome_by_status
from wirechamber.integrations.base import (
    About,
    Context,
    Delivered,
    DeviceInfo,
    Misconfigured,
    Outcome,
    Plan,
    Reading,
    Refused,
    Request,
    Response,
    SingleRequest,
    Topics,
    TryLater,
)
from wirechamber.integrations.declaration import Declaration
from wirechamber.integrations.fields import origin
from wirechamber.integrations.templates import OutputTooLarge, Room, Template
from wirechamber.integrations.webhook import config as configuration
from wirechamber.integrations.webhook.answer import delivered
from wirechamber.integrations.webhook.config import WebhookConfig
from wirechamber.integrations.webhook.prepared import Prepared
from wirechamber.integrations.webhook.request import Unsendable, build, no_json_in_body, request_scene, url_of
from wirechamber.model.events import Event

# Of a topic that a template prints; names of events are far shorter.
MAX_NAME_CHARACTERS = 10_000
MAX_NAME_STEPS = 5_000


class Webhook(SingleRequest[WebhookConfig, Prepared]):
    """Send each event to a URL."""

    kind = "Webhook"
    declaration = Declaration(WebhookConfig)

    def read(self, settings: Mapping[str, Any], secrets: Mapping[str, str]) -> Reading[WebhookConfig]:
        """Validates what the user sent."""
        return configuration.read(settings, secrets)

    def destination(self, config: WebhookConfig) -> object:
        """Scheme, host and port of the URL."""
        return origin(config.url)

    def urls(self, config: WebhookConfig) -> Sequence[tuple[str, str]]:
        """The URL: other fields may hold one that is not asked."""
        return [("url", config.url)]

    def prepare(self, config: WebhookConfig) -> Prepared:
        """Compiles every template."""
        return Prepared(config)

    def target(self, event: Event, prepared: Prepared, context: Context) -> str:
        """The URL's host and port."""
        if prepared.constant_url is not None:
            return prepared.constant_url[1]
        try:
            return url_of(prepared, request_scene(event, prepared, context))[1]
        except (Unsendable, OutputTooLarge):
            # The plan meets the same and says so.
            return ""

    def topics(self, event: Event, prepared: Prepared, context: Context) -> Topics:
        """The sandbox's default names, or those that the configuration gives."""
        name = event.name
        return Topics(
            f"hook-sent/{name}",
            _topic(prepared.response_topic, f"hook-response/{name}", event, prepared, context),
            _topic(prepared.error_topic, f"hook-error/{name}", event, prepared, context),
        )

    def deliver(self, events: Sequence[Event], prepared: Prepared, context: Context) -> Plan:
        """A request for each event; where the templates name the device, it is asked for before."""
        if not prepared.needs_device:
            return super().deliver(events, prepared, context)
        return self._with_device(events, prepared, context)

    def _with_device(self, events: Sequence[Event], prepared: Prepared, context: Context) -> Plan:
        outcomes: list[Outcome] = []
        for event in events:
            info = (yield About(event.device)) if event.device else None
            known = structs.replace(context, device=_owned(info, event))
            outcomes += yield from super().deliver([event], prepared, known)
        return outcomes

    def request(self, event: Event, prepared: Prepared, context: Context) -> Request | Refused | Misconfigured:
        """The request for an event, or why there is none."""
        try:
            return build(event, prepared, context)
        except Unsendable as problem:
            return Refused(_doubted(str(problem), prepared.names.lacking(event)))

    def outcome(self, event: Event, response: Response, prepared: Prepared, context: Context) -> Outcome:
        """By status; a success brings the answer."""
        if not 200 <= response.status < 300:
            host = self.target(event, prepared, context).rpartition(":")[0]
            failed = outcome_by_status(response, host, context.now)
            assert isinstance(failed, TryLater | Refused)
            return structs.replace(failed, why=_doubted(failed.why, _doubt(event, prepared, context)))
        outcome = delivered(event, response, prepared, context)
        if not isinstance(outcome, Delivered):
            return outcome
        return structs.replace(outcome, doubt=doubt) if (doubt := _doubt(event, prepared, context)) else outcome

    def describe_target(self, config: WebhookConfig) -> str:
        """The URL's host, or the URL while its host is a template."""
        try:
            return urlsplit(config.url).hostname or config.url
        except ValueError:
            return config.url


def _doubt(event: Event, prepared: Prepared, context: Context) -> str | None:
    """What may be wrong with the request all the same: blanks for what was named, a body that is not what it says."""
    lacking = prepared.names.lacking(event) if prepared.names.needs_data else None
    return lacking or (no_json_in_body(event, prepared, context) if prepared.says_json else None)


def _doubted(why: str, doubt: str | None) -> str:
    return why if doubt is None else f"{why}; {doubt}"


def _topic(template: Template | None, default: str, event: Event, prepared: Prepared, context: Context) -> str:
    if template is None:
        return default
    names = prepared.topic_names
    try:
        room = Room(MAX_NAME_CHARACTERS, MAX_NAME_STEPS)
        predefined = names.predefined(event, context.extra, _owned(context.device, event))
        rendered = template.render(names.data(event.data), predefined, room=room)
    except OutputTooLarge:
        return default
    return rendered or default


def _owned(info: DeviceInfo | None, event: Event) -> DeviceInfo | None:
    """What is known of the device, if it still has the owner that it had: what another calls it is his affair."""
    return info if info is not None and info.owner == event.owner else None
