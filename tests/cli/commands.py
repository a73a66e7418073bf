"""Every command that there is, with arguments with which it can be called, run in this process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from wirechamber.cli import program

DEVICE = "0123456789abcdef01234567"
# What arguments hold, and options that a command can't be called without.
ARGUMENTS = {
    "name": "ann", "data": "1", "permission": "google-identity", "device_id": DEVICE, "device": DEVICE,
    "integration_id": "lamp", "file": "{hook}", "template_file": "{template}", "prefix": "t", "attempt": "0" * 32,
    "to": "{folder}/backup", "backup": "{folder}/backup",
}  # fmt: skip
OPTIONS = {
    "user": "ann", "out": "{folder}/out", "field_event": "t", "field_url": "http://127.0.0.1/", "field_topic": "t",
    "field_api_key": "k", "field_hub_name": "h", "field_policy_name": "p", "field_policy_key": "a2V5",
}  # fmt: skip
# They stay until they are told to end.
LASTING = (("serve",), ("demo",), ("device", "simulate"))
# Parameters that name a file to be read.
FILES = frozenset(
    ("file", "template_file", "data_file", "token_file", "cacert", "key", "psk_file", "config", "template_data")
)


# Built once: it takes longer than most commands.
TREE = typer.main.get_command(program.program())


class Command(NamedTuple):
    """One command of the tree."""

    path: tuple[str, ...]
    params: tuple[Any, ...]

    def __str__(self) -> str:
        return " ".join(self.path)

    @property
    def speaks(self) -> bool:
        """Whether it speaks to a server."""
        return any("--url" in each.opts for each in self.params)

    @property
    def opens(self) -> bool:
        """Whether it opens the data folder."""
        return self.path[0] in ("user", "token", "device", "server", "usage", "backup", "restore")

    def arguments(self, folder: Path) -> list[str]:
        """What is enough for a call."""
        given: list[str] = []
        for each in self.params:
            if each.param_type_name == "argument":
                given.append(_filled(ARGUMENTS[each.name], folder))
            elif each.name in OPTIONS and self.path != ("token", "revoke"):
                given += [each.opts[0], _filled(OPTIONS[each.name], folder)]
            elif "--yes" in each.opts:
                given.append("--yes")
            elif "--password-stdin" in each.opts:
                given.append("--password-stdin")
        return [*self.path, *given]


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    # As `subprocess.run` has them.

    @property
    def returncode(self) -> int:
        return self.code

    @property
    def stdout(self) -> str:
        return self.out

    @property
    def stderr(self) -> str:
        return self.err


def commands() -> list[Command]:
    """All of them."""
    return list(_walk(TREE, ()))


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[Command]:
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            yield from _walk(each, (*path, name))
    else:
        yield Command(path, tuple(command.params))


def _filled(text: str, folder: Path) -> str:
    return text.format(folder=folder, hook=folder / "hook.json", template=folder / "template.mustache")


@contextmanager
def _undone() -> Iterator[None]:
    """What a command changes of its process is as it was afterwards."""
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, terminated)


class Shell:
    """Runs commands in this process, with nothing of this shell's settings."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._patch = patch
        self._captured = captured
        self._given = b""
        for name in list(os.environ):
            if name.startswith("WIRECHAMBER_"):
                patch.delenv(name)
        (folder / "hook.json").write_text('{"event": "t", "url": "http://127.0.0.1/"}')
        (folder / "template.mustache").write_text("{{a}}")
        patch.setattr(program, "program", lambda: TREE)
        patch.chdir(folder)
        patch.setenv("WIRECHAMBER_DATA", str(folder / "data"))

    @contextmanager
    def bytes_in(self, content: bytes) -> Iterator[None]:
        """What standard input holds for runs that bring none."""
        self._given = content
        yield
        self._given = b""

    def run(self, *arguments: str, stdin: str | None = "", **env: str) -> Said:
        with self._patch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["wirechamber", *arguments])
            (self.folder / ".stdin").write_bytes(self._given if stdin is None else stdin.encode())
            with open(self.folder / ".stdin") as given:
                patch.setattr(sys, "stdin", given)
                self._captured.readouterr()
                with pytest.raises(SystemExit) as ended, _undone():
                    program.main()
        out, err = self._captured.readouterr()
        code = ended.value.code
        assert "Traceback" not in out + err, f"{arguments}: {err}"
        assert "fault of ours" not in err, f"{arguments}: {err}"
        return Said(code if isinstance(code, int) else 0, out, err)
