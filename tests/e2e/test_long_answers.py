"""An unchunked answer that no message to a device can hold: streams get it, devices don't, and the log says so."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from tests.cloud import Target, cloud, eventually
from wirechamber.device import Device


def test_an_unchunked_answer_over_1024_bytes_is_told_in_the_log_once(tmp_path: Path) -> None:
    with Target() as target, cloud(tmp_path / "data") as live:
        client = live.client(live.user("ann"))
        device_id, files = secrets.token_hex(12), tmp_path / "device"
        live.command("device", "provision", device_id, "--owner", "ann", "--name", "lamp", "--out", str(files))
        live.command("server", "key", "--out", str(tmp_path / "server.der"))
        wanted = {"event": "ask", "url": f"{target.url}/in", "unchunked": True}
        assert client.post("/v1/integrations", json=wanted).status_code == 201
        lengths = iter((1_025, 5_000, 1_024))
        target.answer = lambda method, path, body: (200, {}, b"x" * next(lengths))

        async def scenario() -> str:
            loop = asyncio.get_running_loop()
            found: asyncio.Future[str] = loop.create_future()
            device = Device(
                device_id, key=files / "device_key.der", server_key=tmp_path / "server.der", host="127.0.0.1",
                port=live.udp_port,
            )  # fmt: skip
            async with asyncio.timeout(60), device:
                await device.subscribe("hook-response/ask", lambda name, data: found.set_result(data))
                for number in range(3):
                    await device.publish("ask", str(number))
                    await loop.run_in_executor(
                        None, eventually, lambda wanted=number + 1: len(target.requests) == wanted
                    )
                return await found

        assert asyncio.run(scenario()) == "x" * 1_024
        told = [line for line in live.log_file.read_text().splitlines() if "event_too_large_for_devices" in line]
        assert len(told) == 1
        assert '"bytes": 1025' in told[0]
        assert "hook-response/ask" in told[0]
        metrics = client.get("/metrics").text
        assert 'wirechamber_device_input_refused_total{part="to_devices",reason="too_large"} 2.0' in metrics
