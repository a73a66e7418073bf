from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.commands import LASTING, Said, Shell

Run = Callable[..., Said]


@pytest.fixture(scope="session")
def folder_with_ann(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one user, for commands that change nothing."""
    folder = tmp_path_factory.mktemp("ann") / "data"
    subprocess.run(
        [sys.executable, "-m", "wirechamber", "user", "create", "ann", "--password-stdin", "--data", str(folder)],
        input="correct horse\n", text=True, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs commands in this process."""
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def run(tmp_path: Path, here: Shell) -> Run:
    """Runs `wirechamber`, with nothing of this shell's settings; `env` adds some."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WIRECHAMBER_")}
    clean["WIRECHAMBER_DATA"] = str(tmp_path / "data")

    def run(*arguments: str, stdin: str = "", **env: str) -> Said:
        if not any(arguments[: len(each)] == each for each in LASTING):
            # A process of its own takes a second, and most of that for nothing.
            return here.run(*arguments, stdin=stdin, **env)
        done = subprocess.run(
            [sys.executable, "-m", "wirechamber", *arguments], env=clean | env, input=stdin, cwd=tmp_path,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    return run
