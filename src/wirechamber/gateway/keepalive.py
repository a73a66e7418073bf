"""Devices that said how they are kept in touch with (docs/device-link.md): those that sleep between their words, and
those that want to be pinged.

A device in queue mode listens for a moment after it has said something. Later its NAT may have forgotten it, and it may
be switched off: nothing is sent into the void, and what comes for it waits for its next word.
"""

from __future__ import annotations

from collections.abc import Callable

from wirechamber.clock import Clock
from wirechamber.gateway.link import Link
from wirechamber.gateway.roster import Roster
from wirechamber.protocols.coap.exchange import Busy, Endpoint
from wirechamber.protocols.coap.message import Code, Message, Type

# A device in queue mode listens for so long after its last word. NATs remember longer: Device OS pings every 25 s
# through all of them (device-protocol.md, section 12).
AWAKE_S = 20.0


class Pinged:
    """A ping of the cloud's that is not acknowledged yet."""


class KeepAlives:
    """Looks after such links.

    Args:
        endpoint: Gives a link's exchanges.
        flush: Sends what a link's exchanges have to send.
        wake: Opens a session that is in the store only.
        forget: Gives up what a link was sent and has not acknowledged.
    """

    def __init__(
        self,
        clock: Clock,
        roster: Roster,
        *,
        endpoint: Callable[[Link], Endpoint],
        flush: Callable[[Link], None],
        wake: Callable[[Link], None],
        forget: Callable[[Link], None],
    ) -> None:
        self._clock = clock
        self._roster = roster
        self._endpoint = endpoint
        self._flush = flush
        self._wake = wake
        self._forget = forget

    def look(self, link: Link, silent_s: float) -> None:
        """Does what is due for a link that has been silent for so long."""
        told = link.keep_alive
        if told is None:
            return
        if told.queue:
            if silent_s > AWAKE_S and not link.asleep:
                self._forget(link)
                self._roster.slept(link)
        elif told.ping is not None and silent_s >= told.ping and link.pinged != link.heard:
            self._ping(link)

    def _ping(self, link: Link) -> None:
        if link.dormant:
            self._wake(link)
            return
        # One, which the exchanges repeat: if it is not acknowledged either, the device is gone.
        link.pinged = link.heard
        try:
            self._endpoint(link).send(
                Message(Type.CON, Code.EMPTY.value, link.next_id()), Pinged(), self._clock.monotonic()
            )
        except Busy:
            # Whatever is under way will show whether it is there.
            return
        self._flush(link)
