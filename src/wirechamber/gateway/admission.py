"""Whether a device may come in, as far as that is asked during its handshake; who does not is told at the door."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from wirechamber.errors import CloudError
from wirechamber.gateway.datagrams import Way
from wirechamber.gateway.door import Door, printable
from wirechamber.observe.logs import Seldom
from wirechamber.services.identity import Identity, Refused

_seldom = Seldom(structlog.get_logger("wirechamber.gateway"))


class Admission:
    """Looks keys up.

    Args:
        start: Does something in the background.
    """

    def __init__(self, identity: Identity, door: Door, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._identity = identity
        self._door = door
        self._start = start

    def find_psk(self, identity: bytes, address: Way, found: Callable[[bytes | None], None]) -> None:
        """Looks a pre-shared key up and calls `found` with it, or with None."""
        self._start(self._find_psk(identity, address, found))

    def other_psk(self, identity: bytes, address: Way) -> None:
        """A device gives this identity and has another pre-shared key."""
        self._start(self._refuse_psk(identity, address))

    def admit(self, device_id: str, public_key: bytes, decided: Callable[[bool], None]) -> None:
        """Whether to go on with a device on TCP; who it is, is settled when its Hello has proved it."""
        self._start(self._check(device_id, public_key, decided))

    async def _check(self, device_id: str, public_key: bytes, decided: Callable[[bool], None]) -> None:
        try:
            await self._identity.check(device_id, public_key)
        except Refused as problem:
            self._door.turned_away(problem, device_id, "")
            decided(False)
        except CloudError as problem:
            # It comes back by itself.
            _seldom.warning("device_held", why=problem.description, device=device_id)
            decided(False)
        else:
            decided(True)

    async def _find_psk(self, identity: bytes, address: Way, found: Callable[[bytes | None], None]) -> None:
        try:
            psk = await self._identity.psk(identity)
        except CloudError as problem:
            _seldom.warning("psk_held", why=problem.description)
            return
        # First: the time that an answer takes must not tell which identities there are.
        found(psk)
        if psk is None:
            await self._refuse_psk(identity, address)

    async def _refuse_psk(self, identity: bytes, address: Way) -> None:
        try:
            problem = await self._identity.psk_refusal(identity)
        except CloudError as why:
            _seldom.warning("psk_held", why=why.description)
            return
        name = printable(identity)
        self._door.turned_away(problem, name, address[0], identity=name)
