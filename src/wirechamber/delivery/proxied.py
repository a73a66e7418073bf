"""The operator's proxy between this cloud and targets: how libcurl is told of it, and what of an answer is its doing.

A proxy's trouble is the operator's and may pass, so it is never taken for the target's word: it is told as `EPROXY` and
tried again. The proxy is not named, since those who read it are the operator's users.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import pycurl

from wirechamber.delivery.guard import is_metadata
from wirechamber.integrations.base import NoResponse
from wirechamber.proxy import Proxy

# A cloud's metadata service belongs to the machine that asks: through a proxy, another machine's identity would come.
NEVER_PROXIED = frozenset(("metadata.google.internal", "metadata.goog"))
# Statuses that a proxy gives of its own when it can't or won't forward a request.
_GIVEN = frozenset((403, 500, 502, 503, 504, 511))
_MEANS = {
    403: "it does not allow this target",
    407: "it wants another user or password; see outbound_proxy",
    502: "it can't reach the target",
    503: "it can't reach the target",
    504: "the target did not answer it in time",
}
_NAMES_ITSELF = re.compile(r"(?i)\s*(squid|privoxy|[a-z-]*proxy)\b")
# CURLE_PROXY, which older pycurl does not name.
_E_PROXY = 97
# CURLPX_*: what libcurl says of a SOCKS proxy's part (RFC 1928, sections 3 and 6; RFC 1929).
_REPLIES = {
    2: "it did not understand the request; is it of the kind that outbound_proxy says?",
    3: "it closed the connection",
    12: _MEANS[407],
    19: "it could not connect to the target: connection refused",
    21: "it could not connect to the target: host unreachable",
    22: "it could not connect to the target: network unreachable",
    23: _MEANS[403],
    24: "it could not connect to the target in time",
    33: _MEANS[407],
}


def goes_direct(url: str) -> bool:
    """Whether a URL is asked without the proxy, and then by the guard's rules."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host.rstrip(".") in NEVER_PROXIED or is_metadata(host)


def set_proxy(set_option: Callable[..., None], proxy: Proxy | None) -> None:
    """Tells a handle its proxy, or that it has none whatever the environment says."""
    if proxy is None:
        set_option(pycurl.PROXY, "")
        set_option(pycurl.NOPROXY, "*")
        return
    set_option(pycurl.PROXY, proxy.address)
    set_option(pycurl.NOPROXY, "")
    if proxy.user:
        set_option(pycurl.PROXYUSERNAME, proxy.user)
        set_option(pycurl.PROXYPASSWORD, proxy.password)


class Proxied:
    """What is known of a proxy by its answers.

    Attributes:
        signs: It was seen to add `Via` to what it forwards, as it must (RFC 9110, section 7.6.3).
    """

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.signs = False

    def error(self, handle: pycurl.Curl, code: int, words: str, *, opened: bool, url: str) -> NoResponse | None:
        """The proxy's part in an error of libcurl's, or None when it is the target's.

        Args:
            words: What the error means without a proxy, such as `ECONNREFUSED`.
            opened: The connection was opened for this request.
        """
        if code == pycurl.E_COULDNT_RESOLVE_PROXY:
            return _trouble("its name can't be resolved")
        if not self.proxy.speaks_http:
            return self._connecting_only(handle, code, words)
        answered = handle.getinfo(pycurl.HTTP_CONNECTCODE)
        tunnelled = url[:6].lower() == "https:"
        if answered and not 200 <= answered < 300:
            return _trouble(f"it answered {answered} to CONNECT{_meaning(answered)}")
        if answered or (tunnelled and not opened):
            # Behind the tunnel there is nothing but the target.
            return None
        if not handle.getinfo(pycurl.CONNECT_TIME) and opened:
            return _trouble(f"it can't be reached ({words})")
        if code in (pycurl.E_GOT_NOTHING, pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR) and not answered:
            return _trouble(f"it closed the connection {'before it had answered CONNECT' if tunnelled else ''}".strip())
        if tunnelled:
            return _trouble(f"it made no connection to the target ({words})")
        return None

    def _connecting_only(self, handle: pycurl.Curl, code: int, words: str) -> NoResponse | None:
        if code == _E_PROXY:
            # Older pycurl does not know it.
            reply = handle.getinfo(pycurl.PROXY_ERROR) if hasattr(pycurl, "PROXY_ERROR") else 0
            return _trouble(_REPLIES.get(reply, "it made no connection to the target"))
        if code == pycurl.E_COULDNT_CONNECT:
            return _trouble(f"it can't be reached, or made no connection to the target ({words})")
        return None

    def answer(self, status: int, headers: Sequence[tuple[str, str]], url: str) -> NoResponse | None:
        """What the proxy answered in the target's place; None when it is the target's answer.

        Only what is not encrypted can be answered by a proxy that speaks HTTP.
        """
        if not self.proxy.speaks_http or url[:6].lower() == "https:":
            return None
        named = {name.lower(): value for name, value in headers}
        signed = "via" in named
        self.signs = self.signs or signed
        if status == 407 or "x-squid-error" in named or "error=" in named.get("proxy-status", "").replace(" ", ""):
            # RFC 9110, section 15.5.8; RFC 9209, section 2.1.1.
            return _trouble(f"it answered {status}{_meaning(status)}")
        if signed or status not in _GIVEN:
            return None
        if self.signs or _NAMES_ITSELF.match(named.get("server", "")):
            return _trouble(f"it answered {status}{_meaning(status)}")
        if status == 403:
            # From one that does not sign what it forwards. A target's word would be final: nothing is given up for it.
            return NoResponse(
                "EPROXY: 403 from the operator's proxy, or from the target behind it; they can't be told apart"
            )
        return None


def _trouble(what: str) -> NoResponse:
    return NoResponse(f"EPROXY: the operator's proxy has trouble: {what}")


def _meaning(status: int) -> str:
    return f": {_MEANS[status]}" if status in _MEANS else ""
