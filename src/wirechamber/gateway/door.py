"""Who does not get in, and why, told so that whoever looks after a device knows which one it is and what helps.

Anybody can knock, so what is told is bounded: once a minute about each device or stranger, and so many lines in all.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import structlog

from wirechamber.clock import Clock
from wirechamber.gateway.datagrams import Way
from wirechamber.gateway.link import Link
from wirechamber.gateway.strays import TEXTS, Stray, what_is
from wirechamber.observe.logs import Seldom, Sparing
from wirechamber.protocols.dtls import Alert, Failed
from wirechamber.services.identity import Refused
from wirechamber.shares import network_of

_log = structlog.get_logger("wirechamber.gateway")

# How often each is told about for the same reason, seconds; how many are told apart; and how many lines in all, at
# once and then per second.
TOLD_EVERY_S = 60.0
MAX_TOLD = 1024
LINES = 60.0
LINES_RATE = 1.0
# Characters of what a stranger calls itself.
MAX_NAME = 64
# What clients say whose server key is not ours (RFC 5246, section 7.2.2). Device OS says the first.
_NOT_OURS = frozenset((Alert.DECRYPT_ERROR, Alert.BAD_CERTIFICATE, Alert.CERTIFICATE_UNKNOWN, Alert.UNKNOWN_CA))
_OTHER_SERVER = "the device holds another server's public key"
# Sessions that a newer one of the same device has replaced are watched for so long, and so many of them.
WATCHED_S = 600.0
MAX_WATCHED = 1024
# So many times in that while a device that was online begins a new session before it is told.
TAKEN_OVER = 3


class Door:
    """Tells of them.

    Args:
        devices_at: The ids of a few devices that were last seen at a host.

    Attributes:
        refused: How many, by reason.
    """

    def __init__(self, clock: Clock, devices_at: Callable[[str], list[str]]) -> None:
        self._clock = clock
        self._devices_at = devices_at
        self._seldom = Seldom(Sparing(_log, LINES, LINES_RATE), TOLD_EVERY_S, MAX_TOLD)
        self.refused: Counter[str] = Counter()
        # When devices that were online began new sessions.
        self._taken_over: dict[str, deque[float]] = {}

    def turned_away(self, problem: Refused, who: str, address: str, **more: Any) -> None:
        """A device is not let in.

        Args:
            who: The id that it gives, or the identity of its pre-shared key.
            address: Empty where it is not known.
        """
        self.refused[problem.reason] += 1
        self._seldom.warning(
            "device_refused", why=problem.description, about=who, reason=problem.reason, device=who,
            **({"address": address} if address else {}), **more,
        )  # fmt: skip

    def handshake_failed(self, failed: Failed, address: str, *, showed_key: bool) -> None:
        """A handshake ended without a session.

        Args:
            showed_key: The client was shown this server's key, or what was signed with it.
        """
        network = network_of(address)
        if failed.by_peer and showed_key and failed.alert in _NOT_OURS:
            self.other_server(address, "wirechamber server key", said=failed.why)
            return
        self._seldom.warning(
            "handshake_failed", why=failed.why, about=network, alert=failed.alert, by_device=failed.by_peer,
            address=address,
        )  # fmt: skip

    def other_server(self, address: str, command: str, **more: Any) -> None:
        """A device does not believe that this is its server, or speaks to another one.

        Args:
            command: What prints the key that it should have.
        """
        self.refused["other_server_key"] += 1
        # It has not said yet who it is.
        at = self._devices_at(address)
        self._seldom.warning(
            "handshake_failed", why=_OTHER_SERVER, about=address, address=address, devices_seen_there=at,
            advice=f"give it this server's: `{command}`", **more,
        )  # fmt: skip

    def stray(self, datagram: bytes, address: str) -> Stray:
        """A datagram belongs to nobody."""
        stray = what_is(datagram)
        why, advice = TEXTS[stray]
        self._seldom.warning(
            "datagram_dropped", why=why, about=network_of(address), reason=stray.value, address=address,
            bytes=len(datagram), advice=advice,
        )  # fmt: skip
        return stray

    # --- two with one id and key ---

    def replaced(self, old: Link, new: Link) -> None:
        """A device has begun a new session, by the key that it must have, and its old one is no more."""
        if not old.online or new.device is None:
            return
        self.refused["taken_over"] += 1
        now, device = self._clock.monotonic(), new.device.id
        times = self._taken_over.pop(device, None) or deque(maxlen=TAKEN_OVER)
        self._taken_over[device] = times
        times.append(now)
        if len(self._taken_over) > MAX_WATCHED:
            del self._taken_over[next(iter(self._taken_over))]
        if len(times) == TAKEN_OVER and now - times[0] < WATCHED_S:
            self._rivals(device, old.host, new.host, "or one that starts again and again")

    def still_there(self, old: Link, way: Way) -> None:
        """A session that was replaced goes on: its device does not know of the newer one."""
        if old.device is not None:
            self._rivals(old.device.id, str(way[0]), "", "")

    def _rivals(self, device: str, one: str, other: str, doubt: str) -> None:
        self.refused["rivals"] += 1
        why = "two devices have the same id and key, and end each other's sessions"
        self._seldom.warning(
            "two_devices_with_one_id", why=f"{why}, {doubt}" if doubt else why, about=device, device=device,
            addresses=[each for each in dict.fromkeys((one, other)) if each],
            advice="give each an id and a key of its own: `wirechamber device provision`",
        )  # fmt: skip


def printable(name: bytes) -> str:
    """What a stranger calls itself, as it can be shown: printable ASCII, and not too long."""
    text = "".join(chr(each) if 0x20 < each < 0x7F and each != 0x5C else f"\\x{each:02x}" for each in name[:MAX_NAME])
    return text if len(name) <= MAX_NAME else f"{text}…"
