"""`wirechamber subscribe`: follows the event stream, and comes back by itself where it was."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from wirechamber.cli.output import fail
from wirechamber.cli.remote import DEFAULT_URL, Remote, TokenFile, Url, with_server

if TYPE_CHECKING:
    import aiohttp

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
# The server sends something at least every 9 s.
SILENCE_S = 30.0
# A stream that has had no event yet, or none for long, is resumed where it was.
WHERE = {"positions": "blocks"}
FINAL = (400, 401, 403, 404)


def command(
    prefix: Annotated[str, typer.Argument(help="Only events whose name begins so.")] = "",
    device: Annotated[str | None, typer.Option("--device", help="Only this device's, by id or name.")] = None,
    last_event_id: Annotated[str | None, typer.Option("--last-event-id", help="Go on after this position.")] = None,
    most: Annotated[int | None, typer.Option("--max", min=1, help="End after so many events.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="End after an event with this data.")] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Print events as they come, one JSON object a line. A lost connection is resumed without a gap or a repeat."""
    path = "v1/devices/" + (f"{quote(device, safe='')}/" if device else "") + "events"
    path += f"/{quote(prefix, safe='')}" if prefix else ""

    async def work(remote: Remote) -> None:
        count = 0
        async for event in _follow(remote, path, last_event_id):
            typer.echo(json.dumps(event, ensure_ascii=False))
            count += 1
            if count == most or (until is not None and event["data"] == until):
                return

    with_server(work, url=url, token_file=token_file)


async def _follow(remote: Remote, path: str, position: str | None) -> AsyncIterator[dict[str, object]]:
    import aiohttp

    wait = FIRST_WAIT_S
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
    first = True
    while True:
        headers = {} if position is None else {"Last-Event-ID": position}
        try:
            async with remote.session.get(path, params=WHERE, headers=headers, timeout=timeout) as stream:
                if stream.status in FINAL:
                    await remote.read(stream)
                elif stream.status == 200:
                    wait, first = FIRST_WAIT_S, False
                    async for at, event in _events(stream):
                        position = at or position
                        if event is not None:
                            yield event
        except (aiohttp.ClientError, TimeoutError):
            if first:
                raise
        typer.echo(f"the stream ended; connecting again in {wait:.1f} s", err=True)
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
        wait = min(wait * 2, LONGEST_WAIT_S)


async def _events(stream: aiohttp.ClientResponse) -> AsyncIterator[tuple[str | None, dict[str, object] | None]]:
    """What the stream says: where it is, and mostly an event that is there."""
    fields: dict[str, str] = {}
    async for raw in stream.content:
        line = raw.decode("utf-8", "replace").rstrip("\n")
        if not line and fields:
            event = None
            if "data" in fields:
                try:
                    data = json.loads(fields["data"])
                except ValueError:
                    fail("the server sent a line that is no event")
                event = {"id": fields.get("id"), "name": fields.get("event"), **data}
            yield fields.get("id"), event
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
