"""Commands that speak to a server over HTTP, with WIRECHAMBER_URL and WIRECHAMBER_TOKEN."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from wirechamber.cli.output import Exit, fail

if TYPE_CHECKING:
    import aiohttp

Result = TypeVar("Result")
DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT_S = 30.0

Url = Annotated[str, typer.Option("--url", envvar="WIRECHAMBER_URL", help="The server.", show_default=True)]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="File that holds the token, instead of WIRECHAMBER_TOKEN.")
]


class Remote:
    """A server, and the right to use it."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON; an error ends the command."""
        async with self.session.request(method, path, json=body) as answer:
            return await self.read(answer)

    async def read(self, answer: aiohttp.ClientResponse) -> Any:
        """The JSON of an answer; an error ends the command."""
        raw = await answer.read()
        try:
            value = msgspec.json.decode(raw) if raw else {}
        except msgspec.DecodeError:
            fail(f"{answer.url.origin()} does not answer like Wirechamber (status {answer.status})")
        if answer.status >= 400:
            fail(value.get("error_description", value.get("error", f"status {answer.status}")), _code(answer.status))
        return value


def with_server(
    work: Callable[[Remote], Awaitable[Result]], *, url: str, token_file: Path | None, anonymous: bool = False
) -> Result:
    """Does the work with a session; turns errors into one line."""
    # A fifth of a second, which commands without a server need not wait for.
    import aiohttp

    token = "" if anonymous else _token(token_file)

    async def run() -> Result:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(base_url=url.rstrip("/") + "/", headers=headers, timeout=timeout) as session:
            return await work(Remote(session))

    try:
        return asyncio.run(run())
    except (aiohttp.ClientConnectionError, TimeoutError):
        fail(
            f"there is no server at {url}; start one with `wirechamber serve`, or set WIRECHAMBER_URL", Exit.UNREACHABLE
        )
    except (aiohttp.ClientError, ValueError) as problem:
        fail(f"{url}: {problem}")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _token(file: Path | None) -> str:
    if file is not None:
        try:
            return file.read_text().strip()
        except OSError as problem:
            fail(f"the token file can't be read: {problem}", Exit.USAGE)
    token = os.environ.get("WIRECHAMBER_TOKEN", "").strip()
    if not token:
        fail("set WIRECHAMBER_TOKEN, such as to what `wirechamber token create --user NAME` prints", Exit.NOT_ALLOWED)
    return token


def _code(status: int) -> Exit:
    if status in (401, 403):
        return Exit.NOT_ALLOWED
    if status == 404:
        return Exit.NOT_FOUND
    return Exit.UNREACHABLE if status == 503 else Exit.FAILED
