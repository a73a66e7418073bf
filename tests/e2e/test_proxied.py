"""A whole cloud behind a proxy: its trouble passes, and its password is nowhere to be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cloud import Cloud, Target, cloud, eventually
from tests.sse import stream, take
from tests.standins.proxy import ForwardProxy

PASSWORD = "s3cretpass/word"
QUOTED = "s3cretpass%2Fword"


@pytest.fixture
def proxy() -> ForwardProxy:
    return ForwardProxy(f"me:{PASSWORD}")


def test_a_delivery_waits_for_the_proxy_and_nobody_sees_its_password(tmp_path: Path, proxy: ForwardProxy) -> None:
    url = f"http://me:{QUOTED}@127.0.0.1:{proxy.port}"
    settings = {"outbound_proxy": url, "retry_schedule": "0,0.2,0.2,0.2,0.2,0.2", "answer_deadline": "0.1"}
    with proxy, Target() as target, cloud(tmp_path / "data", **settings) as live:
        client = live.client(live.user("ann"))
        made = client.post("/v1/integrations", json={"event": "temp", "url": f"{target.url}/in"}).json()["id"]
        proxy.wanted = "somebody else"
        with stream(client, "/v1/devices/events/hook-") as source:
            assert client.post("/v1/devices/events", json={"name": "temp", "data": "1"}).status_code == 200
            (told,) = take(source, 1)
            assert told.name == "hook-error/temp/0"
            assert "the operator's proxy has trouble: it answered 407" in told.data
            proxy.wanted = ""
            eventually(lambda: len(target.requests) == 1)
        tested = client.post(f"/v1/integrations/{made}/test", json={}).text
        shown = client.get(f"/v1/integrations/{made}").text
        logs = client.get(f"/v1/integrations/{made}/logs").text
        metrics = client.get("/metrics").text
        assert 'wirechamber_outbound_incidents_total{what="proxy"}' in metrics
        assert live.stop() == 0
        everything = tested + shown + logs + metrics + told.data + live.log_file.read_text()
        assert "s3cretpass" not in everything
        assert "outbound_proxy_trouble" in live.log_file.read_text()


def test_a_proxy_that_can_not_be_used_stops_the_start(tmp_path: Path) -> None:
    live = Cloud(tmp_path / "data", outbound_proxy=f"http://me:{PASSWORD}@127.0.0.1:1")
    with pytest.raises(AssertionError) as ended:
        live.start()
    assert "setting outbound_proxy (from environment)" in str(ended.value)
    assert "s3cretpass" not in str(ended.value)
