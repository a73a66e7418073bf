"""Bodies that come in blocks: who holds most gives way, and nobody else."""

from __future__ import annotations

import pytest

from wirechamber.gateway import blocks as module
from wirechamber.gateway.blocks import Blocks
from wirechamber.gateway.link import Link
from wirechamber.gateway.tcp import TcpLink
from wirechamber.protocols.coap.blockwise import Receiver


def a_link() -> Link:
    link = TcpLink.__new__(TcpLink)
    Link.__init__(link, "s", deviceos=True)
    link.parts = Receiver()
    return link


def test_the_owner_who_holds_most_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1_000)
    blocks = Blocks()
    innocent, late = a_link(), a_link()
    blocks.holds(innocent, "bob", 300)
    flood = [a_link() for _ in range(8)]
    for link in flood:
        blocks.holds(link, "mallory", 100)
    # One too many: the oldest of his own.
    assert [link.parts is None for link in flood] == [True] + [False] * 7
    blocks.holds(late, "carol", 200)
    assert [link.parts is None for link in flood] == [True] * 3 + [False] * 5
    assert innocent.parts is not None
    assert late.parts is not None
    assert blocks.forgotten == 3
    # What is complete makes room, and so does who goes away.
    blocks.holds(innocent, "bob", 0)
    for link in flood:
        blocks.forget(link)
    blocks.holds(innocent, "bob", 800)
    assert blocks.forgotten == 3
    assert late.parts is not None


def test_who_alone_holds_most_gives_way_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1_000)
    blocks = Blocks()
    small, large = a_link(), a_link()
    blocks.holds(small, "bob", 100)
    blocks.holds(large, "mallory", 950)
    assert large.parts is None
    assert small.parts is not None
