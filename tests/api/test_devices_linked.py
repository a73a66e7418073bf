"""Devices by the API while they are linked: state, functions, variables, ping, signal, keys, claiming, usage."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cloud import Cloud, cloud, eventually
from tests.gateway.peer import Peer, a_hello, device_key, path_of, public_der
from wirechamber.protocols.coap.message import Code, Message, Option, Type, ack
from wirechamber.protocols.deviceos.messages import Describe, Kind, write_describe
from wirechamber.services.identity import as_pem

# One for usage alone: what others left in the meter is written down later.
ONE, TWO, THREE = "0123456789abcdef01234567", "a" * 24, "b" * 24
VALUES = {
    "count": (2, "int32", (-5).to_bytes(4, "big", signed=True), -5),
    "temp": (9, "double", struct.pack("<d", 21.25), 21.25),
    "name": (4, "string", "Küche".encode(), "Küche"),
    "on": (1, "bool", b"\1", True),
    "usage": (2, "int32", (7).to_bytes(4, "big"), 7),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("linked") / "data", publish_burst="100") as running:
        yield running


@pytest.fixture(scope="module")
def client(made: Cloud) -> httpx.Client:
    return made.client(made.user("ann@example.com"))


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[[ec.EllipticCurvePrivateKey], str]:
    def write(key: ec.EllipticCurvePrivateKey) -> str:
        (tmp_path / "public.der").write_bytes(public_der(key))
        return str(tmp_path / "public.der")

    return write


@contextmanager
def device(made: Cloud, id: str, key_file: Any, owner: str = "ann@example.com") -> Iterator[Peer]:
    """A device that is known, linked and described."""
    key = device_key()
    owned = ("--owner", owner) if owner else ()
    made.command("device", "add", id, *owned, "--name", f"d{id[0]}", "--key", key_file(key))
    peer = Peer.of(made, id, key=key).start()
    told = {"f": ["set", "add"], "v": {name: code for name, (code, *_) in VALUES.items()}}
    described = Describe(Kind.APPLICATION, json.dumps(told).encode())
    assert peer.ask(write_describe(described, peer.next_id(), b"\1")).code >> 5 in (0, 2)
    try:
        yield peer
    finally:
        peer.close()
        made.command("device", "remove", id, "--yes")


def during(
    call: Callable[[], httpx.Response], peer: Peer, answer: Callable[[Message], Message | None]
) -> httpx.Response:
    """Calls the API while the device answers one request; `answer` gives the separate response."""
    got: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: got.append(call()), daemon=True)
    caller.start()
    request = peer.receive(want=lambda message: message.type is Type.CON)
    response = answer(request)
    if response is None or response.type is Type.CON:
        peer.send(ack(request.id))
    if response is not None:
        peer.send(response)
        if response.type is Type.CON:
            assert peer.answer(response.id).type is Type.ACK
    caller.join(20)
    assert got, "the API did not answer"
    return got[0]


def test_a_linked_device_in_the_registry(made: Cloud, client: httpx.Client, key_file: Any) -> None:
    with device(made, ONE, key_file) as peer:
        shown = eventually(lambda: found if (found := client.get(f"/v1/devices/{ONE}").json())["online"] else None)
        assert shown["connected"] is True
        assert shown["functions"] == ["set", "add"]
        assert shown["variables"] == {name: kind for name, (_, kind, *_) in VALUES.items()}
        assert (shown["platform_id"], shown["product_id"], shown["last_ip_address"]) == (3, 3, "127.0.0.1")
        assert shown["system_module_version"] == 6200
        for name in ("last_heard", "last_handshake_at"):
            assert shown[name].endswith("Z")
        assert [each["id"] for each in client.get("/v1/devices?online=true").json()] == [ONE]
        assert client.get("/v1/devices?online=false").json() == []
        assert "yes" in made.command("device", "list")
        peer.close()
    assert client.get("/v1/devices").json() == []


def test_functions(made: Cloud, client: httpx.Client, key_file: Any) -> None:
    with device(made, ONE, key_file) as peer:
        eventually(lambda: client.get(f"/v1/devices/{ONE}").json()["online"])
        said: list[tuple[str, bytes]] = []

        def result(number: int) -> Callable[[Message], Message]:
            def answer(request: Message) -> Message:
                said.append((path_of(request), next(iter(request.all(Option.URI_QUERY)), b"")))
                assert len(request.token) == 1
                value = number.to_bytes(4, "big", signed=True)
                return Message(Type.CON, Code.CHANGED, peer.next_id(), request.token, payload=value)

            return answer

        url = f"/v1/devices/{ONE}/set"
        called = during(lambda: client.post(url, json={"args": "5 °C"}), peer, result(-7))
        assert called.json() == {
            "ok": True, "id": ONE, "name": "d0", "last_app": None, "connected": True, "return_value": -7,
        }  # fmt: skip
        during(lambda: client.post("/v1/devices/d0/add", data={"arg": "x", "access_token": ""}), peer, result(1))
        raw = during(lambda: client.post(url, json={"params": 12, "format": "raw"}), peer, result(2147483647))
        assert raw.json() == 2147483647
        during(lambda: client.post(url), peer, result(0))
        assert said == [("f/set", "5 °C".encode()), ("f/add", b"x"), ("f/set", b"12"), ("f/set", b"")]
        unknown = client.post(f"/v1/devices/{ONE}/nothing", json={"args": ""})
        assert (unknown.status_code, unknown.json()["error"]) == (404, "Function nothing not found")
        assert client.post(url, json={"args": "x" * 1025}).status_code == 400
        assert client.post(url, json={"args": ["x"]}).status_code == 400


def test_variables(made: Cloud, client: httpx.Client, key_file: Any) -> None:
    with device(made, ONE, key_file) as peer:
        eventually(lambda: client.get(f"/v1/devices/{ONE}").json()["online"])

        def value(payload: bytes) -> Callable[[Message], Message]:
            return lambda request: Message(Type.CON, Code.CONTENT, peer.next_id(), request.token, payload=payload)

        for name, (_, _, payload, expected) in VALUES.items():
            read = during(partial(client.get, f"/v1/devices/{ONE}/{name}"), peer, value(payload)).json()
            assert (read["name"], read["result"]) == (name, expected)
            assert type(read["result"]) is type(expected)
            assert read["coreInfo"].items() >= {"deviceID": ONE, "connected": True, "name": "d0"}.items()
        raw = during(lambda: client.get(f"/v1/devices/{ONE}/temp?format=raw"), peer, value(VALUES["temp"][2]))
        assert raw.json() == 21.25
        # It is gone since the device told of it.
        gone = during(
            lambda: client.get(f"/v1/devices/{ONE}/count"),
            peer,
            lambda request: Message(Type.CON, Code.NOT_FOUND, peer.next_id(), request.token),
        )
        assert (gone.status_code, gone.json()["error"]) == (404, "Variable not found")
        unknown = client.get(f"/v1/devices/{ONE}/nothing")
        assert (unknown.status_code, unknown.json()["error"]) == (404, "Variable not found")


def test_ping_and_signal(made: Cloud, client: httpx.Client, key_file: Any) -> None:
    with device(made, ONE, key_file) as peer:
        eventually(lambda: client.get(f"/v1/devices/{ONE}").json()["online"])
        pinged = during(lambda: client.put(f"/v1/devices/{ONE}/ping"), peer, lambda request: None)
        assert pinged.json() == {"ok": True, "online": True}

        def signalled(request: Message) -> Message:
            assert path_of(request) == "s"
            wished.append(next(iter(request.all(Option.URI_QUERY))))
            return Message(Type.ACK, Code.CHANGED, request.id, request.token)

        wished: list[bytes] = []
        for wish, on in (("1", True), (0, False), (1, True)):
            answer = during(partial(client.put, f"/v1/devices/{ONE}", json={"signal": wish}), peer, signalled)
            assert answer.json() == {"ok": True, "id": ONE, "connected": True, "signaling": on}
        assert wished == [b"\1", b"\0", b"\1"]
        assert client.put(f"/v1/devices/{ONE}", json={"signal": "maybe"}).status_code == 400


def test_a_device_that_is_away(made: Cloud, client: httpx.Client) -> None:
    made.command("device", "add", TWO, "--owner", "ann@example.com")
    assert client.put(f"/v1/devices/{TWO}/ping").json() == {"ok": True, "online": False}
    called = client.post(f"/v1/devices/{TWO}/set", json={"args": ""})
    assert (called.status_code, called.json()["error"]) == (408, "timed out")
    read = client.get(f"/v1/devices/{TWO}/temp")
    assert (read.status_code, read.json()["error"]) == (408, "Timed out.")
    signalled = client.put(f"/v1/devices/{TWO}", json={"signal": "1"})
    assert signalled.status_code == 500
    assert signalled.json()["errors"] == [{"error": "Timed out, didn't hear back from device service"}]
    made.command("device", "remove", TWO, "--yes")


def test_a_key_by_the_api(made: Cloud, client: httpx.Client) -> None:
    made.command("device", "add", TWO, "--owner", "ann@example.com")
    first, second = device_key(), device_key()

    def send(key: ec.EllipticCurvePrivateKey) -> httpx.Response:
        # As `particle keys send` does.
        form = {
            "deviceID": TWO, "publicKey": as_pem(public_der(key)), "order": "manual_123", "filename": "cli",
            "algorithm": "ecc", "product_id": "",
        }  # fmt: skip
        return client.post(f"/v1/provisioning/{TWO}", data=form)

    peer = Peer.of(made, TWO, key=first).connect()
    peer.send(a_hello(TWO, peer.next_id()))
    assert peer.alert()
    peer.close()
    assert send(first).json() == {"ok": True, "id": TWO, "device_id": TWO}
    peer = Peer.of(made, TWO, key=first).start()
    eventually(lambda: client.get(f"/v1/devices/{TWO}").json()["online"])
    # Another one: the session is over at once.
    assert send(second).status_code == 200
    assert peer.alert()
    peer.close()
    eventually(lambda: not client.get(f"/v1/devices/{TWO}").json()["online"])
    Peer.of(made, TWO, key=second).start().close()
    made.command("device", "remove", TWO, "--yes")


def test_a_claim_code_by_the_device(made: Cloud, client: httpx.Client, key_file: Any) -> None:
    code = client.post("/v1/device_claims", json={}).json()
    assert (len(code["claim_code"]), code["device_ids"]) == (63, [])
    with device(made, TWO, key_file, owner="") as peer:
        assert client.get("/v1/devices").json() == []
        peer.publish("spark/device/claim/code", code["claim_code"].encode())
        # Its code is cleared by this.
        assert path_of(peer.request()).lower().startswith("e/spark/device/claim/")
        shown = eventually(lambda: client.get("/v1/devices").json())
        assert [each["id"] for each in shown] == [TWO]
        peer.publish("temp", b"21")


def test_usage(made: Cloud, client: httpx.Client, key_file: Any) -> None:
    with device(made, THREE, key_file) as peer:
        for number in range(10):
            peer.publish("temperature", b"%020d" % number)

        def used() -> Any:
            shown = [each for each in client.get("/v1/usage").json()["devices"] if each["id"] == THREE]
            publish = shown[0]["purposes"].get("publish", {}) if shown else {}
            return shown[0] if (publish.get("publishes"), publish.get("down_datagrams")) == (10, 10) else None

        shown = eventually(used, 30, "writing usage down")
        assert shown["id"] == THREE
        assert shown["total"]["data_bytes"] == 200
        assert shown["purposes"].keys() >= {"handshake", "publish"}
        publish = shown["purposes"]["publish"]
        assert publish["up_datagrams"] == publish["down_datagrams"] == 10
        # Each datagram with its headers, both ways.
        assert 150 <= publish["bytes"] / 10 <= 185
        assert shown["https"]["bytes"] == 10 * (4298 - 20) + 200
        assert shown["https"]["kept_open_bytes"] == 10 * (536 - 20) + 200
        assert shown["https"]["times"] == round(shown["https"]["bytes"] / shown["total"]["bytes"], 1)
        one = client.get(f"/v1/usage?since={shown['since']}").json()
        assert one["total"] == shown["total"]
        text = made.command("usage", THREE)
        assert "publish " in text
        assert f"{shown['https']['bytes']} bytes" in text
        assert str(shown["total"]["bytes"]) in made.command("usage", "--owner", "ann@example.com")
        assert made.command("usage", THREE, "--hours").count("\n") == 2
        (row,) = json.loads(made.command("usage", "--json"))
        assert row["total"] == shown["total"]
    made.command("device", "add", ONE, "--owner", "ann@example.com")
    hourly = client.get(f"/v1/devices/{ONE}/usage").json()
    assert (hourly["id"], hourly["hours"], hourly["total"]["bytes"]) == (ONE, [], 0)
    nothing = {"bytes": 0, "times": None, "kept_open_bytes": 0, "kept_open_times": None}
    assert hourly["https"] == nothing
    for bad in ("since=yesterday", "since=2027-01-01&until=2026-01-01", "since=2020-01-01"):
        assert client.get(f"/v1/usage?{bad}").status_code == 400, bad
    made.command("device", "remove", ONE, "--yes")
