from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import Cloud, cloud
from tests.relay import HOST, Address
from wirechamber.device import Device

Scenario = Callable[[], Coroutine[Any, Any, Any]]


class Bench:
    """A running cloud with a user, and devices for it."""

    def __init__(self, running: Cloud, folder: Path) -> None:
        self.cloud = running
        self.folder = folder
        self.token = running.user("ann")
        self.server_key = folder / "server.der"
        running.command("server", "key", "--out", str(self.server_key))

    @property
    def address(self) -> Address:
        return HOST, self.cloud.udp_port

    def provision(self, *options: str, name: str | None = None) -> Path:
        """Makes a device known, and returns the folder with its files."""
        device_id = secrets.token_hex(12)
        out = self.folder / device_id
        named = ("--name", name) if name else ()
        self.cloud.command("device", "provision", device_id, "--owner", "ann", "--out", str(out), *named, *options)
        return out

    def device(self, files: Path, *, address: Address | None = None, **rest: Any) -> Device:
        """The device whose files these are."""
        host, port = address or self.address
        device_id = (files / "device_id").read_text().strip()
        if (files / "device.psk").exists():
            return Device(device_id, psk=files / "device.psk", host=host, port=port, **rest)
        return Device(device_id, key=files / "device_key.der", server_key=self.server_key, host=host, port=port, **rest)

    async def call(self, method: str, path: str, **rest: Any) -> Any:
        """A request to the API, while a device runs on this loop."""
        client = self.cloud.client(self.token)
        answer = await asyncio.to_thread(client.request, method, path, **rest)
        return answer.json()


@pytest.fixture(scope="session")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One cloud for all tests that leave it alone; each takes devices of its own."""
    folder = tmp_path_factory.mktemp("devices")
    with cloud(folder / "data", publish_burst="1000", publish_rate="1000") as running:
        yield Bench(running, folder)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A cloud as it is by default, for tests that restart it, let devices publish too fast, or simulate some."""
    folder = tmp_path_factory.mktemp("default")
    with cloud(folder / "data") as running:
        yield Bench(running, folder)


def run(scenario: Scenario, timeout_s: float = 60.0) -> Any:
    """Runs a coroutine function in a loop of its own."""

    async def bounded() -> Any:
        async with asyncio.timeout(timeout_s):
            return await scenario()

    return asyncio.run(bounded())
