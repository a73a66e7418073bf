"""A backup is whole, of one moment and checked; what is brought back begins a new era and loses nothing by mistake."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import Cloud, Target, eventually, running
from tests.faults.test_files_apart import after, noted, publish, refusal
from wirechamber.datafolder.backup import back_up


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Cloud]:
    with running(Cloud(tmp_path / "data")) as cloud:
        yield cloud


def run(cloud: Cloud, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wirechamber", *arguments],
        env=cloud.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.endswith(": done")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_backup_beside_a_running_server_brings_everything_back(made: Cloud, tmp_path: Path, target: Target) -> None:
    token = made.user("ann")
    client = made.client(token)
    hook = {"integration_type": "Webhook", "event": "n/", "url": target.url, "requestType": "POST"}
    assert client.post("/v1/integrations", json=hook).status_code in (200, 201)
    publish(made, token, 10)
    eventually(lambda: len(target.requests) == 10)
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            client.post("/v1/devices/events", json={"name": "meanwhile"})

    publisher = threading.Thread(target=go_on)
    publisher.start()
    try:
        done = run(made, "backup", str(tmp_path / "backup"), "--json")
    finally:
        over.set()
        publisher.join()
    assert done.returncode == 0, done.stderr
    assert "copying events.db: done" in done.stderr
    newest = json.loads(done.stdout)["newest"]
    names = {file.name for file in (tmp_path / "backup").iterdir()}
    assert names >= {"manifest.json", "events.db", "state.db", "secret.key", "server-ec.key"}
    assert names.isdisjoint({"server.lock", "run.json", "clock.json", "events.db-wal", "under-way"})
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "backup").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700
    publish(made, token, 5, "lost")
    seen = after(made, token, str(newest), 1)
    assert seen
    noted(made)
    assert "another server runs" in one_line(run(made, "restore", str(tmp_path / "backup")))
    made.stop()

    restored = run(made, "restore", str(tmp_path / "backup"), "--json")
    assert restored.returncode == 0, restored.stderr
    aside = Path(json.loads(restored.stdout)["aside"])
    assert {"events.db", "state.db", "secret.key"} <= {file.name for file in aside.iterdir()}
    made.start()
    delivered = len(target.requests)
    publish(made, token, 1, "new")
    # Who saw what is not there any more is told, and so is who saw nothing of it.
    assert after(made, token, str(newest + 3), 2) == ["wirechamber/gap", "new/0"]
    assert after(made, token, "0", 1) == ["n/0"]
    # The webhook gets what comes, and nothing that was delivered before the backup.
    publish(made, token, 1)
    eventually(lambda: len(target.requests) > delivered)
    assert len(target.requests) == delivered + 1


def test_sessions_of_devices_end_when_a_backup_is_brought_back(made: Cloud, tmp_path: Path) -> None:
    made.user("ann")
    made.stop()
    with sqlite3.connect(made.folder / "state.db") as db:
        db.execute("insert into session (id, deviceos, created_at, state) values ('s', 1, 0, '')")
    db.close()
    made.command("backup", str(tmp_path / "backup"))
    told = json.loads(made.command("restore", str(tmp_path / "backup"), "--json"))
    assert told["forgotten"] == 1
    made.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_what_root_brings_back_belongs_to_the_owner_of_the_folder(made: Cloud, tmp_path: Path) -> None:
    made.user("ann")
    made.command("backup", str(tmp_path / "backup"))
    made.stop()
    os.chown(made.folder, 12_345, 12_345)
    made.command("restore", str(tmp_path / "backup"))
    assert {(made.folder / name).stat().st_uid for name in ("events.db", "state.db", "secret.key")} == {12_345}


def test_an_unclean_folder_is_backed_up_while_no_server_runs(made: Cloud, tmp_path: Path) -> None:
    token = made.user("ann")
    publish(made, token, 3)
    made.kill()
    made.command("backup", str(tmp_path / "backup"))
    shutil.rmtree(made.folder)
    made.command("restore", str(tmp_path / "backup"))
    made.start()
    assert after(made, token, "0", 4) == ["n/0", "n/1", "n/2", "wirechamber/gap"]


def test_a_backup_that_can_not_be_finished_leaves_nothing(made: Cloud, tmp_path: Path) -> None:
    token = made.user("ann")
    for number in range(40):
        made.client(token).post("/v1/devices/events", json={"name": f"n/{number}", "data": "x" * 16_000})
    script = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
sys.argv = ["wirechamber", "backup", sys.argv[1]]
runpy.run_module("wirechamber", run_name="__main__")
"""
    (tmp_path / "to").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "to" / "backup")],
        env=made.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "to").iterdir()) == []
    # The same when it is told to stop.
    process = subprocess.Popen(
        [sys.executable, "-m", "wirechamber", "backup", str(tmp_path / "to" / "backup")],
        env=made.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    eventually(lambda: any((tmp_path / "to").iterdir()) or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    # Told in its last moment, it has a whole backup and still ends by the signal.
    left = [file.name for file in (tmp_path / "to").iterdir()]
    assert left == ["backup"] if process.returncode == 0 else left in ([], ["backup"])
    if left:
        made.stop()
        made.command("restore", str(tmp_path / "to" / "backup"))


def test_what_a_killed_backup_left_is_in_nobodys_way(made: Cloud, tmp_path: Path) -> None:
    made.stop()
    # In a container each process has the same number as the one before.
    left = tmp_path / f".backup.{os.getpid()}"
    left.mkdir()
    (left / "state.db").write_bytes(b"half")
    back_up(made.folder, tmp_path / "backup", lambda what, done: None)
    assert sorted(each.name for each in tmp_path.glob("*backup*")) == ["backup"]


def test_a_backup_that_is_there_is_not_overwritten(made: Cloud, tmp_path: Path) -> None:
    made.user("ann")
    made.command("backup", str(tmp_path / "backup"))
    assert "is there already" in one_line(run(made, "backup", str(tmp_path / "backup")))
    assert "inside the data folder" in one_line(run(made, "backup", str(made.folder / "backup")))


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda backup: (backup / "manifest.json").unlink(), "no backup"),
        (lambda backup: (backup / "secret.key").unlink(), "not whole"),
        (lambda backup: (backup / "events.db").write_bytes(b"x" * 100), "not as it was written"),
        (lambda backup: (backup / "manifest.json").write_text("{"), "can't be read"),
        (lambda backup: _files(backup, {"../escaped": {"bytes": 1, "sha256": ""}}), "not whole"),
    ],
)
def test_a_backup_that_is_not_whole_is_refused_before_anything_is_touched(
    made: Cloud, tmp_path: Path, spoil: Any, what: str
) -> None:
    made.user("ann")
    made.command("backup", str(tmp_path / "backup"))
    made.stop()
    before = sorted(file.name for file in made.folder.iterdir())
    spoil(tmp_path / "backup")
    assert what in one_line(run(made, "restore", str(tmp_path / "backup")))
    assert sorted(file.name for file in made.folder.iterdir()) == before
    made.start()


def _files(backup: Path, more: dict[str, Any]) -> None:
    manifest = json.loads((backup / "manifest.json").read_text())
    manifest["files"] |= more
    (backup / "manifest.json").write_text(json.dumps(manifest))


def test_a_restore_that_was_interrupted_is_told_and_can_be_repeated(made: Cloud, tmp_path: Path) -> None:
    token = made.user("ann")
    publish(made, token, 2)
    made.command("backup", str(tmp_path / "backup"))
    made.stop()
    # As one leaves it that was killed while it moved files.
    (made.folder / "restore.unfinished").touch()
    (made.folder / "events.db").unlink()
    assert "interrupted" in refusal(made)
    made.command("restore", str(tmp_path / "backup"))
    made.start()
    assert after(made, token, "0", 2) == ["n/0", "n/1"]
