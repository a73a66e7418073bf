"""`wirechamber config`: the effective settings and where each comes from."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from wirechamber.cli.output import exit_code, fail, show_json, show_table
from wirechamber.cli.serve import setting_flags
from wirechamber.cli.user import Json
from wirechamber.errors import CloudError
from wirechamber.integrations.base import MASK
from wirechamber.settings import load

Verbose = Annotated[bool, typer.Option("--help-texts", help="Say what each setting means.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table of docs/configuration.md.")]


_USERINFO = re.compile(r"://[^@/]+@")


def command() -> Callable[..., None]:
    """The command, with the flags of `serve`, so that it tells what `serve` would do with them."""

    def config(help_texts: bool, markdown: bool, json: bool, **flags: Any) -> None:
        """Print every setting with its effective value and its source (default, file, environment, flag)."""
        if markdown:
            typer.echo(table())
            return
        try:
            _, sourced = load(file=flags.pop("config", None), flags=flags)
        except CloudError as problem:
            fail(problem.description, exit_code(problem))
        if json:
            show_json(
                [
                    {"name": each.name, "value": _shown(each.value), "source": each.source, "help": each.help}
                    for each in sourced
                ]
            )
        else:
            more = ("MEANING",) if help_texts else ()
            rows = [
                (each.name, _text(each.value), each.source, *((each.help,) if help_texts else ())) for each in sourced
            ]
            show_table(("SETTING", "VALUE", "SOURCE", *more), rows, empty="")

    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("help_texts", Verbose), ("markdown", Markdown), ("json", Json))
    ]
    config.__signature__ = inspect.Signature([*own, *setting_flags()])  # type: ignore[attr-defined]
    return config


def table() -> str:
    """All settings with their defaults as a table in Markdown."""
    _, settings = load(environment={})
    lines = ["| setting | environment | default | meaning |", "| --- | --- | --- | --- |"]
    for each in settings:
        default = f"`{_text(each.value)}`" if _text(each.value) else ""
        lines.append(f"| `{each.name}` | `{each.environment}` | {default} | {each.help} |")
    return "\n".join(lines)


def _shown(value: Any) -> Any:
    return _text(value) if isinstance(value, str) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    # A proxy's address may hold a password.
    return _USERINFO.sub(f"://{MASK}@", text)
