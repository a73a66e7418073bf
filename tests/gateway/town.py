"""A running cloud with people and devices in it, and what can be seen of its log and store from outside."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.cloud import Cloud, eventually
from tests.gateway.peer import Peer, device_key
from wirechamber.clock import SystemClock
from wirechamber.model.devices import Device
from wirechamber.model.keys import DeviceKeys
from wirechamber.secrets import Vault
from wirechamber.store.base import Store
from wirechamber.store.sqlite import open_sqlite_store

Result = TypeVar("Result")

PSK = bytes(range(32))


def new_device_id() -> str:
    """One that nobody has."""
    return secrets.token_hex(12)


class Town:
    """A cloud in provisioning mode with an owner, `alice`, and her devices.

    Attributes:
        client: Speaks to the API as alice.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.token = cloud.user("alice@example.com")
        self.client: httpx.Client = cloud.client(self.token)
        self._peers: list[Peer] = []

    def __enter__(self) -> Town:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def someone(self, name: str) -> httpx.Client:
        """Speaks to the API as somebody else."""
        return self.cloud.client(self.cloud.user(name))

    def peer(self, id: str | None = None, *, client: httpx.Client | None = None, **more: Any) -> Peer:
        """A device of alice's, or of whoever `client` is, that is known here and not connected yet."""
        client = client or self.client
        id = id or new_device_id()
        key = more.pop("key", None) or device_key()
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        bound = client.post(f"/v1/provisioning/{id}", json={"publicKey": pem})
        assert bound.status_code == 200, bound.text
        claimed = client.post("/v1/devices", json={"id": id})
        assert claimed.status_code == 200, claimed.text
        return self.kept(Peer.of(self.cloud, id, key=key, **more))

    def device(self, **more: Any) -> Peer:
        """The same, connected and greeted."""
        return self.peer(**more).start()

    def psk_peer(self, psk: bytes = PSK, **more: Any) -> Peer:
        """A device of alice's with a pre-shared key, not connected yet."""
        id = more.pop("id", None) or new_device_id()

        async def work(store: Store) -> None:
            await store.devices.add(Device(id=id, created_at=0))
            await store.keys.set(DeviceKeys(device=id, psk=psk, changed_at=0))

        in_store(self.cloud, work)
        claimed = self.client.post("/v1/devices", json={"id": id})
        assert claimed.status_code == 200, claimed.text
        return self.kept(Peer.of(self.cloud, id, psk=psk, **more))

    def kept(self, peer: Peer) -> Peer:
        """A peer that is closed with the town."""
        self._peers.append(peer)
        return peer

    def leave(self) -> None:
        """Closes the sockets of all peers."""
        for peer in self._peers:
            peer.close()
        self._peers.clear()

    def show(self, peer: Peer) -> dict[str, Any]:
        """A device as the API shows it."""
        answer = self.client.get(f"/v1/devices/{peer.device}")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def publish(self, name: str, data: str = "", ttl: int = 60, client: httpx.Client | None = None) -> None:
        """Publishes by the API, as alice or somebody else."""
        answer = (client or self.client).post("/v1/devices/events", json={"name": name, "data": data, "ttl": ttl})
        assert answer.status_code == 200, answer.text

    def events(self, peer: Peer, name: str | None = None) -> list[dict[str, Any]]:
        """What the log has of a device, oldest first."""
        return logged(self.cloud, peer.device, name)

    def statuses(self, peer: Peer) -> list[str]:
        """Presence events of a device, oldest first."""
        return [event["data"] for event in self.events(peer, "spark/status")]

    def metric(self, name: str, **labels: str) -> float:
        """A sample of `/metrics`; 0 while there is none."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in httpx.get(f"{self.cloud.url}/metrics").text.splitlines():
            head, _, number = line.rpartition(" ")
            found, _, inside = head.partition("{")
            if found == name and wanted <= set(inside.rstrip("}").split(",")):
                return float(number)
        return 0.0


def logged(cloud: Cloud, device: str, name: str | None = None) -> list[dict[str, Any]]:
    """Events of a device straight from the log's file, as another process sees them: what it shows is committed."""
    with closing(sqlite3.connect(f"file:{cloud.folder / 'events.db'}?mode=ro", uri=True)) as db:
        rows = db.execute("select record from event where coreid = ? order by position", (device,)).fetchall()
    events = [json.loads(record) for (record,) in rows]
    return [event for event in events if name is None or event["name"] == name]


def in_store(cloud: Cloud, work: Callable[[Store], Awaitable[Result]]) -> Result:
    """Opens the store of a cloud, running or not, as a command would."""

    async def run() -> Result:
        async with open_sqlite_store(cloud.folder, Vault.open(cloud.folder), clock=SystemClock()) as store:
            return await work(store)

    return asyncio.run(run())


def until(look: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """`eventually`, with the words first in mind."""
    return eventually(look, timeout_s, what)


def never(look: Callable[[], Any], for_s: float = 0.3) -> None:
    """Holds that something does not come true for a while."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        assert not look()
        time.sleep(0.02)
