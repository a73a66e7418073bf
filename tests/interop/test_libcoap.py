"""libcoap's client, with OpenSSL and with GnuTLS below it, as a device with a pre-shared key."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cloud import Cloud, cloud, eventually

DEVICE = "0123456789abcdef01234567"
# libcoap's command line takes the key as text.
PSK = "a pre-shared key that is long enough"
CLIENTS = [
    pytest.param(
        name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name}: apt-get install libcoap3-bin")
    )
    for name in ("coap-client-openssl", "coap-client-gnutls")
]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, httpx.Client]]:
    """A cloud that knows the device."""
    folder = tmp_path_factory.mktemp("libcoap")
    with cloud(folder / "data", publish_rate="1000", publish_burst="1000", udp_host="0.0.0.0") as made:
        client = made.client(made.user("alice@example.com"))
        key = folder / "psk.hex"
        key.write_text(PSK.encode().hex() + "\n")
        made.command("device", "add", DEVICE, "--owner", "alice@example.com", "--psk-file", str(key))
        yield made, client


def coap(live: Cloud, name: str, method: str, path: str, *more: str, host: str = "127.0.0.1") -> list[str]:
    """The command that makes a request."""
    url = f"coaps://{host}:{live.udp_port}/{path}"
    return [name, "-m", method, "-u", DEVICE, "-k", PSK, "-v", "6", *more, url]


@pytest.mark.parametrize("name", CLIENTS)
def test_publishing(live: tuple[Cloud, httpx.Client], name: str, tmp_path: Path) -> None:
    made, client = live
    event = f"from/{name}"
    done = subprocess.run(
        coap(made, name, "post", f"E/{event}", "-B", "10", "-e", "21.5"), capture_output=True, text=True, timeout=30
    )
    assert "2.04" in done.stdout + done.stderr, done.stdout + done.stderr
    with client.stream("GET", f"/v1/devices/{DEVICE}/events/{event}?last_event_id=0") as stream:
        found = next(line for line in stream.iter_lines() if line.startswith("data:"))
    assert '"data":"21.5"' in found
    assert f'"coreid":"{DEVICE}"' in found
    assert client.get(f"/v1/devices/{DEVICE}").json()["last_heard"] is not None


@pytest.mark.parametrize("name", CLIENTS)
def test_the_address_that_is_asked_answers(live: tuple[Cloud, httpx.Client], name: str) -> None:
    made, _ = live
    command = coap(made, name, "post", "E/second", "-B", "10", "-e", "1", host="127.0.0.2")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "2.04" in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("name", CLIENTS)
def test_observing(live: tuple[Cloud, httpx.Client], name: str, tmp_path: Path) -> None:
    made, client = live
    out = tmp_path / "out"
    with out.open("w") as output:
        running = subprocess.Popen(
            coap(made, name, "get", f"e/cmd/{name}", "-s", "60", "-B", "60"), stdout=output, stderr=output
        )
    try:

        def told() -> bool:
            client.post("/v1/devices/events", json={"name": f"cmd/{name}/x", "data": "open the door"})
            return "open the door" in out.read_text()

        eventually(told, what=f"the notification ({out.read_text()})")
    finally:
        running.terminate()
        running.wait(10)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_wrong_key(live: tuple[Cloud, httpx.Client], name: str) -> None:
    made, _ = live
    command = coap(made, name, "post", "E/never", "-B", "2", "-e", "1")
    command[command.index(PSK)] = "another pre-shared key of some length"
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "2.04" not in done.stdout + done.stderr
    eventually(lambda: '"reason": "other_key"' in made.log_file.read_text(), what="being told")


@pytest.mark.parametrize("name", CLIENTS)
def test_without_dtls(live: tuple[Cloud, httpx.Client], name: str) -> None:
    made, _ = live
    url = f"coap://127.0.0.1:{made.udp_port}/E/never"
    subprocess.run([name, "-m", "post", "-B", "1", "-e", "1", url], capture_output=True, timeout=30, check=False)
    eventually(lambda: '"reason": "plain_coap"' in made.log_file.read_text(), what="being told")
