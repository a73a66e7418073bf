"""`wirechamber demo`: what `make demo` runs. Each step is shown as it really happens."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx

from tests.cloud import eventually


def environment(folder: Path) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WIRECHAMBER_", "DEMO_"))}
    return clean | {
        "WIRECHAMBER_DATA": str(folder), "WIRECHAMBER_HTTP_PORT": "0", "WIRECHAMBER_UDP_PORT": "0",
        "WIRECHAMBER_DISK_FLOOR_MB": "0",
        "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        number = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "wirechamber", "demo", "--exit"],
            env=environment(tmp_path / "data") | {"WIRECHAMBER_UDP_PORT": number, "WIRECHAMBER_UDP_HOST": "127.0.0.1"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 5
    assert f"UDP port {number} is another program's" in done.stderr
    assert "fault of ours" not in done.stderr


def test_the_steps_happen_and_can_be_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    passwords = set()
    for round_ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "wirechamber", "demo"], env=environment(folder) | {"DEMO_EXIT": "1"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        file = folder / "demo-password"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        password = file.read_text().strip()
        passwords.add(password)
        # On a terminal only.
        assert password not in done.stdout + done.stderr
        positions = [int(found) for found in re.findall(r"position (\d+)", done.stdout)]
        assert len(positions) >= 3
        assert positions == sorted(positions)
        for shown in ("http://127.0.0.1:", "temperature", "hook-response", "200"):
            assert shown in done.stdout, f"{shown} in round {round_}"
        # The device's publishes are counted and compared; the second time there is no handshake.
        assert len(re.findall(r"on the wire +113 bytes up, 61 down, 2 datagrams", done.stdout)) == 3
        assert len(re.findall(r"at the device +hook-response/temperature/kitchen/0 data", done.stdout)) == 3
        times = re.search(r"([0-9]+) times as much; over one that is kept open [0-9,]+, ([0-9.]+) times", done.stdout)
        assert times is not None
        assert 23 <= int(times[1]) <= 25
        assert 2.8 <= float(times[2]) <= 3.2
        assert ("no handshake" in done.stdout) is (round_ == 1)
        for name in ("demo-device.pem", "demo-device.session"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    # Made on the first start, used again on the next.
    assert len(passwords) == 1


def test_it_stays_up_says_how_to_go_on_and_ends_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "wirechamber", "demo"], env=environment(tmp_path / "data"), stdout=log, stderr=log
        )
    try:
        text = eventually(
            lambda: (said := out.read_text()) and ("Ctrl-C" in said or process.poll() is not None) and said, 60
        )
        assert process.poll() is None, text
        found = re.search(r"http://127\.0\.0\.1:\d+", text)
        assert found is not None
        assert httpx.get(found.group() + "/healthz").json()["ok"] is True
        for shown in ("particle", "demo"):
            assert shown in text
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
