"""The keys by which devices know a cloud: made once, by whoever comes first, and in the form that devices take."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wirechamber.errors import BadInput
from wirechamber.secrets import SecretsUnreadable
from wirechamber.services.serverkeys import EC_FILE, RSA_FILE, ServerKeys, address_block


def test_a_key_is_made_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(lambda _: ServerKeys(tmp_path).public(), range(16)))
    assert len(made) == 1
    assert [file.name for file in tmp_path.iterdir()] == [EC_FILE]
    assert stat.S_IMODE((tmp_path / EC_FILE).stat().st_mode) == 0o600
    (public,) = made
    # device-protocol.md, section 2.
    assert len(public) == 91
    tcp = ServerKeys(tmp_path).public(tcp=True)
    assert len(tcp) == 294
    # The modulus is read at 33 (device-protocol.md, section 5.1).
    assert tcp[33:289] == ServerKeys(tmp_path).rsa().public_key().public_numbers().n.to_bytes(256, "big")
    assert stat.S_IMODE((tmp_path / RSA_FILE).stat().st_mode) == 0o600


def test_a_damaged_or_open_key_is_told(tmp_path: Path) -> None:
    keys = ServerKeys(tmp_path)
    keys.ec()
    (tmp_path / EC_FILE).chmod(0o644)
    with pytest.raises(SecretsUnreadable, match="chmod 600"):
        keys.ec()
    (tmp_path / EC_FILE).chmod(0o600)
    keys.rsa()
    (tmp_path / EC_FILE).write_bytes((tmp_path / RSA_FILE).read_bytes())
    with pytest.raises(SecretsUnreadable, match="damaged"):
        keys.ec()
    (tmp_path / RSA_FILE).write_bytes(b"nothing")
    with pytest.raises(SecretsUnreadable, match="damaged"):
        keys.rsa()


def test_the_block_that_a_device_takes(tmp_path: Path) -> None:
    keys = ServerKeys(tmp_path)
    udp = keys.for_device("192.0.2.1", 5684)
    assert len(udp) == 192 + 128
    assert udp[:91] == keys.public()
    assert set(udp[91:192]) == {0xFF}
    assert udp[192:198] == bytes((0, 4, 192, 0, 2, 1))
    assert udp[258:260] == (5684).to_bytes(2, "big")
    assert set(udp[198:258]) == set(udp[260:]) == {0xFF}
    tcp = keys.for_device("cloud.example.com", 5683, tcp=True)
    assert len(tcp) == 384 + 128
    assert tcp[:294] == keys.public(tcp=True)
    assert tcp[384:403] == b"\x01\x11cloud.example.com"
    assert tcp[450:452] == (5683).to_bytes(2, "big")


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("", 5684), ("::1", 5684), ("0.0.0.0", 5684), ("255.255.255.255", 5684), ("x" * 65, 5684), ("a b", 5684),
        ("a\nb", 5684), ("host", 0), ("host", 65535), ("host", -1), ("é" * 70, 5684),
        ("300.1.2.3", 5684), ("1.2.3", 5684), ("224.0.0.1", 5684), ("host:5684", 5684), ("https://host", 5684),
        ("-host", 5684), ("a..b", 5684),
    ],
)  # fmt: skip
def test_an_address_that_no_device_takes(host: str, port: int) -> None:
    with pytest.raises(BadInput):
        address_block(host, port)


def test_names_beyond_ascii() -> None:
    assert address_block("bücher.example", 5684)[:2] == bytes((1, len(b"xn--bcher-kva.example")))
