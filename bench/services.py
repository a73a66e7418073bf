"""Events to Google Cloud Pub/Sub and Azure IoT Hub: events per second of the server's CPU time.

An event is published over REST, stored, matched, sent with its token, answered, and its result, attempt and cursor are
stored. Pub/Sub is measured with as many events in a call as wait, and with one call each; the counterpart is a bare
pycurl loop that makes one call each and nothing else. The services are the smallest that answer rightly.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.harness import SERVE, Result, Size, load, wirechamber
from bench.webhooks import bare_pycurl, median_cost, ready

# The same server, whose plans for Pub/Sub get one event each, as many at a time as those of a webhook.
ONE_EACH = (
    "-c",
    "import sys\n"
    "from wirechamber.cli import main\n"
    "from wirechamber.integrations.base import Batch\n"
    "from wirechamber.integrations.google_pubsub import GoogleCloudPubSub\n"
    "GoogleCloudPubSub.batch = Batch()\n"
    "sys.argv = ['wirechamber', 'serve']\n"
    "main()\n",
)


EVENTS: dict[Size, int] = {"full": 6_000, "quick": 100}


def run(size: Size) -> Iterator[Result]:
    count = EVENTS[size]
    stored = _cost(None, count)
    together = _cost("pubsub", count)
    apart = _cost("pubsub", count, ONE_EACH)
    hub = _cost("iothub", count)
    bare = bare_pycurl(count)
    unit = "events per CPU second"
    beside = f"bare pycurl, one call each {1 / bare:,.0f}"
    yield from (
        Result("REST event -> Pub/Sub, those that wait in one call", 1 / together, unit,
               f"one call each {1 / apart:,.0f}", apart / together),
        Result("the same without what storing an event costs", 1 / (together - stored), unit,
               f"one call each {1 / (apart - stored):,.0f}", (apart - stored) / (together - stored)),
        Result("the same, against the bare HTTP client", 1 / (together - stored), unit, beside,
               bare / (together - stored)),
        Result("REST event -> IoT Hub", 1 / hub, unit, beside, bare / hub),
        Result("the same without what storing an event costs", 1 / (hub - stored), unit, beside, bare / (hub - stored)),
    )  # fmt: skip


def _cost(service: str | None, count: int, program: tuple[str, ...] = SERVE) -> float:
    """CPU seconds of the server per event; of one that nothing takes when there is no service."""
    with load("services", service or "pubsub") as loaded:
        url = f"http://127.0.0.1:{int(loaded.said('its port'))}"
        with wirechamber(program, pubsub_url=url, iothub_url=url) as server:
            if service is not None:
                settings = {"event": "temperature"} | (_pubsub() if service == "pubsub" else _iothub())
                server.request("POST", "/v1/integrations", json.dumps(settings).encode())
            ready(loaded, server)
            loaded.ask("the first events", events=count // 6, delivered=service is not None)
            return median_cost(server.pid, loaded, count, delivered=service is not None)[0]


def _pubsub() -> dict[str, Any]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"type": "service_account", "client_email": "bench@bench.iam.gserviceaccount.com", "private_key": pem}
    topic = "projects/bench-project/topics/bench"
    return {"integration_type": "GoogleCloudPubSub", "topic": topic, "credentials": account}


def _iothub() -> dict[str, Any]:
    key = base64.b64encode(bytes(range(32))).decode()
    return {"integration_type": "AzureIotHub", "hub_name": "bench", "policy_name": "bench", "policy_key": key}
