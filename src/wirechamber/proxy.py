"""The proxy of outgoing requests, as an operator writes it: taken apart once, so that its password has one place."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

from msgspec import Struct

SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_FORM = re.compile(
    r"(?P<scheme>[A-Za-z0-9+.-]+)://(?:(?P<who>[^@/?#]*)@)?(?P<host>\[[^\[\]@/?#]*\]|[^\[\]@:/?#]+):(?P<port>[0-9]{1,5})/?"
)
# What may stand in the part before the `@` (RFC 3986, section 3.2.1).
_WHO = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_EXAMPLE = "such as http://proxy.example.com:3128 or http://user:password@proxy.example.com:3128"


class Proxy(Struct, frozen=True):
    """Where a proxy is and who may use it. The credentials are not percent-encoded any more."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = ""

    @property
    def address(self) -> str:
        """Its URL without the credentials."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def speaks_http(self) -> bool:
        """It is asked in HTTP, so it may answer in the target's place; the others only connect."""
        return self.scheme in ("http", "https")


def read(text: str) -> Proxy:
    """Takes a proxy's URL apart.

    Raises:
        ValueError: It can't be used; the text says how to write it, and repeats nothing of what may be a password.
    """
    scheme = text.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise ValueError(f"begin with one of {', '.join(f'{each}://' for each in SCHEMES)}, {_EXAMPLE}")
    form = _FORM.fullmatch(text)
    if form is None or _WHO.fullmatch(form["who"] or "") is None:
        raise ValueError(
            f"write scheme, host and port and nothing behind them, {_EXAMPLE}; in user and password, whatever is no "
            "letter or digit is percent-encoded: / is %2F, @ is %40, : is %3A, # is %23, % is %25"
        )
    _check_host(form["host"])
    if not 0 < int(form["port"]) < 65536:
        raise ValueError("the port is a number from 1 to 65535")
    user, _, password = (form["who"] or "").partition(":")
    user, password = unquote(user), unquote(password)
    if _CONTROL.search(user + password):
        raise ValueError("user and password can't hold control characters")
    if ":" in user and scheme in ("http", "https"):
        raise ValueError("the user's name can't hold a colon (RFC 7617, section 2)")
    if password and not user:
        raise ValueError("name the user in front of the password")
    if password and scheme in ("socks4", "socks4a"):
        raise ValueError(f"{scheme} knows a user but no password; use socks5h:// where the proxy can")
    return Proxy(scheme, form["host"], int(form["port"]), user, password)


def _check_host(host: str) -> None:
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1])
            return
    except ValueError:
        raise ValueError("the host in brackets is no IPv6 address") from None
    if _NAME.fullmatch(host) is None:
        raise ValueError("the host is no name and no address; write an international name in its ASCII form")
