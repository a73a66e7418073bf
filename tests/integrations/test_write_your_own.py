"""The page about writing an integration, followed to the letter by somebody who knows nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cloud import Cloud, Target, eventually, running

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "integrations" / "write-your-own.md"
_BLOCK = re.compile(r"^```[a-z]+\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The page's files; blocks that name the same file follow each other in it."""
    folder = tmp_path / "wirechamber-pager"
    files: dict[str, str] = {}
    for name, text in _BLOCK.findall(PAGE.read_text()):
        files[name] = files.get(name, "") + text
    assert set(files) == {
        "pyproject.toml", "src/wirechamber_pager/__init__.py", "src/wirechamber_pager/report.py", "tests/test_pager.py",
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def python_path(package: Path) -> str:
    return os.pathsep.join((str(package / "src"), str(ROOT / "src")))


def installed(package: Path) -> None:
    """As pip leaves it: the names of its entry points beside the code."""
    import tomllib

    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = package / "src" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in found.items())
        for group, found in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points))


def test_its_own_tests_pass(package: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:drongo", "tests"],
        cwd=package, env=os.environ | {"PYTHONPATH": python_path(package)}, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_its_kinds_work_on_a_running_cloud(package: Path, tmp_path: Path) -> None:
    installed(package)
    made = Cloud(tmp_path / "data", retry_schedule="0,0.1")
    made.environment["PYTHONPATH"] = python_path(package)
    with Target() as service, running(made) as live:
        client = live.client(live.user("ann"))
        kinds = {each["integration_type"]: each for each in client.get("/v1/integrations/kinds").json()["kinds"]}
        assert kinds["Pager"]["secrets"] == ["token"]
        service.answer = lambda method, path, body: (200, {}, b'{"id":"m1","token":"t0ken-of-the-service"}')
        wanted = {"integration_type": "Pager", "event": "door", "number": "4711", "token": "tk_secret"}
        pager = client.post("/v1/integrations", json=wanted | {"server": service.url})
        assert pager.status_code == 201, pager.text
        wanted = {"integration_type": "Report", "event": "door", "password": "pa55-word", "server": service.url}
        assert client.post("/v1/integrations", json=wanted).status_code == 201
        client.post("/v1/devices/events", json={"name": "door", "data": "open"})
        eventually(lambda: {each[1] for each in service.requests} == {"/v1/4711", "/login", "/report"})
        (body,) = [json.loads(each[3]) for each in service.requests if each[1] == "/v1/4711"]
        assert body == {"text": "door: open", "urgency": "low"}
        assert "tk_secret" not in client.get(f"/v1/integrations/{pager.json()['id']}/logs").text
        # An event without data is the sender's matter, told and not retried.
        client.post("/v1/devices/events", json={"name": "door"})
        logs = f"/v1/integrations/{pager.json()['id']}/logs"
        eventually(lambda: "the event has no data" in client.get(logs).text)


def test_a_kind_that_can_not_be_used_is_left_out_and_said_so(package: Path, tmp_path: Path) -> None:
    installed(package)
    (package / "src" / "wirechamber_pager" / "report.py").write_text("import nothing_of_that_name\n")
    made = Cloud(tmp_path / "data")
    made.environment["PYTHONPATH"] = python_path(package)
    with running(made) as live:
        client = live.client(live.user("ann"))
        kinds = {each["integration_type"] for each in client.get("/v1/integrations/kinds").json()["kinds"]}
        assert "Pager" in kinds
        assert "Report" not in kinds
        log = live.log_file.read_text()
        assert "kind_left_out" in log
        assert "nothing_of_that_name" in log
