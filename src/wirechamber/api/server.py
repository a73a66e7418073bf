"""The listening side as a whole: from open sockets to an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from wirechamber.api import streams
from wirechamber.api.connection import HttpConnection
from wirechamber.api.connections import Connections
from wirechamber.api.http import Network, within
from wirechamber.api.listener import Listener, listening
from wirechamber.api.tls import Certificate
from wirechamber.listening import reached_at
from wirechamber.observe.tasks import Tasks, ended
from wirechamber.settings import Settings
from wirechamber.shares import network_of

KEEP_ALIVE_S = 75.0
LINGER_S = 2.0


class Server:
    """A listening server."""

    def __init__(self, base_url: str, port: int) -> None:
        self.base_url = base_url
        self.port = port


@asynccontextmanager
async def serving(
    app: web.Application,
    settings: Settings,
    tasks: Tasks,
    before_stop: Callable[[], None],
    refused: Callable[[str], None],
    trusted_proxies: tuple[Network, ...] = (),
) -> AsyncIterator[Server]:
    """Listens until the block ends: then no new connection, streams end, running requests get their grace.

    Args:
        refused: Counts what was refused before it reached a route.
        trusted_proxies: Their connections have no share in common, as each brings another client.

    Raises:
        NotListening: The address is taken or not ours.
        BadInput: The certificate can't be used.
    """
    certificate = Certificate(settings) if settings.tls_cert else None
    sockets = await listening(settings.http_host, settings.http_port)
    runner = web.AppRunner(
        app,
        handle_signals=False,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_S,
        shutdown_timeout=settings.shutdown_grace,
        handler_cancellation=True,
        # What nobody has asked for is read for so long at most, so that the answer to it is not lost.
        lingering_time=LINGER_S,
        # Nothing is unpacked: such bodies are refused.
        auto_decompress=False,
    )
    await runner.setup()
    server = runner.server
    assert server is not None
    connections = Connections(refused)
    loop = asyncio.get_running_loop()

    def made(address: str, port: int) -> HttpConnection:
        holder = f"{address} {port}" if within(address, trusted_proxies) else network_of(address)
        return HttpConnection(server, holder, connections, refused, loop, **server._kwargs)

    listener = Listener(
        sockets, connections, made, lambda: None if certificate is None else certificate.context, tasks, refused
    )
    watchers = [] if certificate is None else [tasks.restarting(certificate.renew, "tls-reload")]
    port = sockets[0].getsockname()[1]
    try:
        yield Server(f"{'http' if certificate is None else 'https'}://{reached_at(sockets)}", port)
    finally:
        await ended(*watchers)
        app[streams.OPEN].stop()
        await listener.close()
        before_stop()
        await runner.cleanup()
