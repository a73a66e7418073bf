"""Where nothing happens, nothing is done: after a crash, and behind the tail of somebody else's events."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cloud import Cloud, Target, cloud, eventually
from tests.sse import stream, take

TICKS = os.sysconf("SC_CLK_TCK")
WINDOW_S = 1.0


def _cpu_seconds(live: Cloud) -> float:
    assert live.process is not None
    fields = Path(f"/proc/{live.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _share(live: Cloud) -> float:
    began, used = time.monotonic(), _cpu_seconds(live)
    threading.Event().wait(WINDOW_S)
    return (_cpu_seconds(live) - used) / (time.monotonic() - began)


def _comes_to_rest(live: Cloud) -> None:
    # What goes round in circles never does, however little of a core it gets.
    eventually(lambda: _share(live) < 0.05, what="rest")


@contextmanager
def _quiet_and_loud(folder: Path) -> Iterator[tuple[Cloud, str, str]]:
    with cloud(folder, retry_schedule="0") as live:
        yield live, live.user("quiet"), live.user("loud")


def test_an_idle_cloud_is_idle_after_a_crash(tmp_path: Path, target: Target) -> None:
    with _quiet_and_loud(tmp_path / "data") as (live, token, loud), ExitStack() as stack:
        client = live.client(token)
        client.post("/v1/webhooks", json={"event": "n", "url": target.url})
        assert client.post("/v1/devices/events", json={"name": "n1"}).status_code == 200
        with stream(client, "/v1/devices/events?last_event_id=0") as source:
            (first,) = take(source, 1)
        live.client(loud).post("/v1/devices/events", json={"name": "other"})
        eventually(lambda: len(target.requests) == 1, what="the webhook")
        live.kill()
        live.start()
        _comes_to_rest(live)
        path = "/v1/devices/events/n"
        sources = [stack.enter_context(stream(client, path, Last_Event_ID=first.cursor)) for _ in range(5)]
        _comes_to_rest(live)
        assert client.post("/v1/devices/events", json={"name": "n2"}).status_code == 200
        assert [[seen.name for seen in take(source, 1)] for source in sources] == [["n2"]] * 5
        eventually(lambda: len(target.requests) == 2, what="the webhook")


def test_a_quiet_owner_who_resumes_behind_others_events_costs_nothing(tmp_path: Path) -> None:
    with _quiet_and_loud(tmp_path / "data") as (live, token, loud), ExitStack() as stack:
        client = live.client(token)
        client.post("/v1/devices/events", json={"name": "n1"})
        with stream(client, "/v1/devices/events?last_event_id=0") as source:
            (first,) = take(source, 1)
        live.client(loud).post("/v1/devices/events", json={"name": "other"})
        # The tail in memory begins anew, beyond both.
        assert live.stop() == 0
        live.start()
        client = live.client(token)
        paths = ["/v1/devices/events", "/v1/devices/events/rare", "/v1/events/n"]
        sources = [stack.enter_context(stream(client, path, Last_Event_ID=first.cursor)) for path in paths * 5]
        _comes_to_rest(live)
        client.post("/v1/devices/events", json={"name": "nrare"})
        client.post("/v1/devices/events", json={"name": "rare"})
        names = [[seen.name for seen in take(source, 1)] for source in sources]
        assert names == [["nrare"], ["rare"], ["nrare"]] * 5
