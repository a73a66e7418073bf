"""Ports for devices that another program has: the cloud goes on, says so, and takes them when they are free."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from tests.cloud import cloud, eventually


def test_it_is_told_that_devices_can_not_connect(tmp_path: Path) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        for taken in (udp, tcp):
            taken.bind(("127.0.0.1", 0))
        tcp.listen()
        ports = udp.getsockname()[1], tcp.getsockname()[1]
        with cloud(tmp_path / "data", udp_port=str(ports[0]), tcp_port=str(ports[1])) as live:
            assert httpx.get(f"{live.url}/healthz").status_code == 200
            ready = httpx.get(f"{live.url}/readyz")
            assert ready.status_code == 503
            for words in (
                "devices can't connect",
                f"UDP port {ports[0]}",
                f"TCP port {ports[1]}",
                "WIRECHAMBER_UDP_PORT",
            ):
                assert words in ready.json()["error_description"]
            environment = {key: value for key, value in os.environ.items() if not key.startswith("WIRECHAMBER_")}
            status = subprocess.run(
                [sys.executable, "-m", "wirechamber", "status", "--url", live.url, "--json"],
                env=environment, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert status.returncode == 5
            assert "devices can't connect" in json.loads(status.stdout)["why"]
            tcp.close()
            only = eventually(
                lambda: "TCP" not in (text := httpx.get(f"{live.url}/readyz").json()["error_description"]) and text
            )
            assert "UDP" in only
            udp.close()
            eventually(lambda: httpx.get(f"{live.url}/readyz").status_code == 200)
