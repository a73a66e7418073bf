"""Completion at the shell: `--install-completion` and `--show-completion`, for the shell that is named."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import PurePath
from typing import Annotated, Any

import typer

# Typer offers its scripts in no other way than by two options that ask which shell they were started from.
from typer._completion_classes import completion_init
from typer._completion_shared import _get_shell_name, get_completion_script, install
from typer.core import TyperGroup

from wirechamber.cli.output import fail

NAME = "wirechamber"
# The variable by which the shell asks for words.
VARIABLE = "_WIRECHAMBER_COMPLETE"
INSTALL, SHOW = "--install-completion", "--show-completion"


class Shell(StrEnum):
    """Shells for which there is completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    PWSH = "pwsh"
    POWERSHELL = "powershell"


class Completed(TyperGroup):
    """The commands; where one of the two options stands last, without a shell, the one that asks is meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, with the shell that was left away."""
        if args and args[-1] in (INSTALL, SHOW) and (shell := _asking()):
            args = [*args, shell]
        return super().parse_args(ctx, args)


def _asking() -> str | None:
    # Started by no shell, such as by a program or in a container: the user's own.
    return _get_shell_name() or PurePath(os.environ.get("SHELL", "")).name or None


def _install(shell: Shell | None) -> None:
    if shell is None:
        return
    try:
        _, path = install(shell=shell.value, prog_name=NAME, complete_var=VARIABLE)
    except (OSError, UnicodeDecodeError) as problem:
        fail(f"completion can't be installed: {problem}; {SHOW} {shell.value} prints what is to be put into place")
    typer.echo(f"{shell.value} completion was installed in {path}; shells that are started from now on have it")
    raise typer.Exit


def _show(shell: Shell | None) -> None:
    if shell is None:
        return
    typer.echo(get_completion_script(prog_name=NAME, complete_var=VARIABLE, shell=shell.value))
    raise typer.Exit


def prepare() -> None:
    """Makes the program answer shells that ask for words."""
    completion_init()


Install = Annotated[
    Shell | None,
    typer.Option(
        INSTALL, callback=_install, is_eager=True, metavar="[SHELL]", show_default=False,
        help="Install completion for this shell, or the one named: bash, zsh, fish, pwsh.",
    ),
]  # fmt: skip
Show = Annotated[
    Shell | None,
    typer.Option(
        SHOW, callback=_show, is_eager=True, metavar="[SHELL]", show_default=False,
        help="Print what would be installed.",
    ),
]  # fmt: skip
