"""The webhook: an HTTP request for each event."""

from wirechamber.integrations.webhook.config import WebhookConfig
from wirechamber.integrations.webhook.kind import Webhook

__all__ = ["Webhook", "WebhookConfig"]
