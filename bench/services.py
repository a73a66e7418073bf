"""Events to Google Cloud Pub/Sub and Azure IoT Hub: events per second of the server's CPU time.

An event is published over REST, stored, matched, sent with its token, answered, and its result, attempt and cursor are
stored. Pub/Sub is measured with as many events in a call as wait, and with one call each; the counterpart is a bare
pycurl loop that makes one call each and nothing else. The services are the smallest that answer rightly.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.harness import LOAD_CORE, SERVE, Result, process, wirechamber
from bench.webhooks import _bare_pycurl, ask, median_cost, ready

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


def run() -> list[Result]:
    stored = _cost(None)
    together = _cost("pubsub")
    apart = _cost("pubsub", ONE_EACH)
    hub = _cost("iothub")
    bare = _bare_pycurl()
    unit = "events per CPU second"
    beside = f"bare pycurl, one call each {1 / bare:,.0f}"
    return [
        Result("REST event -> Pub/Sub, those that wait in one call", 1 / together, unit,
               f"one call each {1 / apart:,.0f}", apart / together),
        Result("the same without what storing an event costs", 1 / (together - stored), unit,
               f"one call each {1 / (apart - stored):,.0f}", (apart - stored) / (together - stored)),
        Result("the same, against the bare HTTP client", 1 / (together - stored), unit, beside,
               bare / (together - stored)),
        Result("REST event -> IoT Hub", 1 / hub, unit, beside, bare / hub),
        Result("the same without what storing an event costs", 1 / (hub - stored), unit, beside, bare / (hub - stored)),
    ]  # fmt: skip


def _cost(service: str | None, program: tuple[str, ...] = SERVE) -> float:
    """CPU seconds of the server per event; of one that nothing takes when there is no service."""
    with load(service or "pubsub") as (loaded, port):
        url = f"http://127.0.0.1:{port}"
        with wirechamber(program, pubsub_url=url, iothub_url=url) as server:
            if service is not None:
                settings = {"event": "temperature"} | (_pubsub() if service == "pubsub" else _iothub())
                server.request("POST", "/v1/integrations", json.dumps(settings).encode())
            ready(loaded, server)
            ask(loaded, events=1_000, delivered=service is not None)
            return median_cost(server.pid, loaded, delivered=service is not None)[0]


@contextmanager
def load(service: str) -> Iterator[tuple[Any, int]]:
    command = [sys.executable, "-m", "bench.load.services", service]
    with process(command, LOAD_CORE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        yield started, int(started.stdout.readline())  # type: ignore[union-attr]


def _pubsub() -> dict[str, Any]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"type": "service_account", "client_email": "bench@bench.iam.gserviceaccount.com", "private_key": pem}
    topic = "projects/bench-project/topics/bench"
    return {"integration_type": "GoogleCloudPubSub", "topic": topic, "credentials": account}


def _iothub() -> dict[str, Any]:
    key = base64.b64encode(bytes(range(32))).decode()
    return {"integration_type": "AzureIotHub", "hub_name": "bench", "policy_name": "bench", "policy_key": key}
