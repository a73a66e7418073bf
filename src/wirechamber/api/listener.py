"""The listening sockets: accepting, TLS handshakes, and what happens when descriptors run out."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog

from wirechamber.api.connection import HttpConnection
from wirechamber.api.connections import HEADERS_TIMEOUT_S, Connections
from wirechamber.errors import CloudError
from wirechamber.hosts import with_port
from wirechamber.listening import bound, not_ours
from wirechamber.observe.logs import Seldom
from wirechamber.observe.tasks import Tasks, ended

_seldom = Seldom(structlog.get_logger("wirechamber.api"))

BACKLOG = 1024
# Connections taken before those that were taken have their turn to ask for something.
AT_A_TIME = 16
# So long nothing is accepted when there are no descriptors; clients wait in the kernel's queue.
PAUSE_S = 0.05
# What `accept` answers when the system has no room (accept(2)).
NO_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class NotListening(CloudError):
    """The address can't be listened on."""


class Listener:
    """Accepts connections.

    Args:
        sockets: Bound, listening and not blocking.
        made: Makes a connection, from the address and port of its client.
        context: Tells what a new connection is served with; None for no TLS.
        refused: Counts what was refused, by its reason.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        connections: Connections,
        made: Callable[[str, int], HttpConnection],
        context: Callable[[], ssl.SSLContext | None],
        tasks: Tasks,
        refused: Callable[[str], None],
    ) -> None:
        self._sockets = sockets
        self._connections = connections
        self._made = made
        self._context = context
        self._tasks = tasks
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[bool]] = set()
        for each in sockets:
            self._loop.add_reader(each, self._accept, each)

    async def close(self) -> None:
        """Accepts nothing any more; handshakes under way are cut."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            self._loop.remove_reader(each)
            each.close()
        await ended(*self._arriving)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_A_TIME):
            try:
                accepted, address = listening.accept()
            except OSError as problem:
                if problem.errno in NO_ROOM:
                    self._refused("no_descriptors")
                    _seldom.warning("not_accepting", why=problem.strerror or "")
                    self._connections.make_room()
                    self._loop.remove_reader(listening)
                    self._loop.call_later(PAUSE_S, self._go_on, listening)
                # Otherwise there is nobody, or somebody went away before we came.
                return
            accepted.setblocking(False)
            connection = self._made(address[0], address[1])
            task = self._tasks.spawn(self._arrive(connection, accepted), "connection")
            self._arriving.add(task)
            task.add_done_callback(partial(self._arrived, connection, accepted))
            connection.arriving = task
            self._connections.arrived(connection)

    def _go_on(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    async def _arrive(self, connection: HttpConnection, accepted: socket.socket) -> bool:
        """Makes the connection; False when there was no handshake, or nobody any more."""
        context = self._context()
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=context,
                ssl_handshake_timeout=None if context is None else HEADERS_TIMEOUT_S,
            )
        except (OSError, TimeoutError):
            self._refused("no_handshake")
            return False
        return True

    def _arrived(self, connection: HttpConnection, accepted: socket.socket, task: asyncio.Task[bool]) -> None:
        self._arriving.discard(task)
        connection.arriving = None
        # It may have been cut before it began.
        if task.cancelled() or task.exception() is not None or not task.result():
            self._connections.left(connection)
            accepted.close()


async def listening(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address of a host.

    Args:
        port: 0 for a free one, the same for all.

    Raises:
        NotListening: One address is taken, or not ours.
    """
    found: list[socket.socket] = []
    try:
        found = await bound(host, port, socket.SOCK_STREAM)
        for each in found:
            each.listen(BACKLOG)
    except OSError as problem:
        for each in found:
            with suppress(OSError):
                each.close()
        setting = "HOST" if not_ours(problem) else "PORT"
        raise NotListening(
            f"can't listen on {with_port(host, port)}: {problem.strerror}; set WIRECHAMBER_HTTP_{setting}"
        ) from None
    return found
