"""The package as it is installed: a wheel that holds everything, and the ways of installing that the docs tell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from wirechamber.kinds import registry

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (made,) = folder.glob("*.whl")
    return made


def test_a_wheel_is_the_whole_package(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    source = {path.relative_to(ROOT / "src") for path in (ROOT / "src/wirechamber").rglob("*") if path.is_file()}
    wanted = {path for path in source if path.suffix in (".py", ".sql") or path.name == "py.typed"}
    assert wanted <= {path.relative_to(tmp_path / "site") for path in (tmp_path / "site").rglob("*")}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WIRECHAMBER_")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "wirechamber", "user", "list", "--data", str(tmp_path / "data")],
        env=environment | {"PYTHONPATH": str(tmp_path / "site")}, cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    # It runs as it is, and its schema is there.
    assert "there is no data folder" in done.stderr
    assert wheel.name in (ROOT / "docs/install.md").read_text()


def test_what_a_kind_needs_is_installed_by_a_name_that_an_index_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {requirement for extra in project["optional-dependencies"].values() for requirement in extra}
    for kind in registry():
        if kind.needs is not None:
            found = re.fullmatch(r'pip install "(.+)"', kind.needs.install)
            assert found is not None
            assert found[1] in extras
            assert found[1] in (ROOT / "docs/install.md").read_text()
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for line in page.read_text().splitlines():
            if "pip install" in line and page.name != "install.md":
                assert not re.search(r"pip install \S*wirechamber(\[|\"| |$)", line), f"{page.name}: {line}"
