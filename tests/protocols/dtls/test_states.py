"""The handshake's table, and the picture of it in the documentation."""

from __future__ import annotations

from pathlib import Path

from wirechamber.protocols.dtls.client import ClientHandshake
from wirechamber.protocols.dtls.messages import HandshakeType
from wirechamber.protocols.dtls.server import ServerHandshake
from wirechamber.protocols.dtls.states import CLIENT, CLIENT_HELLO, SERVER, State, beginning
from wirechamber.protocols.dtls.states import Path as Way

PAGE = Path(__file__).parents[3] / "docs" / "dtls.md"


def picture() -> str:
    """The server's table as a state diagram."""
    names: dict[tuple[State, str, State], list[str]] = {}
    for exchange, way in SERVER.items():
        names.setdefault((State.HELLO, "ClientHello with the cookie", beginning(way)), []).append(exchange)
        for (state, kind), then in way.items():
            message = HandshakeType(kind).name.title().replace("_", "")
            names.setdefault((state, message, then), []).append(exchange)
    names[State.PSK, "the key is found, or is not", State.FINISHED] = ["psk", "ecdhe_psk"]
    lines = ["stateDiagram-v2", f"    [*] --> {State.HELLO}"]
    for (state, message, then), exchanges in names.items():
        only = "" if len(exchanges) == len(SERVER) else f" ({', '.join(exchanges)})"
        lines.append(f"    {state} --> {then}: {message}{only}")
    return "\n".join([*lines, f"    {State.ESTABLISHED} --> [*]"])


def test_the_documentation_shows_the_table() -> None:
    shown = PAGE.read_text().split("```mermaid\n")[1].split("\n```")[0]
    assert shown == picture()


def reachable(way: Way) -> set[State]:
    states = {beginning(way)}
    while True:
        more = {then for (state, _), then in way.items() if state in states} | states
        if State.PSK in more:
            more.add(State.FINISHED)
        if more == states:
            return states
        states = more


def test_every_way_leads_to_a_session_and_has_a_handler_for_each_step() -> None:
    for way in SERVER.values():
        assert State.ESTABLISHED in reachable(way)
        assert {kind for _, kind in way} <= set(ServerHandshake._HANDLERS)
    for way in CLIENT.values():
        assert State.ESTABLISHED in reachable(way)
        assert {kind for _, kind in way} <= set(ClientHandshake._HANDLERS)
    assert {kind for _, kind in CLIENT_HELLO} <= set(ClientHandshake._HANDLERS)
