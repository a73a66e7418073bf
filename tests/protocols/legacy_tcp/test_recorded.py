"""Against what Device OS 6.2.0 really said (conversation.json; its keys were made for it)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

from wirechamber.protocols.legacy_tcp import ClientHandshake, Established, NeedsAdmission, ServerHandshake, Session

RECORD: dict[str, Any] = json.loads((Path(__file__).parent / "conversation.json").read_text())


def of(name: str) -> bytes:
    return bytes.fromhex(RECORD[name])


def key(name: str) -> rsa.RSAPrivateKey:
    found = load_der_private_key(of(name), None)
    assert isinstance(found, rsa.RSAPrivateKey)
    return found


def always(data: bytes) -> Callable[[int], bytes]:
    return lambda count: (data * 6)[:count]


def session() -> Session:
    device = ClientHandshake(of("device_id"), key("device_private_key"), key("server_private_key").public_key(), 0.0)
    device.receive(of("nonce"), 0.0)
    [event] = device.receive(of("answer"), 0.0)
    assert isinstance(event, Established)
    return event.session


def test_the_device_says_who_it_is() -> None:
    server = ServerHandshake(key("server_private_key"), 0.0, dice=always(of("nonce")))
    assert server.outgoing() == of("nonce")
    assert server.receive(of("identity"), 0.0) == [NeedsAdmission(of("device_id"), of("device_public_key"))]


def test_its_first_message_has_the_id_that_the_salt_says() -> None:
    hello = bytes.fromhex(RECORD["up"][0]["messages"][0])
    assert int.from_bytes(hello[2:4], "big") == session().seed + 1


def test_what_it_sent_is_read_and_written_alike() -> None:
    reader, writer = session(), session()
    for arrived in RECORD["up"]:
        messages = [bytes.fromhex(message) for message in arrived["messages"]]
        assert reader.receive(bytes.fromhex(arrived["bytes"])) == messages
        assert b"".join(map(writer.frame, messages)).hex() == arrived["bytes"]


def test_what_it_understood_is_written_alike() -> None:
    writer = session()
    for sent in RECORD["down"]:
        assert writer.frame(bytes.fromhex(sent["message"])).hex() == sent["frame"]
