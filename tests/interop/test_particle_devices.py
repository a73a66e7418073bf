"""Particle's own clients and a linked device: the test answers as the device."""

from __future__ import annotations

import json
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cloud import Cloud, eventually
from tests.gateway.peer import Peer, Silence, device_key, path_of, public_der
from tests.interop.test_particle_cli import PASSWORD, Cli
from wirechamber.protocols.coap.message import Code, Message, Option, Type, ack
from wirechamber.protocols.deviceos.messages import Describe, Kind, write_describe
from wirechamber.services.identity import as_pem

Node = Callable[..., "subprocess.Popen[str]"]
DEVICE = "0123456789abcdef01234567"
TOLD = {"f": ["set"], "v": {"temp": 9}}


@contextmanager
def answering(peer: Peer) -> Iterator[list[tuple[str, bytes]]]:
    """A device that answers its function, its variable, signals and pings; what it was asked is noted."""
    asked: list[tuple[str, bytes]] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            try:
                request = peer.receive(0.1, lambda message: message.type is Type.CON)
            except Silence:
                continue
            path = path_of(request)
            asked.append((path, next(iter(request.all(Option.URI_QUERY)), b"")))
            if path == "s":
                peer.send(Message(Type.ACK, Code.CHANGED, request.id, request.token))
                continue
            peer.send(ack(request.id))
            if path == "f/set":
                result = (42).to_bytes(4, "big")
                peer.send(Message(Type.CON, Code.CHANGED, peer.next_id(), request.token, payload=result))
            elif path == "v/temp":
                value = struct.pack("<d", 21.5)
                peer.send(Message(Type.CON, Code.CONTENT, peer.next_id(), request.token, payload=value))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield asked
    over.set()
    thread.join(10)


def described(peer: Peer) -> Peer:
    peer.start()
    peer.ask(write_describe(Describe(Kind.APPLICATION, json.dumps(TOLD).encode()), peer.next_id(), b"\1"))
    return peer


def test_particle_api_js(live: Cloud, node: Node) -> None:
    token = live.user("ann@example.com", PASSWORD)
    key = device_key()
    live.command("device", "add", DEVICE, "--owner", "ann@example.com", "--name", "lamp")
    started = node("api_js_devices.mjs", live.url, token, DEVICE, as_pem(public_der(key)))
    assert started.stdout is not None
    said: dict[str, object] = {}
    while "sent" not in said:
        line = started.stdout.readline()
        assert line, started.communicate()[1]
        said |= {json.loads(line)["what"]: json.loads(line)["value"]}
    assert said["claimCode"] == {"length": 63, "devices": [DEVICE]}
    peer = described(Peer.of(live, DEVICE, key=key))
    with answering(peer) as asked:
        out, err = started.communicate(timeout=60)
    assert started.returncode == 0, out + err
    said |= {each["what"]: each["value"] for each in map(json.loads, out.strip().split("\n"))}
    assert said["device"] == {"online": True, "functions": ["set"], "variables": {"temp": "double"}}
    assert said["called"] == {
        "ok": True, "id": DEVICE, "name": "lamp", "last_app": None, "connected": True, "return_value": 42,
    }  # fmt: skip
    read = said["read"]
    assert isinstance(read, dict)
    assert (read["result"], read["coreInfo"]["deviceID"]) == (21.5, DEVICE)
    assert said["signalled"] == {"ok": True, "id": DEVICE, "connected": True, "signaling": True}
    assert [said[each] for each in ("noFunction", "noVariable", "foreign")] == [404, 404, 403]
    assert asked == [("f/set", b"high"), ("v/temp", b""), ("s", b"\1")]
    peer.close()


def test_particle_cli(live: Cloud, node: Node, tmp_path: Path) -> None:
    token = live.user("ann@example.com", PASSWORD)
    key = device_key()
    (tmp_path / "key").write_bytes(public_der(key))
    live.command(
        "device", "add", DEVICE, "--owner", "ann@example.com", "--name", "lamp", "--key", str(tmp_path / "key")
    )
    cli = Cli(node, tmp_path / "home", live.url)
    cli("login", "--username", "ann@example.com", "--password", PASSWORD)
    peer = described(Peer.of(live, DEVICE, key=key))
    with live.client(token) as client:
        eventually(lambda: client.get(f"/v1/devices/{DEVICE}").json()["functions"])
    with answering(peer) as asked:
        listed = cli("list")
        assert "lamp" in listed
        assert "online" in listed
        assert "int set (String args)" in listed
        assert "temp (double)" in listed
        assert "42" in cli("call", "lamp", "set", "high")
        assert "21.5" in cli("get", "lamp", "temp")
    assert asked == [("f/set", b"high"), ("v/temp", b"")]
    peer.close()
