"""Which addresses outgoing requests may reach: checked on the address really connected to, after name resolution.

Private, loopback, link-local, metadata and other special addresses are refused unless the operator allows them, so that
an integration can't be used to look into the operator's own network.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Ranges that `is_global` does not, or not in every Python, count as special.
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "100.64.0.0/10",  # carrier-grade NAT, RFC 6598
        "192.0.0.0/24",  # protocol assignments, RFC 6890
        "192.88.99.0/24",  # 6to4 relays, gone since RFC 7526
        "198.18.0.0/15",  # benchmarking, RFC 2544
        "64:ff9b:1::/48",  # local-use NAT64, RFC 8215
        "2001::/23",  # protocol assignments, Teredo among them, RFC 2928
        "3fff::/20",  # documentation, RFC 9637
        "fec0::/10",  # site-local, RFC 3879
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
# Where clouds tell a machine who it is, and give whoever asks on it a token for that.
_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",  # Google, Microsoft, Amazon and others
        "fd20:ce::254",  # Google
        "fd00:ec2::254",  # Amazon
        "169.254.170.2",  # Amazon, containers
        "100.100.100.200",  # Alibaba
    )
)
_CACHED = 4096
_NUMBERS = re.compile(r"(?:0x[0-9a-f]{1,8}|[0-9]{1,12})(?:\.(?:0x[0-9a-f]{1,8}|[0-9]{1,12})){0,3}")


class Guard:
    """Permits public addresses and the networks that a setting names.

    Args:
        allow: Networks such as `10.0.0.0/8`.
    """

    def __init__(self, allow: Sequence[str]) -> None:
        self._allow = tuple(ipaddress.ip_network(network, strict=False) for network in allow)
        self.permits = lru_cache(_CACHED)(self._permits)

    def refuses(self, url: str) -> str | None:
        """The address that a URL names by itself and that may not be reached; None if it may, or only DNS can tell."""
        named = addresses_in(url)
        return None if any(map(self.permits, named)) else next(iter(named), None)

    def _permits(self, address: str, as_machine: bool = False) -> bool:
        """Whether a connection to this address may be opened; text that is no address is not permitted.

        Args:
            as_machine: It is to ask for the identity of the machine. Nothing else gets to a metadata service: what is
                allowed there for the operator's sake would be a token for whoever has a webhook.
        """
        try:
            # A zone (fe80::1%eth0) does not change what the address is.
            seen = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        real = _unwrapped(seen)
        if real in _METADATA and not as_machine:
            return False
        if any(each in network for each in (seen, real) for network in self._allow if network.version == each.version):
            return True
        return _is_public(real)


def addresses_in(url: str) -> list[str]:
    """The addresses that a URL names without anybody being asked for them; none where its host must be looked up."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return []
    if host == "localhost" or host.endswith(".localhost"):
        # RFC 6761, section 6.3.
        return ["127.0.0.1", "::1"]
    try:
        return [str(_unwrapped(ipaddress.ip_address(host.partition("%")[0])))]
    except ValueError:
        pass
    if not _NUMBERS.fullmatch(host):
        return []
    try:
        # `127.1`, `0x7f000001` and `2130706433`, as libcurl reads them, too.
        return [socket.inet_ntoa(socket.inet_aton(host))]
    except OSError:
        return []


def is_metadata(address: str) -> bool:
    """Whether a text is the address of a metadata service, in any of its spellings that `ipaddress` knows."""
    try:
        return _unwrapped(ipaddress.ip_address(address)) in _METADATA
    except ValueError:
        return False


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or int(address) >> 32 == 0:
        # The latter are the IPv4-compatible addresses of RFC 4291, section 2.5.5.1; ::1 and :: are among them.
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if int(address) > 1 else address
    return address


def _is_public(address: Address) -> bool:
    if address.is_multicast or address.is_unspecified or address.is_reserved or not address.is_global:
        return False
    return not any(address in network for network in _SPECIAL if network.version == address.version)
