"""Microsoft's own SDKs at our stand-in of IoT Hub: it is not merely what our client expects.

They can't be given another port than 443, so they and the stand-in run in a network namespace of their own; and the
one for Python lives in an environment of its own, which `make test` makes (external-services.md, section 3.2).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("WIRECHAMBER_TEST_AZURE_PYTHON", Path(sys.prefix) / "azure" / "bin" / "python"))
NODE = Path(sys.executable).parent / "node"
MODULES = Path(__file__).parent / "node_modules" / "azure-iot-device-http"
NAMESPACE = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


def namespaces() -> bool:
    try:
        done = subprocess.run([*NAMESPACE, "true"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@pytest.mark.node
@pytest.mark.skipif(
    not PYTHON.exists() or not MODULES.exists(), reason="Microsoft's SDKs are not installed; `make test` installs them"
)
@pytest.mark.skipif(not namespaces(), reason="this machine allows no network namespace (unshare --net)")
def test_microsofts_sdk_and_ours_find_the_same_hub(tmp_path: Path) -> None:
    program = Path(__file__).parent / "azure" / "namespace.py"
    done = subprocess.run(
        [*NAMESPACE, sys.executable, str(program), str(PYTHON), str(NODE), str(tmp_path)],
        capture_output=True, text=True, timeout=100, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    (device, headers, body), (their_device, their_headers, their_body) = said.pop("messages")
    assert said.pop("node") == {
        "sent": "MessageEnqueued",
        "wrong": "UnauthorizedError: Could not send message: Unauthorized",
    }
    assert said == {
        "unknown": 404, "read_only_creates": 401, "wrong_key": 401,
        "made": ["0123456789abcdef01234567", "enabled", True], "made_twice": 409,
        "read": "0123456789abcdef01234567", "read_only_reads": 200, "name": "lamp", "read_only_names": 401,
        "ours": "ours", "removed": 404,
    }  # fmt: skip
    assert (device, body["data"], headers["iothub-contenttype"]) == ("ours", "1", "application/json")
    # Both devices say the same in the same headers.
    assert (their_device, their_body) == ("ours", {"data": "theirs"})
    for name in ("iothub-contenttype", "iothub-contentencoding"):
        assert their_headers[name] == headers[name]
    assert {"iothub-messageid", "iothub-app-event", "iothub-to"} <= set(headers) & set(their_headers)
    assert their_headers["iothub-to"] == headers["iothub-to"]
