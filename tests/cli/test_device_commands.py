"""Devices' keys, the server's key and usage, from the command line."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cloud import Cloud, cloud
from tests.gateway.peer import Peer, a_publish
from wirechamber.services.serverkeys import ServerKeys

DEVICE = "0123456789abcdef01234567"


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=True, timeout=60)
    return done.stdout


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A private key, and its public half as PEM and DER: made by OpenSSL."""
    private, pem, der = (tmp_path / name for name in ("private.pem", "public.pem", "public.der"))
    private.write_bytes(openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout"))
    pem.write_bytes(openssl("ec", "-pubout", stdin=private.read_bytes()))
    der.write_bytes(openssl("ec", "-pubout", "-outform", "DER", stdin=private.read_bytes()))
    return private, pem, der


def test_a_device_with_its_key(run: Run, pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    private, pem, der = pair
    run("user", "create", "ann", "--password-stdin", stdin="correct horse\n")
    refused = run("device", "add", DEVICE, "--owner", "ann", "--key", str(private))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "private key" in refused.stderr
    # Nothing was done by halves.
    assert run("device", "show", DEVICE).returncode == 3
    added = run("device", "add", DEVICE, "--owner", "ann", "--key", str(der))
    assert added.returncode == 0, added.stderr
    shown = json.loads(run("device", "keys", DEVICE, "--json").stdout)
    assert shown["public_key"] == pem.read_text()
    assert shown["psk"] is False
    same = run("device", "keys", DEVICE, "--key", str(pem))
    assert "had that key already" in same.stdout
    (tmp_path / "psk").write_text("00112233445566778899aabbccddeeff\n")
    changed = json.loads(run("device", "keys", DEVICE, "--psk-file", str(tmp_path / "psk"), "--json").stdout)
    assert changed == {"ok": True, "id": DEVICE, "changed": True}
    text = run("device", "keys", DEVICE).stdout
    assert "pre-shared key  yes" in text
    assert "00112233" not in text
    assert json.loads(run("device", "show", DEVICE).stdout)["key"] == "both"
    for content in ("", "xyz", "00", "00" * 65):
        (tmp_path / "psk").write_text(content)
        bad = run("device", "keys", DEVICE, "--psk-file", str(tmp_path / "psk"))
        assert (bad.returncode, bad.stdout) == (2, ""), content
    assert run("device", "keys", DEVICE, "--key", str(tmp_path / "nothing")).returncode == 2
    assert run("device", "keys", "f" * 24, "--key", str(der)).returncode == 3


def test_a_device_is_provisioned(run: Run, tmp_path: Path) -> None:
    run("user", "create", "ann", "--password-stdin", stdin="correct horse\n")

    def provision(*arguments: str) -> Any:
        done = run("device", "provision", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    made = provision("--owner", "ann", "--out", str(tmp_path / "one"), "--host", "192.0.2.9")
    assert made["key"] == "public"
    private = (tmp_path / "one" / "device_key.der").read_bytes()
    # device-protocol.md, section 2: the traditional form.
    assert len(private) == 121
    assert stat.S_IMODE((tmp_path / "one" / "device_key.der").stat().st_mode) == 0o600
    keys = json.loads(run("device", "keys", made["id"], "--json").stdout)
    assert keys["public_key"].encode() == openssl("ec", "-inform", "DER", "-pubout", stdin=private)
    block = (tmp_path / "one" / "server_key.der").read_bytes()
    assert block == ServerKeys(tmp_path / "data").for_device("192.0.2.9", 5684)
    assert (tmp_path / "one" / "device_id").read_text().strip() == made["id"]
    # Nothing is written over.
    again = run("device", "provision", made["id"], "--out", str(tmp_path / "one"))
    assert again.returncode == 1
    assert "there already" in again.stderr
    assert json.loads(run("device", "keys", made["id"], "--json").stdout) == keys
    old = provision(DEVICE, "--tcp", "--out", str(tmp_path / "tcp"), "--host", "cloud.example.com")
    assert old["id"] == DEVICE
    assert len((tmp_path / "tcp" / "server_key.der").read_bytes()) == 512
    openssl("rsa", "-inform", "DER", "-check", stdin=(tmp_path / "tcp" / "device_key.der").read_bytes())
    shared = provision("--psk", "--out", str(tmp_path / "psk"))
    assert shared["key"] == "psk"
    assert len(bytes.fromhex((tmp_path / "psk" / "device.psk").read_text())) == 32
    assert run("device", "provision", "--psk", "--tcp", "--out", str(tmp_path / "x")).returncode == 2
    for host in ("300.1.2.3", "cloud.example.com:5684", "::1"):
        refused = run("device", "provision", "--out", str(tmp_path / "x"), "--host", host)
        assert refused.returncode == 2, host
        assert host in refused.stderr
        refused = run("server", "key", "--for-device", str(tmp_path / "x"), "--host", host)
        assert refused.returncode == 2, host
        assert not (tmp_path / "x").exists()
    set_wrong = run("server", "key", WIRECHAMBER_DEVICE_HOST="300.1.2.3")
    assert "device_host" in set_wrong.stderr
    assert run("device", "provision", "--out", str(tmp_path / "x"), "--host", "h", "--port", "0").returncode == 2


def test_a_key_that_no_shell_can_pass_on_is_told(run: Run, tmp_path: Path) -> None:
    for name, key, told in (("zero", b"\0" + bytes(range(1, 32)), True), ("good", bytes(range(1, 33)), False)):
        (tmp_path / name).write_text(key.hex())
        done = run("device", "add", key.hex()[:24], "--psk-file", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        assert ("zero byte" in done.stderr) is told


def test_a_device_is_told_the_port_of_the_server_that_runs(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", device_host="cloud.example.com") as made:
        # As in another shell, which has not got the server's settings.
        environment = {key: value for key, value in made.environment.items() if "WIRECHAMBER_" not in key}
        environment["WIRECHAMBER_DATA"] = str(made.folder)

        def provision(out: str, *more: str) -> bytes:
            done = subprocess.run(
                [sys.executable, "-m", "wirechamber", "device", "provision", "--out", str(tmp_path / out), *more],
                env=environment, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return (tmp_path / out / "server_key.der").read_bytes()

        keys = ServerKeys(made.folder)
        assert provision("one") == keys.for_device("cloud.example.com", made.udp_port)
        assert provision("two", "--host", "h", "--port", "7") == keys.for_device("h", 7)
        made.kill()
        # What it noted says nothing any more.
        assert provision("three", "--host", "h") == keys.for_device("h", 5684)


def test_the_servers_key_without_a_server(run: Run, tmp_path: Path) -> None:
    first = run("server", "key")
    assert first.returncode == 0, first.stderr
    pem = first.stdout
    out, block = tmp_path / "server.der", tmp_path / "block.der"
    done = run("server", "key", "--out", str(out), "--for-device", str(block), "--host", "192.0.2.1", "--port", "5000")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert openssl("ec", "-pubin", "-inform", "DER", "-pubout", stdin=out.read_bytes()).decode() == pem
    assert len(block.read_bytes()) == 192 + 128
    assert block.read_bytes()[:91] == out.read_bytes()
    assert block.read_bytes()[258:260] == (5000).to_bytes(2, "big")
    tcp = run(
        "server", "key", "--tcp", "--out", str(out), "--for-device", str(block), WIRECHAMBER_DEVICE_HOST="c.example"
    )
    assert tcp.returncode == 0, tcp.stderr
    assert len(out.read_bytes()) == 294
    assert len(block.read_bytes()) == 384 + 128
    assert block.read_bytes()[450:452] == (5683).to_bytes(2, "big")
    without = run("server", "key", "--for-device", str(block))
    assert without.returncode == 2
    assert "--host" in without.stderr
    v6 = run("server", "key", "--for-device", str(block), "--host", "::1")
    assert v6.returncode == 2
    nowhere = run("server", "key", "--out", str(tmp_path / "no" / "folder"))
    assert nowhere.returncode == 1
    assert "no/folder" in nowhere.stderr


def test_the_servers_key_beside_a_server(live: Cloud, tmp_path: Path) -> None:
    live.command("server", "key", "--out", str(tmp_path / "der"))
    assert (tmp_path / "der").read_bytes() == ServerKeys(live.folder).public()
    live.command("server", "key", "--tcp", "--out", str(tmp_path / "tcp.der"))
    assert (tmp_path / "tcp.der").read_bytes() == ServerKeys(live.folder).public(tcp=True)


def test_sessions_are_forgotten(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", provisioning="true") as made:
        peer = Peer.of(made, DEVICE).start()
        done = subprocess.run(
            [sys.executable, "-m", "wirechamber", "server", "forget-sessions"],
            env=made.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert "another server runs" in done.stderr
        made.stop()
        assert "1 sessions" in made.command("server", "forget-sessions")
        assert "0 sessions" in made.command("server", "forget-sessions")
        made.start()
        peer.send(a_publish("temp", b"1", peer.next_id()))
        assert peer.silent()
        # A new handshake, with the same key.
        again = Peer.of(made, DEVICE, key=peer.key).start()
        again.publish("temp", b"1")
        for each in (peer, again):
            each.close()


def test_usage_of_nobody(run: Run) -> None:
    run("user", "create", "ann", "--password-stdin", stdin="correct horse\n")
    assert "no device used anything" in run("usage").stdout
    assert json.loads(run("usage", "--json").stdout) == []
    run("device", "add", DEVICE, "--owner", "ann")
    assert "used nothing" in run("usage", DEVICE).stdout
    assert run("usage", "f" * 24).returncode == 3
    assert run("usage", "--since", "yesterday").returncode == 2
    assert run("usage", "--since", "2027-01-01", "--until", "2026-01-01").returncode == 2
