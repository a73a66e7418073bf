"""`wirechamber subscribe`: follows the event stream, and comes back by itself where it was."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from wirechamber.cli.output import json_text
from wirechamber.cli.remote import MAX_ANSWER_BYTES, TIMEOUT_S, Remote, Server, quoted, speaks, with_server

if TYPE_CHECKING:
    import aiohttp

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
# The server sends something at least every 9 s.
SILENCE_S = 30.0
STREAM = "text/event-stream"
FINAL = (400, 401, 403, 404)


@speaks
def command(
    server: Server,
    prefix: Annotated[list[str] | None, typer.Argument(help="Only events whose name begins so, or so.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="Only this device's, by id or name.")] = None,
    last_event_id: Annotated[str | None, typer.Option("--last-event-id", help="Go on after this position.")] = None,
    most: Annotated[int | None, typer.Option("--max", min=1, help="End after so many events.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="End after an event with this data.")] = None,
) -> None:
    """Print events as they come, one JSON object a line. A lost connection is resumed without a gap or a repeat."""
    path = "v1/devices/" + (f"{quoted(device)}/" if device else "") + "events"
    prefixes = prefix or []
    path += f"/{quoted(prefixes[0])}" if prefixes and prefixes[0] else ""
    # A stream that has had no event yet, or none for long, is resumed where it was.
    query = [("positions", "blocks"), *(("prefix", each) for each in prefixes[1:])]

    async def work(remote: Remote) -> None:
        count = 0
        async for event in _follow(remote, path, query, last_event_id):
            typer.echo(json_text(event))
            count += 1
            if count == most or (until is not None and event.get("data") == until):
                return

    with_server(work, server)


async def _follow(
    remote: Remote, path: str, query: list[tuple[str, str]], position: str | None
) -> AsyncIterator[dict[str, object]]:
    import aiohttp

    wait = FIRST_WAIT_S
    first = True
    while True:
        silence = TIMEOUT_S if first else SILENCE_S
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=silence, sock_read=silence)
        headers = {} if position is None else {"Last-Event-ID": position}
        try:
            async with remote.session.get(
                path, params=query, headers=headers, timeout=timeout, allow_redirects=False
            ) as stream:
                if first or stream.status in FINAL:
                    await remote.recognise(stream)
                if stream.status in FINAL:
                    remote.told(await remote.read(stream), dict)
                if stream.status == 200:
                    if stream.content_type != STREAM:
                        remote.server.foreign(f"what came is no stream of events ({stream.content_type})")
                    wait, first = FIRST_WAIT_S, False
                    async for at, event in _events(remote, stream):
                        position = at or position
                        if event is not None:
                            yield event
        except (aiohttp.ClientError, TimeoutError):
            if first:
                raise
        typer.echo(f"the stream ended; connecting again in {wait:.1f} s", err=True)
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
        wait = min(wait * 2, LONGEST_WAIT_S)


async def _events(
    remote: Remote, stream: aiohttp.ClientResponse
) -> AsyncIterator[tuple[str | None, dict[str, object] | None]]:
    """What the stream says: where it is, and mostly an event that is there."""
    fields: dict[str, str] = {}
    async for line in _lines(remote, stream):
        if not line and fields:
            event = None
            if "data" in fields:
                try:
                    data = json.loads(fields["data"])
                except ValueError:
                    data = None
                if not isinstance(data, dict):
                    remote.server.foreign("what came is no event")
                event = {"id": fields.get("id"), "name": fields.get("event"), **data}
            yield fields.get("id"), event
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")


async def _lines(remote: Remote, stream: aiohttp.ClientResponse) -> AsyncIterator[str]:
    begun = b""
    async for part in stream.content.iter_any():
        *lines, begun = (begun + part).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").removesuffix("\r")
        if len(begun) > MAX_ANSWER_BYTES:
            remote.server.foreign(f"a line of its stream is longer than {MAX_ANSWER_BYTES >> 20} MB")
