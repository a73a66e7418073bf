"""`wirechamber publish`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from wirechamber.cli.output import Exit, fail, show_json
from wirechamber.cli.remote import DEFAULT_URL, Remote, TokenFile, Url, with_server
from wirechamber.cli.user import Json


def command(
    name: Annotated[str, typer.Argument(help="The event's name, up to 64 characters.")],
    data: Annotated[str | None, typer.Argument(help="Its data; - reads standard input.")] = None,
    data_file: Annotated[Path | None, typer.Option("--data-file", help="Read the data from a file.")] = None,
    ttl: Annotated[int | None, typer.Option("--ttl", help="Seconds that an absent device still wants it.")] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Publish an event. When this returns, the event is stored."""
    body: dict[str, Any] = {"name": name, "data": _data(data, data_file)}
    if ttl is not None:
        body["ttl"] = ttl

    async def work(remote: Remote) -> Any:
        return await remote.call("POST", "v1/devices/events", body)

    answer = with_server(work, url=url, token_file=token_file)
    if json:
        show_json(answer)
    else:
        typer.echo(f"published {name}")


def _data(data: str | None, file: Path | None) -> str | None:
    if file is not None and data is not None:
        fail("give the data or --data-file, not both", Exit.USAGE)
    if file is not None:
        try:
            return file.read_text()
        except (OSError, UnicodeDecodeError) as problem:
            fail(f"{file} can't be read: {problem}", Exit.USAGE)
    return sys.stdin.read() if data == "-" else data
