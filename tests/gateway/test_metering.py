"""What a device is told to have used is what its socket saw, and the headers below (the meter)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.gateway.peer import Peer
from tests.gateway.town import Town, until
from wirechamber.protocols.coap.message import Code, ping

# RFC 791, section 3.1, and RFC 768.
HEADERS = 20 + 8


def on_the_wire(datagrams: Sequence[bytes]) -> int:
    return sum(len(datagram) + HEADERS for datagram in datagrams)


def test_bytes_and_datagrams_are_those_of_the_devices_socket(town: Town) -> None:
    peer = town.device()
    peer.subscribe("to-me")
    for number in range(5):
        assert peer.publish("up", str(number).encode()).code == Code.EMPTY
    id = peer.next_id()
    peer.send(ping(id))
    peer.answer(id)
    town.publish("to-me", "down")
    peer.request()
    # The first ClientHello and the cookie that answers it belong to nobody yet: the cloud keeps nothing of them.
    sent, received = peer.sent[1:], peer.received[1:]
    wanted = (on_the_wire(sent), len(sent), on_the_wire(received), len(received))

    def usage(peer: Peer) -> dict[str, Any]:
        answer = town.client.get(f"/v1/devices/{peer.device}/usage")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def counted() -> tuple[int, ...]:
        total = usage(peer)["total"]
        return tuple(total[key] for key in ("up_bytes", "up_datagrams", "down_bytes", "down_datagrams"))

    # It is written down every few seconds.
    until(lambda: counted()[1] >= wanted[1], "being written down")
    assert counted() == wanted
    shown = usage(peer)
    assert (shown["total"]["publishes"], shown["total"]["data_bytes"]) == (5, 5)
    assert shown["purposes"]["publish"]["up_datagrams"] == 5
