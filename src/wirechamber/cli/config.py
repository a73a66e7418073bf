"""`wirechamber config`: the effective settings and where each comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wirechamber.cli.output import exit_code, fail, show_json, show_table
from wirechamber.cli.user import Json
from wirechamber.errors import CloudError
from wirechamber.settings import load


def command(
    config: Annotated[Path | None, typer.Option("--config", help="TOML file [env: WIRECHAMBER_CONFIG]")] = None,
    verbose: Annotated[bool, typer.Option("--help-texts", help="Say what each setting means.")] = False,
    json: Json = False,
) -> None:
    """Print every setting with its effective value and its source (default, file, environment, flag)."""
    try:
        _, sourced = load(file=config)
    except CloudError as problem:
        fail(problem.description, exit_code(problem))
    if json:
        show_json(
            [{"name": each.name, "value": each.value, "source": each.source, "help": each.help} for each in sourced]
        )
        return
    rows = [(each.name, _text(each.value), each.source, *((each.help,) if verbose else ())) for each in sourced]
    show_table(("SETTING", "VALUE", "SOURCE", *(("MEANING",) if verbose else ())), rows, empty="")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
