"""`wirechamber integration create`: from a file, or from flags that each kind's declaration gives."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from wirechamber.cli.output import Exit, fail
from wirechamber.cli.remote import DEFAULT_URL, TokenFile, Url
from wirechamber.cli.user import Json
from wirechamber.integrations.base import Integration
from wirechamber.integrations.declaration import Field
from wirechamber.integrations.registry import Registry

FILE = "FILE"
# Sends the configuration: settings, server, token file, as JSON or not.
Send = Callable[[dict[str, Any], str, Path | None, bool], None]

HELP = """
Make an integration. It sees events from now on.

From a file, such as an export of the console: `create hook.json` (`-` for standard input). Or by its kind and flags:
`create GoogleMaps --api-key @key.txt`. What is required and not given is asked for on a terminal.
"""


def group(kinds: Registry, from_file: Callable[..., None], send: Send) -> typer.Typer:
    """The command with a sub-command for each kind."""
    names = {kind.kind.lower(): kind.kind for kind in kinds}

    class Create(TyperGroup):
        """Takes a kind, in any letter case, or else a file."""

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            """Puts the kind first, or the command that reads a file."""
            for place, argument in enumerate(args):
                kind = names.get(argument.lower())
                if kind is not None:
                    return super().parse_args(ctx, [kind, *args[:place], *args[place + 1 :]])
            if not args or args == ["--help"]:
                return super().parse_args(ctx, ["--help"])
            return super().parse_args(ctx, [FILE, *args])

    made = typer.Typer(cls=Create, help=HELP)
    made.command(FILE)(from_file)
    for kind in kinds:
        made.command(kind.kind)(_command(kind, send))
    return made


def _command(kind: Integration[Any, Any], send: Send) -> Callable[..., None]:
    def create(url: str, token_file: Path | None, json: bool, **flags: Any) -> None:
        if kind.unavailable is not None:
            typer.echo(f"note: {kind.unavailable} (needed where the server runs)", err=True)
        settings = {"integration_type": kind.kind}
        for each in kind.declaration.all:
            value = _value(each, flags[f"field_{each.attribute}"])
            if value is not None:
                settings[each.name] = value
        send(settings, url, token_file, json)

    lines = [kind.summary]
    if kind.unavailable is not None:
        lines.append(kind.unavailable)
    if any(each.secret for each in kind.declaration.all):
        lines.append("A secret can be given as @FILE, so that it does not stand in the list of processes.")
    create.__doc__ = "\n\n".join(lines)
    own = [_parameter("url", Url, DEFAULT_URL), _parameter("token_file", TokenFile, None)]
    own.append(_parameter("json", Json, False))
    flags = [_flag(each) for each in kind.declaration.all]
    create.__signature__ = inspect.Signature([*flags, *own])  # type: ignore[attr-defined]
    return create


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flag(each: Field) -> inspect.Parameter:
    plain = {"boolean": bool, "whole": int, "number": float}.get(each.form, str)
    flag = FLAGS.get(each.name, each.flag)
    notes = "[required]" if each.required else "" if each.default is None else f"[default: {_text(each.default)}]"
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if plain is bool else flag,
        help=f"{each.help} Must be {each.may_be}. {notes}".strip(),
        show_default=False,
    )
    return _parameter(f"field_{each.attribute}", Annotated[plain | None, option], None)


# The flags of every other command say where the server is, not where an integration's events go.
FLAGS = {"url": "--target"}


def _value(each: Field, given: Any) -> Any:
    """What to send for a field: as given, read from a file, or asked for."""
    if given is None and each.required:
        if not sys.stdin.isatty():
            fail(f"{FLAGS.get(each.name, each.flag)} is required: {each.help}", Exit.USAGE)
        given = typer.prompt(f"{each.name} ({each.help})", hide_input=each.secret)
    if isinstance(given, str):
        if given.startswith("@") and (each.secret or each.form in ("json", "texts")):
            given = _read(given[1:])
        if each.form in ("json", "texts") and given.lstrip()[:1] in ("{", "["):
            try:
                return msgspec.json.decode(given)
            except (msgspec.DecodeError, RecursionError, UnicodeError):
                # It may be a template of JSON; the server decides.
                return given
    return given


def _read(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as problem:
        fail(f"{file} can't be read: {problem}", Exit.USAGE)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
