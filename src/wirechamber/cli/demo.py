"""`wirechamber demo`: the main job, every step shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wirechamber.cli.output import exit_code, fail
from wirechamber.cli.serve import settings_of
from wirechamber.errors import CloudError


def command(
    exit_after: Annotated[
        bool, typer.Option("--exit", envvar="DEMO_EXIT", help="End after the steps instead of staying up.")
    ] = False,
    data: Annotated[Path | None, typer.Option("--data", help="Data folder [env: WIRECHAMBER_DATA]")] = None,
    http_port: Annotated[int | None, typer.Option("--http-port", help="Port [env: WIRECHAMBER_HTTP_PORT]")] = None,
) -> None:
    """Run a cloud with a first webhook: publish a few events, show every step, and stay up."""
    settings = settings_of({"data": None if data is None else str(data), "http_port": http_port})
    from wirechamber.demo import main

    try:
        raise typer.Exit(main(settings, exit_after=exit_after))
    except CloudError as problem:
        fail(problem.description, exit_code(problem))
