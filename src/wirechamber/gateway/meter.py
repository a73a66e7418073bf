"""Counts what every device's link carries, by purpose, and writes it down in batches.

Bytes are those on the wire: the datagram, or what TCP carries, and the headers of IP and UDP below it, because that is
what a data plan counts.
"""

from __future__ import annotations

import ipaddress

from wirechamber.gateway.slices import slices
from wirechamber.model.usage import Purpose as Purpose
from wirechamber.model.usage import Usage, hour

# RFC 791, section 3.1 (without options), RFC 8200, section 3, and RFC 768.
IPV4_UDP_BYTES = 20 + 8
IPV6_UDP_BYTES = 40 + 8

# What is counted for each device and purpose.
UP_BYTES, UP_DATAGRAMS, DOWN_BYTES, DOWN_DATAGRAMS, PUBLISHES, DATA_BYTES = range(6)
Counts = list[int]


def overhead(host: str) -> int:
    """Bytes of the headers around one datagram to or from this address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return IPV4_UDP_BYTES
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return IPV6_UDP_BYTES
    return IPV4_UDP_BYTES


def rows(used: dict[tuple[str, int], Counts], now: int) -> list[Usage]:
    """What was counted, for the store: all of it in the hour that is now, milliseconds since 1970."""
    return [
        Usage(
            device,
            hour(now),
            purpose,
            up_bytes=counts[UP_BYTES],
            up_datagrams=counts[UP_DATAGRAMS],
            down_bytes=counts[DOWN_BYTES],
            down_datagrams=counts[DOWN_DATAGRAMS],
            publishes=counts[PUBLISHES],
            data_bytes=counts[DATA_BYTES],
        )
        for (device, purpose), counts in used.items()
    ]


_NOTHING = (0, 0, 0, 0, 0, 0)


class Meter:
    """What devices used since it was last written down.

    A list of counts stays with its device and purpose, so whoever counts often keeps it.
    """

    def __init__(self) -> None:
        self._used: dict[tuple[str, int], Counts] = {}

    def of(self, device: str, purpose: Purpose) -> Counts:
        """The counts of a device and purpose, to be raised by the caller: the same list each time."""
        counts = self._used.get((device, purpose))
        if counts is None:
            counts = self._used[device, purpose] = list(_NOTHING)
        return counts

    def up(self, device: str, purpose: Purpose, size: int) -> None:
        """The device sent a datagram."""
        counts = self.of(device, purpose)
        counts[UP_BYTES] += size
        counts[UP_DATAGRAMS] += 1

    def down(self, device: str, purpose: Purpose, size: int) -> None:
        """The device was sent a datagram."""
        counts = self.of(device, purpose)
        counts[DOWN_BYTES] += size
        counts[DOWN_DATAGRAMS] += 1

    async def take(self) -> dict[tuple[str, int], Counts]:
        """Everything that was counted, and starts again."""
        used: dict[tuple[str, int], Counts] = {}
        async for rows in slices(self._used.items()):
            for key, counts in rows:
                if counts[UP_BYTES] or counts[DOWN_BYTES] or counts[PUBLISHES]:
                    used[key] = counts.copy()
                    counts[:] = _NOTHING
        return used

    def put_back(self, used: dict[tuple[str, int], Counts]) -> None:
        """What could not be written down counts again."""
        for (device, purpose), counts in used.items():
            mine = self.of(device, Purpose(purpose))
            mine[:] = [one + other for one, other in zip(mine, counts, strict=True)]
