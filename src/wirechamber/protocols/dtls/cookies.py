"""Proof that a client receives at the address it sends from, without remembering it (RFC 6347, section 4.2.1).

A cookie is a MAC over the address and the ClientHello, under a secret that lives with the process. The first byte says
in which period it was made; it is part of what is authenticated, and cookies of the period before are good as well.
"""

from __future__ import annotations

import hmac

from wirechamber.protocols.dtls.messages import ClientHello
from wirechamber.protocols.dtls.wire import number, vector

# A Device OS device repeats its ClientHello for 45 s (device-protocol.md, section 3.4), so a cookie must live longer.
PERIOD_S = 60.0
# With 16 bytes the answer is 44 bytes long: shorter than any ClientHello that can succeed.
COOKIE = 16
SECRET = 32


class Cookies:
    """Makes cookies and knows them again.

    Args:
        secret: Random; a new one makes all cookies void.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, hello: ClientHello, peer: bytes, now: float) -> bytes:
        """The cookie for a ClientHello from this address."""
        return self._cookie(hello, peer, int(now // PERIOD_S))

    def good(self, hello: ClientHello, peer: bytes, now: float) -> bool:
        """Whether the ClientHello has a cookie that was made for it and its sender within the last 60 to 120 s."""
        cookie = hello.cookie
        if len(cookie) != COOKIE:
            return False
        period = int(now // PERIOD_S)
        if cookie[0] != period & 0xFF:
            period -= 1
        return hmac.compare_digest(self._cookie(hello, peer, period), cookie)

    def _cookie(self, hello: ClientHello, peer: bytes, period: int) -> bytes:
        # RFC 6347, section 4.2.1: version, random, session_id, cipher_suites, compression_method must be the same.
        said = (
            number(period & 0xFFFFFFFFFFFFFFFF, 8) + vector(peer, 2) + number(hello.version, 2) + hello.random
            + vector(hello.session_id, 1) + vector(b"".join(number(suite, 2) for suite in hello.suites), 2)
            + hello.compression
        )  # fmt: skip
        return bytes((period & 0xFF,)) + hmac.digest(self._secret, said, "sha256")[: COOKIE - 1]
