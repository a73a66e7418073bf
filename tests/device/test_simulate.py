"""`wirechamber device simulate`, and the fleet behind it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys

import pytest

from tests.cloud import eventually
from tests.device.conftest import Bench, run
from wirechamber.cli import simulate
from wirechamber.device import Device, DeviceError
from wirechamber.device.fleet import Fleet, Latencies


def test_devices_connect_publish_and_are_the_same_ones_in_the_next_run(bench: Bench) -> None:
    port = str(bench.cloud.udp_port)
    ids = []
    for _ in range(2):
        out = bench.cloud.command(
            "device", "simulate", "--owner", "ann", "--count", "8", "--rate", "4", "--duration", "1.5", "--port", port,
            "--subscribe", "other/", "--json",
        )  # fmt: skip
        report = json.loads(out)
        assert report["connected"] == report["devices"] == report["handshakes"] == 8
        assert 16 <= report["published"] <= 8 * 6
        assert report["acknowledged"] + report["refused"] == report["published"]
        assert report["acknowledged"] >= 16
        # Each event 174 bytes; refusals are part of it where there are some.
        assert 174 <= report["bytes_per_event"] < 350
        assert report["ack_ms_p50"] <= report["ack_ms_p99"]
        ids.append(sorted(each["id"] for each in json.loads(bench.cloud.command("device", "list", "--json"))))
    assert len(ids[0]) >= 8
    assert ids[0] == ids[1]
    assert stat.S_IMODE((bench.cloud.folder / "simulated-devices").stat().st_mode) == 0o600


def test_a_cloud_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "REACHED_S", 0.2)
    with socket.socket(type=socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))

        async def scenario() -> None:
            device = Device("0" * 24, psk=b"k" * 16, host="127.0.0.1", port=nobody.getsockname()[1])
            fleet = Fleet([device], rate=1, name="x", data=lambda number, count: "")
            try:
                with pytest.raises(DeviceError, match="no device reached the cloud"):
                    await simulate._opened(fleet)
            finally:
                await fleet.close()

        run(scenario)


def test_it_says_why_events_are_refused(bench: Bench) -> None:
    arguments = ["device", "simulate", "--owner", "ann", "--count", "1", "--rate", "40", "--duration", "1.5"]
    arguments += ["--port", str(bench.cloud.udp_port)]
    out = bench.cloud.command(*arguments)
    assert re.search(r"refused +[1-9]", out)
    reason = "4.29: the device publishes faster than it may"
    assert reason in out
    assert "WIRECHAMBER_PUBLISH_RATE" in out
    report = json.loads(bench.cloud.command(*arguments, "--json"))
    assert report["refusals"] == {reason: report["refused"]}


def test_it_says_whose_devices_they_are_to_be_when_that_is_not_clear(bench: Bench) -> None:
    bench.cloud.user("bob")
    done = subprocess.run(
        [sys.executable, "-m", "wirechamber", "device", "simulate", "--count", "1"],
        env=bench.cloud.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--owner" in done.stderr


def test_progress_is_shown_on_a_terminal_and_ctrl_c_ends_it_with_a_result(bench: Bench) -> None:
    control, terminal = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "wirechamber",
        "device",
        "simulate",
        "--owner",
        "ann",
        "--count",
        "2",
        "--rate",
        "1",
    ]
    process = subprocess.Popen(
        [*command, "--port", str(bench.cloud.udp_port)],
        env=bench.cloud.environment | {"TERM": "xterm"}, stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    seen = b""

    def read() -> str:
        nonlocal seen
        try:
            seen += os.read(control, 65536)
        except OSError:
            # The other end is closed.
            return seen.decode()
        return seen.decode()

    try:
        eventually(lambda: re.search(r"connected\s+2 of 2", read()), what="progress")
        process.send_signal(signal.SIGINT)
        eventually(lambda: process.poll() is not None or not read(), what="the end")
        assert process.wait(20) == 0
    finally:
        os.close(control)
        if process.poll() is None:
            process.kill()
            process.wait()


def test_where_no_cloud_is_a_signal_ends_it_too(bench: Bench) -> None:
    command = [sys.executable, "-m", "wirechamber", "device", "simulate", "--owner", "ann", "--count", "2", "--json"]
    process = subprocess.Popen(
        [*command, "--port", "9"],
        env=bench.cloud.environment, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        # It is up once its handler for signals is, which is when the devices are registered.
        eventually(lambda: catches(process.pid, signal.SIGTERM), what="starting")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert json.loads(out)["connected"] == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def catches(pid: int, number: int) -> bool:
    """Whether a process handles a signal by itself."""
    with open(f"/proc/{pid}/status") as status:
        caught = next(line for line in status if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_latencies_are_told_to_within_5_percent() -> None:
    latencies = Latencies()
    assert latencies.quantile(0.5) is None
    for number in range(1, 1001):
        latencies.add(number / 1000)
    for share in (0.01, 0.5, 0.99):
        assert latencies.quantile(share) == pytest.approx(share, rel=0.06)
    latencies.add(0.0)
    latencies.add(1e9)
    assert latencies.count == 1002
