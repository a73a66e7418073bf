"""The kinds of integration that come with Wirechamber, and those that installed packages add."""

from __future__ import annotations

from typing import Any

from wirechamber.integrations.azure_iot_hub import AzureIotHub
from wirechamber.integrations.base import Integration
from wirechamber.integrations.google_maps import GoogleMaps
from wirechamber.integrations.google_pubsub import GoogleCloudPubSub
from wirechamber.integrations.registry import Registry, third_party
from wirechamber.integrations.webhook import Webhook
from wirechamber.settings import Settings


def registry(settings: Settings | None = None) -> Registry:
    """All kinds, with the operator's settings; the defaults are enough for who wants to know their fields only."""
    settings = settings or Settings()
    own: list[Integration[Any, Any]] = [
        Webhook(),
        GoogleCloudPubSub(
            settings.pubsub_url, settings.google_token_url, settings.pubsub_emulator_host, settings.google_credentials
        ),
        GoogleMaps(settings.geolocation_url),
        AzureIotHub(settings.iothub_url),
    ]
    return Registry([*own, *third_party()])
