"""Files of a data folder that do not belong together: refused with the way out, or positions jump."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cloud import Cloud, eventually, running
from tests.sse import stream, take
from wirechamber.services.serverkeys import ServerKeys


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Cloud]:
    with running(Cloud(tmp_path / "data")) as cloud:
        yield cloud


def publish(cloud: Cloud, token: str, count: int, name: str = "n") -> None:
    client = cloud.client(token)
    for number in range(count):
        assert client.post("/v1/devices/events", json={"name": f"{name}/{number}"}).status_code == 200


def after(cloud: Cloud, token: str, position: str, count: int) -> list[str]:
    """The names of what a stream gets that goes on after a position."""
    with stream(cloud.client(token), last_event_id=position) as source:
        return [each.name for each in take(source, count)]


def noted(cloud: Cloud) -> None:
    """Returns when the state knows how far the log has come."""

    def look() -> bool:
        with sqlite3.connect(cloud.folder / "events.db") as log, sqlite3.connect(cloud.folder / "state.db") as state:
            (newest,) = log.execute("select max(position) from event").fetchone()
            (known,) = state.execute("select max(cast(cursor as integer)) from reader").fetchone()
        log.close()
        state.close()
        return bool(known == newest)

    eventually(look, what="noting the position")


def refusal(cloud: Cloud) -> str:
    """The one line with which a server refuses to start."""
    done = subprocess.run(
        [sys.executable, "-m", "wirechamber", "serve"],
        env=cloud.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def gone_on(cloud: Cloud) -> None:
    """An operator goes on with what is there."""
    cloud.command("server", "new-era", "--yes")
    cloud.start()


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_a_log_that_is_older_than_the_state_is_refused(made: Cloud, tmp_path: Path) -> None:
    token = made.user("ann")
    publish(made, token, 3)
    made.stop()
    old = (made.folder / "events.db").read_bytes()
    made.start()
    publish(made, token, 5, "later")
    noted(made)
    made.stop()
    (made.folder / "events.db").write_bytes(old)
    line = refusal(made)
    assert "ends at position 3" in line
    assert "wirechamber restore" in line
    # What the refused start left can still be mended: by going on without the end.
    gone_on(made)
    assert after(made, token, "6", 1) == ["wirechamber/gap"]
    assert after(made, token, "1", 3) == ["n/1", "n/2", "wirechamber/gap"]
    publish(made, token, 1, "new")


def test_a_log_that_was_lost_is_refused(made: Cloud) -> None:
    token = made.user("ann")
    publish(made, token, 3)
    noted(made)
    made.kill()
    for file in made.folder.glob("events.db*"):
        file.unlink()
    assert "events.db is missing" in refusal(made)
    assert not (made.folder / "events.db").exists()
    gone_on(made)
    publish(made, token, 1)


def test_a_log_whose_end_was_damaged_is_refused(made: Cloud) -> None:
    token = made.user("ann")
    publish(made, token, 100)
    noted(made)
    made.kill()
    wal = made.folder / "events.db-wal"
    data = bytearray(wal.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(255 - each for each in data[middle : middle + 64])
    wal.write_bytes(data)
    assert "lost its end" in refusal(made)


def test_a_log_that_is_removed_under_a_server_takes_nothing_more(made: Cloud) -> None:
    token = made.user("ann")
    publish(made, token, 3)
    (made.folder / "events.db").unlink()
    client = made.client(token)
    answer = eventually(
        lambda: (got := client.post("/v1/devices/events", json={"name": "x"})).status_code == 503 and got,
        what="refusing to publish",
    )
    assert "removed or replaced" in answer.json()["error_description"]
    assert client.get("/readyz").status_code == 503
    assert "append_failed" in made.log_file.read_text()
    made.stop()
    assert "events.db is missing" in refusal(made)


def test_a_state_that_is_missing_beside_a_log_is_refused(made: Cloud) -> None:
    publish(made, made.user("ann"), 3)
    made.stop()
    (made.folder / "state.db").unlink()
    assert "state.db is missing" in refusal(made)
    # A command that makes an empty one does not hide that.
    made.user("bob")
    assert "knows nothing" in refusal(made)
    gone_on(made)
    publish(made, made.user("ann"), 1)


def test_a_state_that_is_older_than_it_was_is_refused(made: Cloud) -> None:
    token = made.user("ann")
    publish(made, token, 3)
    made.stop()
    old = (made.folder / "state.db").read_bytes()
    made.start()
    publish(made, token, 5)
    noted(made)
    made.stop()
    (made.folder / "state.db").write_bytes(old)
    assert "older copy" in refusal(made)
    gone_on(made)
    publish(made, token, 1)


@pytest.mark.parametrize("beside", ["nothing", "wal"])
def test_a_pair_of_an_earlier_run_is_refused_though_the_server_was_killed(
    made: Cloud, tmp_path: Path, beside: str
) -> None:
    token = made.user("ann")
    publish(made, token, 3)
    made.stop()
    copy = copy_of(made.folder, tmp_path / "copy")
    made.start()
    publish(made, token, 5, "later")
    noted(made)
    made.kill()
    # In place, so that neither inodes nor what the files say of each other tells it.
    for name in ("events.db", "state.db"):
        (made.folder / name).write_bytes((copy / name).read_bytes())
    wals = list(made.folder.glob("*-wal")) + list(made.folder.glob("*-shm"))
    if beside == "wal":
        line = refusal(made)
        assert "another copy than the one that events.db-wal belongs to" in line
        assert (made.folder / "events.db").read_bytes() == (copy / "events.db").read_bytes()
    for file in wals:
        file.unlink()
    assert "older copy" in refusal(made)
    gone_on(made)
    assert after(made, token, "5", 1) == ["wirechamber/gap"]


def test_a_state_that_lost_its_end_is_refused(made: Cloud) -> None:
    token = made.user("ann")
    made.user("bob")
    publish(made, token, 3)

    def noted_both() -> bool:
        with sqlite3.connect(made.folder / "state.db") as db:
            (revision,) = db.execute("select value from revision").fetchone()
        db.close()
        left = json.loads((made.folder / "run.json").read_bytes())
        return bool((left["known"], left["revision"]) == (3, revision))

    eventually(noted_both)
    made.kill()
    (made.folder / "state.db-wal").unlink()
    assert "lost its end" in refusal(made)
    gone_on(made)


def test_a_file_that_is_put_back_under_a_server_is_not_taken_for_what_it_left(made: Cloud, tmp_path: Path) -> None:
    token = made.user("ann")
    publish(made, token, 3)
    made.stop()
    copy = copy_of(made.folder, tmp_path / "copy")
    made.start()
    publish(made, token, 5)
    for name in ("events.db", "state.db"):
        for end in ("", "-wal", "-shm"):
            (made.folder / f"{name}{end}").unlink(missing_ok=True)
        shutil.copy(copy / name, made.folder / name)
    made.stop()
    assert "older copy" in refusal(made)


@pytest.mark.parametrize("name", ["server-ec.key", "secret.key"])
def test_a_key_that_is_missing_is_refused(made: Cloud, name: str) -> None:
    made.user("ann")
    made.stop()
    key = (made.folder / name).read_bytes()
    (made.folder / name).unlink()
    assert name in refusal(made)
    assert not (made.folder / name).exists()
    (made.folder / name).write_bytes(key)
    (made.folder / name).chmod(0o600)
    made.start()


def test_another_key_is_refused_until_an_operator_goes_on_with_it(made: Cloud) -> None:
    made.user("ann")
    made.stop()
    (made.folder / "server-ec.key").unlink()
    # No command makes another one in silence.
    told = subprocess.run(
        [sys.executable, "-m", "wirechamber", "server", "key"],
        env=made.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (1, "")
    assert "server-ec.key is missing" in told.stderr
    ServerKeys(made.folder).ec()
    assert "another key" in refusal(made)
    gone_on(made)


def _whole(copy: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)


def _is_after(second: int) -> bool:
    return time.time() >= second + 1


def _in_place(copy: Path, folder: Path) -> None:
    for file in copy.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
        os.utime(folder / file.name, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))


@pytest.mark.parametrize("put_back", [_whole, _in_place])
def test_no_position_is_given_twice_when_a_cold_copy_is_put_back(
    made: Cloud, tmp_path: Path, put_back: Callable[[Path, Path], None]
) -> None:
    token = made.user("ann")
    publish(made, token, 3)
    made.stop()
    copy = copy_of(made.folder, tmp_path / "copy")
    made.start()
    publish(made, token, 5)
    made.stop()
    put_back(copy, made.folder)
    made.start()
    publish(made, token, 1, "new")

    # Who saw what is not there any more is told, and nobody misses what comes.
    assert after(made, token, "7", 2) == ["wirechamber/gap", "new/0"]
    assert after(made, token, "3", 1) == ["new/0"]


@pytest.mark.parametrize("put_back", [_whole, _in_place])
def test_no_position_or_record_number_is_given_twice_when_the_same_copy_is_put_back_twice(
    made: Cloud, tmp_path: Path, put_back: Callable[[Path, Path], None]
) -> None:
    token = made.user("ann")
    publish(made, token, 3)
    made.stop()
    with sqlite3.connect(made.folder / "state.db") as db:
        db.execute("insert into session (id, deviceos, created_at, state) values ('s', 1, 0, '')")
        db.execute("insert into progress (session, send_limit, top, mids, address) values ('s', 70000, 0, '', '')")
    db.close()
    copy = copy_of(made.folder, tmp_path / "copy")
    given: list[int] = []
    limits = [70_000]
    put_back_at = 0
    for number in range(2):
        # Told apart by the time, in seconds.
        eventually(partial(_is_after, put_back_at))
        put_back_at = int(time.time())
        put_back(copy, made.folder)
        made.start()
        publish(made, token, 5, f"time-{number}")
        made.stop()
        with sqlite3.connect(made.folder / "events.db") as db:
            given += [row[0] for row in db.execute("select position from event where name like 'time-%' order by 1")]
        db.close()
        with sqlite3.connect(made.folder / "state.db") as db:
            limits.append(db.execute("select send_limit from progress").fetchone()[0])
        db.close()
    assert given == sorted(set(given))
    assert limits[1] > limits[0] + 10_000
    assert limits[2] > limits[1] + 10_000
    # Message ids are the lowest 16 bits.
    assert limits[1] % 65_536 == (70_000 + 32_768) % 65_536
    made.start()
    assert after(made, token, str(given[4]), 1) == ["wirechamber/gap"]


def test_an_ordinary_restart_leaves_positions_and_sessions_alone(made: Cloud) -> None:
    token = made.user("ann")
    publish(made, token, 3)
    made.stop()
    made.user("bob")
    made.command("backup", str(made.folder.parent / "backup"))
    made.start()
    publish(made, token, 1)
    with sqlite3.connect(made.folder / "events.db") as db:
        assert db.execute("select max(position) from event").fetchone() == (4,)
    db.close()
    assert "folder_copied" not in made.log_file.read_text()
