"""Owners of many devices: every list is whole, and what it costs does not grow with what it does not show."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.cloud import Cloud, cloud, eventually

COUNT = 1_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, httpx.Client]]:
    folder: Path = tmp_path_factory.mktemp("many")
    with cloud(folder / "data") as live:
        token = live.user("ann")
        file = folder / "devices.csv"
        file.write_text(
            "id,name,platform\n" + "".join(f"{n:024x},lamp-{n},{13 if n % 10 == 0 else 32}\n" for n in range(COUNT))
        )
        live.command("device", "import", str(file), "--owner", "ann")
        yield live, live.client(token)


def test_all_devices_come_however_many(many: tuple[Cloud, httpx.Client]) -> None:
    answer = many[1].get("/v1/devices")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["X-Total-Count"] == str(COUNT)
    assert {device["id"] for device in answer.json()} == {f"{n:024x}" for n in range(COUNT)}
    assert len(answer.json()) == COUNT
    head = many[1].head("/v1/devices")
    assert (head.status_code, head.content, head.headers["X-Total-Count"]) == (200, b"", str(COUNT))


def test_pages_are_the_same_list(many: tuple[Cloud, httpx.Client]) -> None:
    client = many[1]
    whole = [device["id"] for device in client.get("/v1/devices").json()]
    pages: list[str] = []
    for page in range(1, COUNT // 300 + 2):
        answer = client.get(f"/v1/devices?page={page}&per_page=300")
        assert answer.headers["X-Total-Count"] == str(COUNT)
        pages += [device["id"] for device in answer.json()]
    assert pages == whole
    assert client.get("/v1/devices?page=9999").json() == []


@pytest.mark.parametrize(
    ("query", "count"), [("name=LAMP-99", 11), ("online=true", 0), ("online=false", COUNT), ("name=none", 0)]
)
def test_filters_count_what_they_find(many: tuple[Cloud, httpx.Client], query: str, count: int) -> None:
    for paging in ("", "&per_page=1000"):
        answer = many[1].get(f"/v1/devices?{query}{paging}")
        assert (len(answer.json()), answer.headers["X-Total-Count"]) == (count, str(count))


def test_an_old_client_gets_all_until_the_connection_ends(many: tuple[Cloud, httpx.Client]) -> None:
    live, client = many
    host, port = live.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        head = f"GET /v1/devices HTTP/1.0\r\nHost: x\r\nAuthorization: {client.headers['Authorization']}\r\n\r\n"
        connection.sendall(head.encode())
        got = b""
        while part := connection.recv(65536):
            got += part
    assert len(json.loads(got.partition(b"\r\n\r\n")[2])) == COUNT


def test_long_lists_under_way_are_bounded(tmp_path: Path) -> None:
    with cloud(tmp_path / "data") as live:
        token = live.user("ann")
        file = tmp_path / "devices.csv"
        file.write_text("id\n" + "".join(f"{n:024x}\n" for n in range(20_000)))
        live.command("device", "import", str(file), "--owner", "ann")
        client = live.client(token)
        with ExitStack() as stack:
            # They do not read on: most of a list is not even made.
            under_way = [stack.enter_context(client.stream("GET", "/v1/devices")) for _ in range(4)]
            assert [answer.status_code for answer in under_way] == [200] * 4
            refused = client.get("/v1/devices")
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
            assert client.get("/v1/devices?per_page=25").headers["X-Total-Count"] == "20000"
            assert len(json.loads(b"".join(under_way[0].iter_bytes()))) == 20_000
            eventually(lambda: _is_answered(client), what="room for another list")


def _is_answered(client: httpx.Client) -> bool:
    with client.stream("GET", "/v1/devices") as answer:
        return answer.status_code == 200


def test_counts_and_usage_of_many(many: tuple[Cloud, httpx.Client]) -> None:
    client = many[1]
    user = client.get("/v1/user").json()
    assert (user["cellular_device_count"], user["wifi_device_count"]) == (COUNT // 10, COUNT - COUNT // 10)
    usage = client.get("/v1/usage").json()
    assert (usage["devices"], usage["total"]["bytes"]) == ([], 0)
    assert len(client.post("/v1/device_claims").json()["device_ids"]) == COUNT


def test_the_count_follows_what_comes_and_goes(many: tuple[Cloud, httpx.Client]) -> None:
    live, client = many

    def count() -> int:
        return int(client.get("/v1/devices?per_page=1").headers["X-Total-Count"])

    assert client.delete(f"/v1/devices/{1:024x}").status_code == 200
    assert count() == COUNT - 1
    assert client.post("/v1/devices", json={"id": f"{1:024x}"}).status_code == 200
    live.command("device", "add", "b" * 24, "--owner", "ann")
    assert count() == COUNT + 1
    live.command("device", "remove", "b" * 24, "--yes")
    assert count() == COUNT
