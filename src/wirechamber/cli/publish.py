"""`wirechamber publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wirechamber.cli.files import STDIN, read_text
from wirechamber.cli.output import Exit, fail, show_json
from wirechamber.cli.remote import Remote, Server, speaks, with_server
from wirechamber.cli.user import Json


@speaks
def command(
    server: Server,
    name: Annotated[str, typer.Argument(help="The event's name, up to 64 characters.")],
    data: Annotated[str | None, typer.Argument(help="Its data; - reads standard input.")] = None,
    data_file: Annotated[Path | None, typer.Option("--data-file", help="Read the data from a file.")] = None,
    ttl: Annotated[int | None, typer.Option("--ttl", help="Seconds that an absent device still wants it.")] = None,
    json: Json = False,
) -> None:
    """Publish an event. When this returns, the event is stored."""
    body: dict[str, Any] = {"name": name, "data": _data(data, data_file)}
    if ttl is not None:
        body["ttl"] = ttl

    async def work(remote: Remote) -> dict[str, Any]:
        answer = await remote.call("POST", "v1/devices/events", body, expect=dict)
        if answer.get("ok") is not True:
            server.foreign("it does not say that the event is stored")
        return answer

    answer = with_server(work, server)
    if json:
        show_json(answer)
    else:
        typer.echo(f"published {name}")


def _data(data: str | None, file: Path | None) -> str | None:
    if file is not None and data is not None:
        fail("give the data or --data-file, not both", Exit.USAGE)
    if file is not None:
        return read_text(file)
    return read_text(STDIN) if data == STDIN else data
