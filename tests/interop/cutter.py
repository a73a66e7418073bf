"""A TCP relay that cuts its connections when told to: a bad network, in between two real programs."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Cutter:
    """Relays to a server; `cut` breaks what is open, in the middle of whatever is being sent.

    Attributes:
        answers: Everything that went to clients.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._upstream = ("", 0)
        self.answers = bytearray()
        self._passing = threading.Event()
        self._passing.set()

    def url(self, upstream: str) -> str:
        """The address that relays to `upstream`."""
        host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        threading.Thread(target=self._accept, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def connections(self) -> int:
        """How many connections are relayed at present."""
        return len(self._open) // 2

    def cut(self) -> None:
        """Breaks every open connection."""
        broken, self._open = self._open, []
        for each in broken:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def hold(self) -> None:
        """Lets whoever connects from now on wait until `release`."""
        self._passing.clear()

    def release(self) -> None:
        """Lets those pass who wait."""
        self._passing.set()

    def close(self) -> None:
        """Ends the relay."""
        self.release()
        with suppress(OSError):
            # Wakes the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                self._passing.wait()
                far = socket.create_connection(self._upstream)
            except OSError:
                return
            self._open += [near, far]
            for source, sink, seen in ((near, far, bytearray()), (far, near, self.answers)):
                threading.Thread(target=self._relay, args=(source, sink, seen), daemon=True).start()

    @staticmethod
    def _relay(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
        with suppress(OSError):
            # Small pieces, so that a cut falls inside events too.
            while data := source.recv(700):
                sink.sendall(data)
                seen += data
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
