"""Streams that are cut at random points and resumed: every event once."""

from __future__ import annotations

import random
import threading

import httpx
import pytest

from tests.cloud import Cloud
from tests.sse import stream, take

COUNT = 2_000


def publish(cloud: Cloud, token: str, first: int, count: int) -> None:
    with cloud.client(token) as client:
        for number in range(first, first + count):
            assert client.post("/v1/devices/events", json={"name": "n", "data": str(number)}).status_code == 200


def test_httpx_sse_cut_at_random_points_sees_every_event_once(live: Cloud) -> None:
    token = live.user("ann")
    dice = random.Random(7)
    with live.client(token) as client:
        with stream(client) as source:
            client.post("/v1/devices/events", json={"name": "n", "data": "0"})
            cursor = take(source, 1)[0].cursor
        writers = [
            threading.Thread(target=publish, args=(live, token, 1 + part * COUNT // 4, COUNT // 4)) for part in range(4)
        ]
        for writer in writers:
            writer.start()
        seen: list[str] = []
        cuts = 0
        while len(seen) < COUNT:
            stop_at = len(seen) + dice.randint(1, 150)
            with stream(client, Last_Event_ID=cursor) as source:
                for event in source:
                    seen.append(event.data)
                    cursor = event.cursor
                    if len(seen) in (stop_at, COUNT):
                        break
            cuts += 1
        for writer in writers:
            writer.join()
    assert sorted(seen, key=int) == [str(number) for number in range(1, COUNT + 1)]
    assert cuts > 10


def test_the_query_resumes_too_and_the_header_wins(live: Cloud) -> None:
    with live.client(live.user("ann")) as client:
        with stream(client) as source:
            for number in range(3):
                client.post("/v1/devices/events", json={"name": "n", "data": str(number)})
            first, second, _ = take(source, 3)
        with stream(client, f"/v1/devices/events?last_event_id={first.cursor}") as source:
            assert [event.data for event in take(source, 2)] == ["1", "2"]
            assert int(source.response.headers["Wirechamber-Stream-Start"]) == int(first.cursor) + 1
        with stream(client, f"/v1/devices/events?last_event_id={first.cursor}", Last_Event_ID=second.cursor) as source:
            assert take(source, 1)[0].data == "2"


@pytest.mark.parametrize("text", ["abc", "-1", "1.5", "99999999999999999999999", "0x10"])
def test_a_last_event_id_that_is_no_cursor_is_refused(live_shared: tuple[Cloud, str], text: str) -> None:
    cloud, token = live_shared
    with cloud.client(token) as client:
        answer = client.get("/v1/devices/events", headers={"Last-Event-ID": text})
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_stream_after_a_restart_goes_on_where_it_was(live: Cloud) -> None:
    token = live.user("ann")
    with live.client(token) as client:
        with stream(client) as source:
            client.post("/v1/devices/events", json={"name": "n", "data": "before"})
            cursor = take(source, 1)[0].cursor
        client.post("/v1/devices/events", json={"name": "n", "data": "between"})
    live.kill()
    live.start()
    with live.client(token) as client:
        client.post("/v1/devices/events", json={"name": "n", "data": "after"})
        with stream(client, Last_Event_ID=cursor) as source:
            assert [event.data for event in take(source, 2)] == ["between", "after"]


def test_shutdown_ends_a_stream_properly(live: Cloud) -> None:
    with live.client(live.user("ann")) as client, stream(client) as source:
        threading.Thread(target=live.stop).start()
        # A stream cut without its last chunk would raise RemoteProtocolError here.
        assert list(source.response.iter_raw()) is not None
    assert live.process is not None


def test_a_token_that_is_revoked_ends_its_stream(tmp_path, target) -> None:  # type: ignore[no-untyped-def]
    from tests.cloud import cloud

    with cloud(tmp_path / "data", keep_alive="0.2") as live:
        token = live.user("ann")
        with live.client(token) as client, stream(client) as source:
            client.delete("/v1/access_tokens/current")
            try:
                list(source.response.iter_raw())
            except httpx.RemoteProtocolError as problem:
                raise AssertionError("the stream was cut, not ended") from problem
