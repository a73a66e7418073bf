"""Opens the ports for devices, and keeps the gateway's parts running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import structlog

from wirechamber.errors import Unavailable
from wirechamber.gateway.service import Gateway
from wirechamber.listening import not_ours
from wirechamber.observe.tasks import Tasks, ended
from wirechamber.settings import Settings

_log = structlog.get_logger("wirechamber.gateway")

# How often a port that somebody else has is asked for again.
BIND_EVERY_S = 5.0


class DevicePort(NamedTuple):
    """A port for devices: the protocol's name, where it is, and what opens it."""

    name: str
    host: str
    number: int
    bind: Callable[[], Awaitable[None]]


class Ports:
    """The ports for devices, and which of them can't be opened at present."""

    def __init__(self) -> None:
        self._closed: dict[str, str] = {}

    def closed(self, port: DevicePort, why: str) -> None:
        """A port can't be opened."""
        self._closed[port.name] = f"{port.name.upper()} port {port.number} can't be opened ({why})"

    def opened(self, port: DevicePort) -> None:
        """A port is open."""
        self._closed.pop(port.name, None)

    def check(self) -> None:
        """Raises Unavailable while devices can't connect."""
        if self._closed:
            settings = " or ".join(f"WIRECHAMBER_{name.upper()}_PORT" for name in self._closed)
            raise Unavailable(
                f"devices can't connect: {', '.join(self._closed.values())}; end what uses it, or set {settings}; "
                "it is tried again"
            )


@asynccontextmanager
async def listening(gateway: Gateway, settings: Settings, tasks: Tasks) -> AsyncIterator[Ports]:
    """Lets devices in until the end.

    Args:
        tasks: Sees how the gateway's parts end.
    """
    await gateway.start()
    parts = [tasks.essential(work, name) for name, work in gateway.parts().items()]
    # The rest of the cloud is of use without devices, and whoever has the port may leave it.
    ports = Ports()
    binding = [
        tasks.restarting(partial(_bind_later, port, ports), f"bind-{port.name}")
        for port in _ports(gateway, settings)
        if not await _bind(port, ports)
    ]
    try:
        yield ports
    finally:
        await ended(*binding)
        await gateway.stop()
        await ended(*parts)


async def _bind(port: DevicePort, ports: Ports) -> bool:
    try:
        await port.bind()
    except OSError as problem:
        ports.closed(port, problem.strerror or str(problem))
        way_out = "set udp_host" if not_ours(problem) else f"free the port or set {port.name}_port"
        _log.warning(
            f"no_{port.name}_port",
            host=port.host,
            port=port.number,
            why=problem.strerror or str(problem),
            advice=f"devices can't connect; {way_out}; it is tried again",
        )
        return False
    ports.opened(port)
    return True


async def _bind_later(port: DevicePort, ports: Ports) -> None:
    while True:
        await asyncio.sleep(BIND_EVERY_S)
        if await _bind(port, ports):
            _log.info(f"{port.name}_port_open", host=port.host, port=port.number)
            return


def _ports(gateway: Gateway, settings: Settings) -> list[DevicePort]:
    """What is to be opened so that devices get in."""
    host, tcp = settings.udp_host, gateway.tcp
    ports = [DevicePort("udp", host, settings.udp_port, lambda: gateway.udp.open(host, settings.udp_port))]
    if tcp is not None:
        ports.append(DevicePort("tcp", host, settings.tcp_port, lambda: tcp.listen(host, settings.tcp_port)))
    return ports
