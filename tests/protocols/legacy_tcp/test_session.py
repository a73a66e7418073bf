from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given
from hypothesis import strategies as st

from wirechamber.protocols.legacy_tcp import MAX_MESSAGE, Refusal, Session, TooLong, wire_length

CREDENTIALS = bytes(range(40))
messages = st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8)


def pair() -> tuple[Session, Session]:
    return Session(CREDENTIALS), Session(CREDENTIALS)


@given(messages, st.integers(1, 300))
def test_messages_arrive_whole_and_in_order_however_they_are_cut(said: list[bytes], size: int) -> None:
    here, there = pair()
    wire = b"".join(here.frame(message) for message in said)
    assert len(wire) == sum(wire_length(len(message)) for message in said)
    heard = []
    for at in range(0, len(wire), size):
        heard += there.receive(wire[at : at + size])
    assert heard == said
    assert there.buffered == 0
    assert there.refused is None


@given(st.binary(min_size=1, max_size=60))
def test_a_cut_at_every_byte_changes_nothing(message: bytes) -> None:
    wire = pair()[0].frame(message)
    for at in range(1, len(wire)):
        there = Session(CREDENTIALS)
        assert there.receive(wire[:at]) == []
        assert there.buffered == at
        assert there.receive(wire[at:]) == [message]


@given(messages, messages)
def test_the_two_directions_do_not_disturb_each_other(up: list[bytes], down: list[bytes]) -> None:
    device, server = pair()
    for message in up:
        assert server.receive(device.frame(message)) == [message]
    for message in down:
        assert device.receive(server.frame(message)) == [message]
    assert server.receive(device.frame(b"last")) == [b"last"]


def test_the_iv_of_a_frame_is_the_first_block_of_the_one_before() -> None:
    session = Session(CREDENTIALS)
    first, second = session.frame(b"x" * 40), session.frame(b"second")
    decryptor = Cipher(AES(CREDENTIALS[:16]), CBC(first[2:18])).decryptor()
    assert decryptor.update(second[2:]) == b"second" + b"\x0a" * 10


@pytest.mark.parametrize(("length", "on_the_wire"), [(4, 18), (15, 18), (16, 34), (47, 50), (MAX_MESSAGE, 2050)])
def test_a_frame_is_as_long_as_said(length: int, on_the_wire: int) -> None:
    assert wire_length(length) == len(pair()[0].frame(bytes(length))) == on_the_wire


def test_the_seed_is_the_salts_first_two_bytes_little_end_first() -> None:
    assert Session(bytes(32) + b"\x04\x84" + bytes(6)).seed == 0x8404


@pytest.mark.parametrize("message", [b"", bytes(MAX_MESSAGE + 1)], ids=["empty", "too long"])
def test_what_no_frame_can_hold_is_our_own_mistake(message: bytes) -> None:
    session = Session(CREDENTIALS)
    with pytest.raises(TooLong):
        session.frame(message)
    assert session.frame(b"fine") == Session(CREDENTIALS).frame(b"fine")


def test_credentials_are_forty_bytes() -> None:
    with pytest.raises(ValueError, match="40"):
        Session(bytes(39))


@pytest.mark.parametrize(
    ("length", "why"),
    [
        (0, Refusal.BAD_LENGTH),
        (1, Refusal.BAD_LENGTH),
        (17, Refusal.BAD_LENGTH),
        (2040, Refusal.BAD_LENGTH),
        (2064, Refusal.TOO_LONG),
        (0xFFFF, Refusal.TOO_LONG),
    ],
)
def test_a_length_that_cannot_be_is_refused_before_anything_is_kept(length: int, why: Refusal) -> None:
    here, there = pair()
    assert there.receive(here.frame(b"good") + length.to_bytes(2, "big") + b"rest") == [b"good"]
    assert there.refused is why
    assert there.buffered == 0
    assert there.receive(here.frame(b"too late")) == []


def test_no_more_is_kept_than_one_frame() -> None:
    there = Session(CREDENTIALS)
    there.receive((2048).to_bytes(2, "big"))
    for _ in range(2047):
        there.receive(b"x")
    assert there.buffered == 2049


def sealed(plain: bytes) -> bytes:
    """A frame around blocks of our own making."""
    ciphertext = Cipher(AES(CREDENTIALS[:16]), CBC(CREDENTIALS[16:32])).encryptor().update(plain)
    return len(ciphertext).to_bytes(2, "big") + ciphertext


@pytest.mark.parametrize(
    "plain", [bytes(16), b"\x11" * 32, b"x" * 14 + b"\x03\x02", b"x" * 15 + b"\xff"], ids=["0", "17", "unlike", "255"]
)
def test_a_wrong_padding_ends_it(plain: bytes) -> None:
    here, there = pair()
    assert there.receive(sealed(plain) + here.frame(b"next")) == []
    assert there.refused is Refusal.BAD_PADDING


def test_a_changed_padding_ends_it() -> None:
    here, there = pair()
    frame = bytearray(here.frame(b"x" * 20))
    frame[2 + 15] ^= 0x40
    assert there.receive(bytes(frame)) == []
    assert there.refused is Refusal.BAD_PADDING


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_nothing_that_comes_raises(chunks: list[bytes]) -> None:
    there = Session(CREDENTIALS)
    for chunk in chunks:
        there.receive(chunk)
        assert there.buffered <= 2049
