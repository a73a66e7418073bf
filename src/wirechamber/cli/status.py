"""`wirechamber status`: is the server there, and does it work."""

from __future__ import annotations

from typing import Any

import typer

from wirechamber.cli.output import Exit, harmless, show_json
from wirechamber.cli.remote import Remote, Server, speaks, with_server
from wirechamber.cli.user import Json


@speaks
def command(server: Server, json: Json = False) -> None:
    """Ask a server how it is; with a token, also what you have there."""

    async def work(remote: Remote) -> dict[str, Any]:
        health = await remote.call("GET", "healthz", expect=dict)
        ready = await remote.ask("GET", "readyz")
        found: dict[str, Any] = {"url": server.url, "version": health.get("version"), "healthy": True}
        found["ready"] = ready.status == 200
        if not found["ready"]:
            told = ready.value if isinstance(ready.value, dict) else {}
            found["why"] = told.get("error_description") or ready.kind
        if not server.anonymous:
            found["user"] = (await remote.call("GET", "v1/user", expect=dict)).get("username")
            for what in ("devices", "integrations"):
                answer = await remote.ask("GET", f"v1/{what}?per_page=1")
                remote.told(answer, list)
                found[what] = answer.count
        return found

    found = with_server(work, server, anonymous=server.anonymous)
    if json:
        show_json(found)
    else:
        for name, value in found.items():
            typer.echo(f"{name:13} {harmless(str(value))}")
    if not found["ready"]:
        raise typer.Exit(Exit.UNREACHABLE)
