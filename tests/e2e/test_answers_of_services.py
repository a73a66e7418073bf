"""Services whose answers come compressed, with a byte order mark, or in another encoding: read as any other answer."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cloud import cloud, eventually
from tests.sse import stream, take
from tests.standins.geolocation import PATH, Geolocation
from tests.standins.iothub import IotHub
from tests.standins.pubsub import TOPIC, Account, PubSub
from tests.standins.server import Asked, Said, Standin

SCAN = '{"w":{"a":[{"m":"3c:37:86:5d:75:d4","s":-45,"c":6},{"m":"94:b4:0f:fd:c1:40","s":-60,"c":11}]}}'
Form = Callable[[bytes], tuple[bytes, tuple[tuple[str, str], ...]]]


def gzipped(body: bytes) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    return gzip.compress(body), (("Content-Type", "application/json"), ("Content-Encoding", "gzip"))


def marked_and_deflated(body: bytes) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    return zlib.compress(codecs.BOM_UTF8 + body), (("Content-Encoding", "deflate"),)


def wide(body: bytes) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    return body.decode().encode("utf-16"), (("Content-Type", "application/json; charset=UTF-16"),)


class Packing:
    """Has services answer in a form that may change."""

    def __init__(self, *services: Standin) -> None:
        self.form: Form = gzipped
        for service in services:
            self._pack(service)

    def _pack(self, service: Standin) -> None:
        plain = service.answer

        def answer(asked: Asked) -> Said:
            said = plain(asked)
            if not said.body:
                return said
            body, headers = self.form(said.body)
            told = {name.lower() for name, _ in headers}
            return Said(said.status, body, (*(each for each in said.headers if each[0].lower() not in told), *headers))

        service.answer = answer  # type: ignore[method-assign]


def test_answers_of_services_are_read_in_whatever_form_they_come(tmp_path: Path) -> None:
    account = Account()
    with Geolocation() as maps, PubSub(account) as pubsub, IotHub() as hub:
        packing = Packing(maps, pubsub, hub)
        settings = {
            "geolocation_url": maps.url + PATH, "pubsub_url": pubsub.url, "google_token_url": f"{pubsub.url}/token",
            "iothub_url": hub.url, "retry_schedule": "0",
        }  # fmt: skip
        with cloud(tmp_path / "data", **settings) as live:
            client = live.client(live.user("ann"))
            wanted: dict[str, dict[str, Any]] = {
                "deviceLocator": {"integration_type": "GoogleMaps", "api_key": maps.key},
                "topic": {"integration_type": "GoogleCloudPubSub", "topic": TOPIC, "credentials": account.text},
                # This policy may not make devices.
                "hub": {"integration_type": "AzureIotHub", "hub_name": "test-hub", "policy_name": "readonly",
                        "policy_key": hub.keys["readonly"]},
            }  # fmt: skip
            for number, form in enumerate((gzipped, marked_and_deflated, wide), 1):
                packing.form = form
                made = {
                    event: client.post("/v1/integrations", json=each | {"event": event}).json()["id"]
                    for event, each in wanted.items()
                }
                with stream(client, "/v1/devices/events/hook-") as source:
                    client.post("/v1/devices/events", json={"name": "deviceLocator", "data": SCAN})
                    (_, place) = take(source, 2)
                    assert place.data == "38.9901,-77.5501,500"
                    # Each integration has a token of its own, which came in this form, too.
                    client.post("/v1/devices/events", json={"name": "topic", "data": "21.5"})
                    (_, message) = take(source, 2)
                    assert message.data == str(number)
                    assert len(pubsub.tokens) == number
                    # What explains an error, in it and in the attempt.
                    client.post("/v1/devices/events", json={"name": "hub", "data": "1"})
                    (refused,) = take(source, 1)
                    assert refused.data.startswith("error status 401 from test-hub.azure-devices.net: ")
                    assert "Unauthorized" in refused.data
                (attempt,) = eventually(
                    lambda made=made: client.get(f"/v1/integrations/{made['hub']}/logs").json()["logs"]
                )
                assert "Unauthorized" in attempt["response"]["body"]
                for each in made.values():
                    client.delete(f"/v1/integrations/{each}")
