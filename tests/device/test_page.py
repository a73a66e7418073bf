"""The page about devices in Python: its first example runs as it stands there, beside the files that it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.cloud import eventually
from tests.device.conftest import Bench

PAGE = Path(__file__).parents[2] / "docs/python-device.md"


def test_the_example_runs(shared_bench: Bench, tmp_path: Path) -> None:
    live = shared_bench.cloud
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    (tmp_path / "device.py").write_text(found[1])
    files = tmp_path / "greenhouse"
    live.command(
        "device", "provision", "--owner", "ann", "--name", "example", "--out", str(files), "--host", "127.0.0.1",
        "--port", str(live.udp_port),
    )  # fmt: skip
    device_id = (files / "device_id").read_text().strip()
    client = live.client(shared_bench.token)
    process = subprocess.Popen([sys.executable, "device.py"], cwd=tmp_path)
    try:
        eventually(lambda: "fan" in client.get(f"/v1/devices/{device_id}").json()["functions"], what="its functions")
        path, headers = f"/v1/devices/{device_id}/events/greenhouse", {"Last-Event-ID": "0"}
        with client.stream("GET", path, headers=headers) as stream:
            line = next(line for line in stream.iter_lines() if line.startswith("data:"))
        assert "21.5" in line
        called = client.post(f"/v1/devices/{device_id}/fan", json={"arg": "7"})
        assert called.json()["return_value"] == 7
    finally:
        process.kill()
        process.wait()
