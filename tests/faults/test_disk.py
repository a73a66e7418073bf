"""A disk that is full or read-only, and files that are damaged: one line that says what is wrong, and no traceback."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import Cloud, running
from tests.faults.test_files_apart import after, publish, refusal
from wirechamber import app
from wirechamber.datafolder.files import FolderUnusable
from wirechamber.settings import Settings

SMALL_MB = 24


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of a few megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_MB}m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk can be mounted by root alone, and not everywhere")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Takes all the room there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast


def test_a_start_on_a_full_disk_says_so(small_disk: Path, tmp_path: Path) -> None:
    cloud = Cloud(small_disk / "data")
    cloud.log_file = tmp_path / "log"
    with running(cloud):
        token = cloud.user("ann")
        publish(cloud, token, 3)
        cloud.kill()
        ballast = fill(small_disk)
        assert "full" in refusal(cloud)
        ballast.unlink()
        cloud.start()
        assert after(cloud, token, "0", 3) == ["n/0", "n/1", "n/2"]


def test_a_stop_on_a_full_disk_says_so_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    cloud = Cloud(small_disk / "data")
    cloud.log_file = tmp_path / "log"
    with running(cloud):
        token = cloud.user("ann")
        publish(cloud, token, 3)
        ballast = fill(small_disk)
        client = cloud.client(token)
        while client.post("/v1/devices/events", json={"name": "more", "data": "x" * 4_000}).status_code == 200:
            pass
        status = cloud.stop()
        text = cloud.log_file.read_text()
        assert "Traceback" not in text
        if status:
            assert "full" in text.splitlines()[-1]
        ballast.unlink()
        cloud.start()
        assert after(cloud, token, "0", 3) == ["n/0", "n/1", "n/2"]


def test_a_folder_that_can_not_be_written_is_told(small_disk: Path, tmp_path: Path) -> None:
    cloud = Cloud(small_disk / "data")
    cloud.log_file = tmp_path / "log"
    with running(cloud):
        cloud.stop()
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        assert "can't be written" in refusal(cloud)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_without_the_right_to_write_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    assert "can't be written" in refusal(Cloud(tmp_path / "data"))


@pytest.mark.parametrize("name", ["events.db", "state.db"])
def test_a_damaged_file_is_told(tmp_path: Path, name: str) -> None:
    cloud = Cloud(tmp_path / "data")
    with running(cloud):
        publish(cloud, cloud.user("ann"), 3)
        cloud.stop()
        file = cloud.folder / name
        file.write_bytes(b"no database" * 1_000)
        line = refusal(cloud)
        assert "is damaged" in line
        assert "wirechamber restore" in line


@pytest.mark.parametrize("where", ["secrets.os.fsync", "clock.Timekeeper.tend", "datafolder.check.sync_folder"])
def test_a_disk_that_is_full_in_the_middle_of_a_start_is_told_and_no_half_of_a_key_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def start() -> None:
        settings = Settings(data=str(tmp_path / "data"), http_port=0, udp_host="127.0.0.1", udp_port=0)
        async with app.running(settings):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(f"wirechamber.{where}", full)
        with pytest.raises(FolderUnusable, match="is full; make room"):
            asyncio.run(start())
    if where == "secrets.os.fsync":
        assert not list((tmp_path / "data").glob("secret*"))
    asyncio.run(start())
