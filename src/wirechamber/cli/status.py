"""`wirechamber status`: is the server there, and does it work."""

from __future__ import annotations

import os
from typing import Any

import typer

from wirechamber.cli.output import Exit, show_json
from wirechamber.cli.remote import DEFAULT_URL, Remote, TokenFile, Url, with_server
from wirechamber.cli.user import Json


def command(url: Url = DEFAULT_URL, token_file: TokenFile = None, json: Json = False) -> None:
    """Ask a server how it is; with a token, also what you have there."""
    anonymous = token_file is None and not os.environ.get("WIRECHAMBER_TOKEN")

    async def work(remote: Remote) -> dict[str, Any]:
        health = await remote.call("GET", "healthz")
        async with remote.session.get("readyz") as answer:
            ready = answer.status == 200
        found: dict[str, Any] = {"url": url, "version": health.get("version"), "healthy": True, "ready": ready}
        if not anonymous:
            found["user"] = (await remote.call("GET", "v1/user"))["username"]
            found["devices"] = len(await remote.call("GET", "v1/devices"))
            found["integrations"] = len(await remote.call("GET", "v1/integrations"))
        return found

    found = with_server(work, url=url, token_file=token_file, anonymous=anonymous)
    if json:
        show_json(found)
    else:
        for name, value in found.items():
            typer.echo(f"{name:13} {value}")
    if not found["ready"]:
        raise typer.Exit(Exit.UNREACHABLE)
