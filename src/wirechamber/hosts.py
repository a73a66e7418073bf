"""What names a host: checked where it is given, since whoever gets it later, such as a device, is far away; how it is
written with a port."""

from __future__ import annotations

import ipaddress
import re

# RFC 1035, section 2.3.4: of a name, and of each of its labels.
MAX_NAME = 253
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
# A name that ends like this would be taken for an IPv4 address (https://url.spec.whatwg.org/#ends-in-a-number-checker).
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)


def check_host(host: str, *, ipv6: bool = True) -> str:
    """The host as it is meant: an address, or a name, in ASCII (IDNA).

    Args:
        ipv6: An IPv6 address is one, too.

    Raises:
        ValueError: It is none; the text says why, and what to write.
    """
    text = host.strip()
    if "://" in text:
        raise ValueError(f"{host[:100]!r} is a URL: give the host alone")
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return _name(host, text)
    if isinstance(address, ipaddress.IPv6Address) and not ipv6:
        raise ValueError(f"{host[:100]!r} is an IPv6 address, for which a device's memory has no place: give a name")
    return bare


def with_port(host: str, port: int) -> str:
    """Host and port as in a URL, an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _name(given: str, text: str) -> str:
    shown = repr(given[:100])
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and ":" not in host:
        raise ValueError(f"{shown} has a port, which is given apart: give {host[:100]!r}")
    try:
        name = text if text.isascii() else text.encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"{shown} is no name of a host") from None
    labels = name.removesuffix(".").split(".")
    if not name or len(name) > MAX_NAME:
        raise ValueError(f"a host has 1 to {MAX_NAME} characters")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(
            f"{shown} is no name of a host: labels of 1 to 63 letters, digits and hyphens, with dots between them"
        )
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError(f"{shown} looks like an IPv4 address and is none: four numbers from 0 to 255")
    return name
