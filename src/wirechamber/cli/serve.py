"""`wirechamber serve`: a cloud in the foreground. Every setting is a flag, from its one declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from wirechamber.cli.output import exit_code, fail
from wirechamber.errors import CloudError
from wirechamber.settings import ENV_PREFIX, Settings, described, load, plain_type


def command() -> Callable[..., None]:
    """The command, with a flag for each setting."""

    def serve(**flags: Any) -> None:
        """Run the cloud until Ctrl-C or SIGTERM."""
        settings = settings_of(flags)
        from wirechamber.app import run

        try:
            run(settings)
        except CloudError as problem:
            fail(problem.description, exit_code(problem))

    serve.__signature__ = inspect.Signature(setting_flags())  # type: ignore[attr-defined]
    return serve


def settings_of(flags: dict[str, Any]) -> Settings:
    """The effective settings, or one line that says what is wrong with them."""
    file = flags.pop("config", None)
    try:
        settings, _ = load(file=file, flags=flags)
    except CloudError as problem:
        fail(problem.description, exit_code(problem))
    return settings


def setting_flags() -> list[inspect.Parameter]:
    """One parameter for each setting, and `--config`."""
    found = [_flag("config", Path, "TOML file with settings.")]
    found += [_flag(name, plain_type(name), text) for name, text in described().items()]
    return found


def _flag(name: str, kind: type, text: str) -> inspect.Parameter:
    default = "" if name == "config" else _default(getattr(Settings(), name))
    option = typer.Option(
        f"--{name.replace('_', '-')}" + (f"/--no-{name.replace('_', '-')}" if kind is bool else ""),
        help=f"{text}{default} [env: {ENV_PREFIX}{name.upper()}]",
        show_default=False,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _default(value: Any) -> str:
    if value in ("", ()):
        return ""
    return f" [default: {','.join(map(str, value)) if isinstance(value, tuple) else value}]"
