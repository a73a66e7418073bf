"""A scan published by a device over DTLS comes back to it as its place, by Wirechamber and the Geolocation stand-in."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from tests.cloud import cloud, eventually
from tests.sse import stream, take
from tests.standins.geolocation import PATH, Geolocation
from tests.standins.iothub import IotHub
from wirechamber.device import Device

SCAN = '{"w":{"a":[{"m":"3c:37:86:5d:75:d4","s":-45,"c":6},{"m":"94:b4:0f:fd:c1:40","s":-60,"c":11}]}}'


def test_a_device_learns_where_it_is_and_the_hub_what_it_is_called(tmp_path: Path) -> None:
    with Geolocation() as google, IotHub() as hub:
        settings = {"geolocation_url": google.url + PATH, "iothub_url": hub.url}
        with cloud(tmp_path / "data", **settings) as live:
            client = live.client(live.user("ann"))
            device_id, files = secrets.token_hex(12), tmp_path / "device"
            live.command("device", "provision", device_id, "--owner", "ann", "--name", "lamp", "--out", str(files))
            live.command("server", "key", "--out", str(tmp_path / "server.der"))
            wanted = {"integration_type": "GoogleMaps", "api_key": google.key}
            assert client.post("/v1/integrations", json=wanted).status_code == 201
            key = hub.keys["iothubowner"]
            wanted = {"hub_name": "test-hub", "policy_name": "iothubowner", "policy_key": key, "event": "temp"}
            assert client.post("/v1/integrations", json=wanted | {"integration_type": "AzureIotHub"}).status_code == 201

            async def scenario() -> tuple[str, str]:
                found: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
                device = Device(
                    device_id, key=files / "device_key.der", server_key=tmp_path / "server.der", host="127.0.0.1",
                    port=live.udp_port, version=7,
                )  # fmt: skip
                async with asyncio.timeout(60), device:
                    await device.subscribe(
                        f"hook-response/deviceLocator/{device_id}", lambda name, data: found.set_result((name, data))
                    )
                    await device.publish("deviceLocator", SCAN)
                    await device.publish("temp", "21.5")
                    return await found

            with stream(client, "/v1/devices/events/hook-response") as source:
                name, data = asyncio.run(scenario())
                assert (name, data) == (f"hook-response/deviceLocator/{device_id}/0", "38.9901,-77.5501,500")
                # Streams see the same one.
                (seen,) = take(source, 1)
                assert (seen.name, seen.data) == (name, data)
            ((device, _, body),) = eventually(lambda: hub.messages)
            assert device == body["device_id"] == device_id
            assert body["fw_version"] == "7"
            assert hub.twins[device_id]["properties"]["desired"] == {"deviceName": "lamp"}
