"""Records under a session's keys: forms, replay, limits, and what is refused."""

from __future__ import annotations

import gc
import os
import tracemalloc

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocols.dtls.conversation import WAYS, shake
from wirechamber.protocols.dtls import Received, Refusal, SequenceExhausted, Session, SessionState, split_records
from wirechamber.protocols.dtls.session import LAST_SEQUENCE, CidForm, Profile

KEY, OTHER_KEY = bytes(range(16)), bytes(range(16, 32))
IV, OTHER_IV = b"abcd", b"efgh"


def states(
    form: CidForm = "draft",
    server_cid: bytes = b"12345678",
    client_cid: bytes = b"",
    suite: int = 0xC0AE,
    profile: Profile = "deviceos",
) -> tuple[SessionState, SessionState]:
    """A server's and a client's."""
    key, other = (KEY, OTHER_KEY) if suite != 0xCCAC else (KEY * 2, OTHER_KEY * 2)
    iv, other_iv = (IV, OTHER_IV) if suite != 0xCCAC else (IV * 3, OTHER_IV * 3)
    server = SessionState(profile, "server", suite, form, server_cid, client_cid, key, other, iv, other_iv)
    client = SessionState(profile, "client", suite, form, client_cid, server_cid, other, key, other_iv, iv)
    return server, client


def sessions(**more: object) -> tuple[Session, Session]:
    server, client = states(**more)  # type: ignore[arg-type]
    return Session(server), Session(client)


def test_a_record_as_rfc_9146_has_it() -> None:
    # Section 5.3, field by field.
    cid = b"12345678"
    _, client = sessions(form="rfc9146", profile="rfc")
    client.next_sequence = 7
    record = client.protect(23, b"hello")
    counter = bytes.fromhex("0001 000000000007")
    inner = b"hello" + b"\x17"
    aad = (
        b"\xff" * 8  # seq_num_placeholder
        + b"\x19"  # tls12_cid
        + b"\x08"  # cid_length
        + b"\x19"  # tls12_cid
        + b"\xfe\xfd"  # version
        + counter  # epoch and sequence_number
        + cid
        + len(inner).to_bytes(2, "big")  # length_of_DTLSInnerPlaintext
    )
    sealed = counter + AESCCM(KEY, tag_length=8).encrypt(IV + counter, inner, aad)
    assert record == b"\x19\xfe\xfd" + counter + cid + len(sealed).to_bytes(2, "big") + sealed


def test_a_record_of_tinydtls() -> None:
    # Recorded from tinydtls' client, which has RFC 9146, with throw-away keys.
    state = SessionState(
        "rfc", "server", 0xC0A8, "rfc9146", bytes.fromhex("eee3e55928efb2fe"), b"",
        bytes.fromhex("86e2343456e078cf6fcf52c2e9a01ca0"), OTHER_KEY, bytes.fromhex("abe2d3d6"), OTHER_IV,
    )  # fmt: skip
    record = bytes.fromhex("19fefd0001000000000001eee3e55928efb2fe00170001000000000001b5e7c333fc4b276d4941de1b7aa5de")
    assert Session(state, top=0).unprotect(record) == Received(23, b"hello\n", 1, False)


def test_a_record_as_the_draft_has_it() -> None:
    cid = b"12345678"
    _, client = sessions()
    client.next_sequence = 7
    record = client.protect(23, b"hello")
    counter = bytes.fromhex("0001 000000000007")
    inner = b"hello" + b"\x17" + bytes(10)
    aad = counter + b"\x19\xfe\xfd" + cid + b"\x08" + b"\x00\x10"
    sealed = counter + AESCCM(KEY, tag_length=8).encrypt(IV + counter, inner, aad)
    assert record == b"\x19\xfe\xfd" + counter + cid + len(sealed).to_bytes(2, "big") + sealed


def test_a_record_with_chacha20_has_no_nonce() -> None:
    # RFC 7905, section 2: the nonce is the padded number, xored with the IV; RFC 5246, section 6.2.3.3: the AAD.
    server, client = sessions(form="none", server_cid=b"", suite=0xCCAC, profile="rfc")
    server.next_sequence = 7
    record = server.protect(23, b"hello")
    counter = bytes.fromhex("0001 000000000007")
    nonce = bytes(a ^ b for a, b in zip(OTHER_IV * 3, bytes(4) + counter, strict=True))
    sealed = ChaCha20Poly1305(OTHER_KEY * 2).encrypt(nonce, b"hello", counter + b"\x17\xfe\xfd\x00\x05")
    assert record == b"\x17\xfe\xfd" + counter + len(sealed).to_bytes(2, "big") + sealed
    assert client.unprotect(record) == Received(23, b"hello", 7, False)


@pytest.mark.parametrize("suite", [0xC0AE, 0xC0A8, 0xCCAC])
@pytest.mark.parametrize("form", ["none", "draft", "rfc9146"])
@pytest.mark.parametrize("client_cid", [b"", b"\0", b"x" * 255])
@settings(deadline=None)
@given(data=st.binary(max_size=300), kind=st.sampled_from([21, 22, 23]))
def test_what_is_protected_comes_out(suite: int, form: CidForm, client_cid: bytes, data: bytes, kind: int) -> None:
    client_cid = b"" if form == "none" else client_cid
    server_cid = b"" if form == "none" else b"12345678"
    server, client = sessions(form=form, client_cid=client_cid, server_cid=server_cid, suite=suite)
    assert server.unprotect(client.protect(kind, data)) == Received(kind, data, 0, False)
    assert client.unprotect(server.protect(kind, data)) == Received(kind, data, 0, False)


@settings(deadline=None)
@given(st.lists(st.integers(0, 200), max_size=120))
def test_each_number_is_taken_once_and_not_from_behind_the_window(numbers: list[int]) -> None:
    # The model: a set, and how far back it may reach.
    server, client = sessions()
    taken: set[int] = set()
    for number in numbers:
        client.next_sequence = number
        received = server.unprotect(client.protect(23, b""))
        top = max(taken, default=-1)
        if number in taken:
            assert received is None
            assert server.refused in (Refusal.REPLAYED, Refusal.OLD)
        elif number <= top - 64:
            assert received is None
            assert server.refused is Refusal.OLD
        else:
            assert received is not None
            taken.add(number)
        assert server.top == max(taken, default=-1)


def test_a_forged_number_does_not_move_the_window() -> None:
    server, client = sessions()
    record = client.protect(23, b"x")
    client.next_sequence = 1 << 40
    forged = bytearray(client.protect(23, b"y"))
    forged[-1] ^= 1
    assert server.unprotect(bytes(forged)) is None
    assert server.refused is Refusal.TAG
    assert server.top == -1
    assert server.unprotect(record)


def test_a_jump_ahead_is_taken() -> None:
    server, client = sessions()
    assert server.unprotect(client.protect(23, b""))
    client.next_sequence = LAST_SEQUENCE - 1
    assert server.unprotect(client.protect(23, b""))
    assert server.top == LAST_SEQUENCE - 1


def test_a_restored_session_takes_nothing_from_before() -> None:
    state, client_state = states()
    client = Session(client_state)
    records = [client.protect(23, b"") for _ in range(100)]
    restored = Session(state, top=49)
    assert [restored.unprotect(record) is not None for record in records] == [False] * 50 + [True] * 50
    restored = Session(state, top=49)
    # Out of order as well.
    assert restored.unprotect(records[60])
    assert [restored.unprotect(record) is not None for record in records] == (
        [False] * 50 + [True] * 10 + [False] + [True] * 39
    )


def test_numbers_run_out() -> None:
    server, _ = sessions()
    server.send_limit = 2
    server.protect(23, b"")
    server.protect(23, b"")
    with pytest.raises(SequenceExhausted):
        server.protect(23, b"")
    assert server.next_sequence == 2
    server.send_limit = 3
    server.protect(23, b"")
    # Whatever somebody asks for, there is no number beyond 48 bits.
    state, _ = states()
    last = Session(state, next_sequence=LAST_SEQUENCE, send_limit=1 << 60)
    with pytest.raises(SequenceExhausted):
        last.protect(23, b"")


def test_no_record_is_too_long() -> None:
    server, client = sessions()
    assert client.unprotect(server.protect(23, bytes(16384)))
    with pytest.raises(ValueError, match="16,384"):
        server.protect(23, bytes(16385))


def good_record() -> bytes:
    _, client = sessions()
    return client.protect(23, b"hello")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: b"", Refusal.LENGTH),
        (lambda r: r[:22], Refusal.LENGTH),
        (lambda r: r[:-1], Refusal.LENGTH),
        (lambda r: r + b"\0", Refusal.LENGTH),
        (lambda r: r[:19] + b"\0\x0f" + r[21:36], Refusal.LENGTH),
        (lambda r: b"\x17" + r[1:], Refusal.TYPE),
        (lambda r: b"\x1a" + r[1:], Refusal.TYPE),
        (lambda r: r[:1] + b"\xfe\xff" + r[3:], Refusal.TYPE),
        (lambda r: r[:4] + b"\0" + r[5:], Refusal.EPOCH),
        (lambda r: r[:4] + b"\2" + r[5:], Refusal.EPOCH),
        (lambda r: r[:11] + b"x" + r[12:], Refusal.CID),
        (lambda r: r[:21] + b"\1" + r[22:], Refusal.TAG),
        (lambda r: r[:-1] + bytes((r[-1] ^ 1,)), Refusal.TAG),
    ],
)
def test_a_changed_record_is_refused(change, why: Refusal) -> None:  # type: ignore[no-untyped-def]
    server, _ = sessions()
    record = good_record()
    assert server.unprotect(change(record)) is None
    assert server.refused is why
    assert server.unprotect(record) == Received(23, b"hello", 0, False)


def test_every_bit_of_a_record_counts() -> None:
    server, _ = sessions()
    record = good_record()
    for bit in range(len(record) * 8):
        changed = bytearray(record)
        changed[bit // 8] ^= 1 << bit % 8
        assert server.unprotect(bytes(changed)) is None


def test_only_a_device_os_device_moves() -> None:
    server, client = sessions(form="rfc9146", profile="rfc")
    assert server.unprotect(b"\xfd" + client.protect(23, b"x")[1:]) is None
    assert server.refused is Refusal.TYPE


def test_nothing_but_zeros_inside_is_refused() -> None:
    server, client = sessions()
    assert server.unprotect(client.protect(0, b"")) is None
    assert server.refused is Refusal.EMPTY


def test_several_records_in_a_datagram_are_told_apart() -> None:
    server, client = sessions()
    records = [client.protect(23, bytes((n,))) for n in range(3)]
    datagram = b"".join(records)
    assert server.unprotect(datagram) is None
    assert server.refused is Refusal.LENGTH
    assert split_records(datagram, 8) == records
    assert split_records(datagram + b"\x17\xfe\xfd", 8) == records
    assert split_records(datagram[:-1], 8) == records[:2]
    assert split_records(b"", 8) == []
    assert len(split_records((b"\x17\xfe\xfd" + bytes(10)) * 1000, 8)) < 100


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    server, client = sessions()
    head = b"\x19\xfe\xfd\0\1" + bytes(6) + b"12345678"
    for datagram in (data, head + data, head + len(data).to_bytes(2, "big") + data):
        assert server.unprotect(datagram) is None
        assert client.unprotect(datagram) is None
        split_records(datagram, 8)


@pytest.mark.parametrize("way", WAYS)
def test_a_state_can_be_stored(way: str) -> None:
    session = shake(way).server_session
    assert session is not None
    stored = msgspec.msgpack.encode(session.state)
    assert msgspec.msgpack.decode(stored, type=SessionState) == session.state
    assert len(stored) < 700


def test_a_session_is_small() -> None:
    def one() -> Session:
        server = SessionState(
            "deviceos", "server", 0xC0AE, "draft", os.urandom(8), b"", os.urandom(16), os.urandom(16),
            os.urandom(4), os.urandom(4), None, os.urandom(91),
        )  # fmt: skip
        return Session(server)

    one()
    gc.collect()
    tracemalloc.start()
    try:
        kept = [one() for _ in range(200)]
        size = tracemalloc.get_traced_memory()[0] / len(kept)
    finally:
        tracemalloc.stop()
    # What Python holds; the two ciphers' own memory, about 500 bytes each, is beside it.
    assert size < 1400
