"""Attempts to reach a cloud, told as they go: whoever waits must not wonder for a minute and a half."""

from __future__ import annotations

import asyncio
import logging

from wirechamber.device.wire import Wire

_log = logging.getLogger("wirechamber.device")

# Whoever watches is told after so much silence, long before it is given up.
SILENT_S = 5.0


class Attempts:
    """Counts and logs them.

    Attributes:
        there: Where the cloud should be, in words.
    """

    def __init__(self, host: str, port: int) -> None:
        self.there = f"{host} port {port} (UDP)"
        self._count = 0
        self._no_way = ""
        self._wire: Wire | None = None
        self._patience: asyncio.TimerHandle | None = None

    def begins(self, wire: Wire) -> None:
        """One begins over this socket."""
        self._count += 1
        self._no_way = ""
        self._wire = wire
        self.ends()
        _log.info("%s: attempt %d", self.there, self._count)
        self._patience = asyncio.get_running_loop().call_later(SILENT_S, self._still_silent)

    def no_way(self, problem: OSError) -> None:
        """One could not even begin."""
        self._count += 1
        self._no_way = problem.strerror or str(problem)
        # They go on quickly, for as long as a machine is without its network; so only the 1st, 2nd, 4th, 8th is told.
        if self._count & (self._count - 1) == 0:
            _log.warning("%s: no way there (attempt %d): %s", self.there, self._count, self._no_way)

    def answered(self) -> None:
        """The cloud is there."""
        self._count = 0
        self.ends()

    def failed(self, why: str, wait_s: float) -> None:
        """It is not, or not any more."""
        _log.warning("%s: not connected: %s; the next attempt is in %.0f s", self.there, why, wait_s)

    def ends(self) -> None:
        """Nothing more is waited for."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    @property
    def hint(self) -> str:
        """What may be wrong."""
        if self._no_way:
            return f"no way there: {self._no_way}"
        if self._wire is not None and self._wire.refused:
            return "nobody listens there, says the network: is the cloud running, is the port right?"
        return "is the address right, is the port, and does every firewall on the way let UDP through?"

    def _still_silent(self) -> None:
        _log.warning("%s has not answered for %g s (attempt %d): %s", self.there, SILENT_S, self._count, self.hint)
