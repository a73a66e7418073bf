"""Many devices at once, from a file."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run

COUNT = 4_500


def test_many_devices_from_a_file(run: Run, tmp_path: Path) -> None:
    run("user", "create", "ann", "--password-stdin", stdin="correct horse\n")
    file = tmp_path / "devices.csv"
    file.write_text("id,name\r\n" + "".join(f"{n:024x},lamp-{n}\r\n" for n in range(COUNT)), encoding="utf-8-sig")
    done = run("device", "import", str(file), "--owner", "ann")
    assert (done.returncode, done.stdout) == (0, f"{COUNT} devices were added\n"), done.stderr
    # A second time does no harm, and adds what is new.
    with file.open("a") as more:
        more.write(f"{COUNT:024x},lamp-{COUNT}\n")
    again = run("device", "import", str(file), "--owner", "ann", "--json")
    assert json.loads(again.stdout) == {"ok": True, "added": 1, "known": COUNT}
    shown = json.loads(run("device", "show", f"{COUNT:024x}").stdout)
    assert shown["name"] == f"lamp-{COUNT}"


def test_nothing_is_added_when_a_line_is_wrong(run: Run, tmp_path: Path) -> None:
    run("user", "create", "ann", "--password-stdin", stdin="correct horse\n")
    file = tmp_path / "devices.csv"
    file.write_text("id\n" + "".join(f"{n:024x}\n" for n in range(10)) + "nonsense\n" * 30)
    refused = run("device", "import", str(file), "--owner", "ann")
    assert (refused.returncode, refused.stdout) == (2, "")
    lines = refused.stderr.splitlines()
    assert lines[0].startswith(f"{file}, line 12: ")
    assert len(lines) == 22
    assert "nothing was added" in lines[-1]
    assert json.loads(run("device", "list", "--json").stdout) == []
    assert run("device", "import", str(tmp_path / "none.csv")).returncode == 2


def test_a_name_that_the_owner_has_already_is_told_with_its_line(run: Run, tmp_path: Path) -> None:
    run("user", "create", "ann", "--password-stdin", stdin="correct horse\n")
    run("device", "add", "a" * 24, "--owner", "ann", "--name", "Lamp")
    file = tmp_path / "devices.csv"
    file.write_text(f"id,name\n{1:024x},one\n{2:024x},lamp\n{3:024x},three\n")
    refused = run("device", "import", str(file), "--owner", "ann")
    assert refused.returncode == 1
    assert f"{file}, line 3: the owner has another device named lamp" in refused.stderr
    assert "2 devices were added" in refused.stderr
    assert len(json.loads(run("device", "list", "--json").stdout)) == 3
