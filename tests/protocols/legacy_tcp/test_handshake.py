from __future__ import annotations

import hmac
import os

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocols.legacy_tcp.people import (
    DEVICE_ID,
    asked,
    device,
    device_key,
    public_der,
    server,
    server_key,
    shake_hands,
)
from wirechamber.protocols.legacy_tcp import (
    STEP_S,
    ClientHandshake,
    Established,
    Failed,
    Failure,
    NeedsAdmission,
    ServerHandshake,
)


def to_server(plain: bytes) -> bytes:
    """Encrypted as a device would."""
    return server_key().public_key().encrypt(plain, PKCS1v15())


def raw_to_server(block: bytes) -> bytes:
    """A padded block of our own making under the server's key."""
    numbers = server_key().public_key().public_numbers()
    return pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(256, "big")


def test_a_device_and_the_server_agree() -> None:
    cloud, client = server(), device()
    nonce = cloud.outgoing()
    assert len(nonce) == 40
    assert cloud.outgoing() == b""
    assert client.receive(nonce, 0.0) == []
    identity = client.outgoing()
    assert len(identity) == 256

    [question] = cloud.receive(identity, 0.0)
    assert question == NeedsAdmission(DEVICE_ID, public_der(device_key()))
    assert cloud.outgoing() == b"", "nothing is said before the caller has decided"

    established = cloud.admit()
    assert (established.device_id, established.device_public_key) == (DEVICE_ID, public_der(device_key()))
    answer = cloud.outgoing()
    assert len(answer) == 384
    [at_device] = client.receive(answer, 0.0)
    assert isinstance(at_device, Established)
    assert cloud.over
    assert client.over
    assert cloud.deadline() is None

    assert at_device.session.seed == established.session.seed
    assert established.session.receive(at_device.session.frame(b"hello")) == [b"hello"]
    assert at_device.session.receive(established.session.frame(b"hello yourself")) == [b"hello yourself"]


@pytest.mark.parametrize("size", [1, 7, 39, 41, 255])
def test_bytes_may_come_cut_into_pieces(size: int) -> None:
    cloud, client = server(), device()

    def pieces(data: bytes) -> list[bytes]:
        return [data[at : at + size] for at in range(0, len(data), size)]

    assert [client.receive(piece, 0.0) for piece in pieces(cloud.outgoing())][-1] == []
    *before, last = [cloud.receive(piece, 0.0) for piece in pieces(client.outgoing())]
    assert not any(before)
    assert isinstance(last[0], NeedsAdmission)
    cloud.admit()
    *before, last = [client.receive(piece, 0.0) for piece in pieces(cloud.outgoing())]
    assert not any(before)
    assert isinstance(last[0], Established)


def test_a_cut_at_every_byte_changes_nothing() -> None:
    for at in range(1, 256):
        cloud, client = server(), device()
        client.receive(cloud.outgoing(), 0.0)
        identity = client.outgoing()
        assert cloud.receive(identity[:at], 0.0) == []
        assert cloud.missing == 256 - at
        asked(cloud, identity[at:])
    for at in range(1, 384):
        cloud, client = server(), device()
        client.receive(cloud.outgoing(), 0.0)
        asked(cloud, client.outgoing())
        cloud.admit()
        answer = cloud.outgoing()
        assert client.receive(answer[:at], 0.0) == []
        assert isinstance(client.receive(answer[at:], 0.0)[0], Established)


def test_every_session_has_keys_of_its_own() -> None:
    assert len({shake_hands()[0].frame(b"the same") for _ in range(5)}) == 5


# --- what a server makes of blocks that are not right ---


def wrong_blocks() -> dict[str, bytes]:
    key = public_der(device_key())
    good_tail = DEVICE_ID + key
    ones = b"\x01" * 41
    modulus = server_key().public_key().public_numbers().n
    return {
        "another nonce": to_server(os.urandom(40) + good_tail),
        "too short": to_server(b"x" * 20),
        "too long": to_server(os.urandom(40) + good_tail + b"more"),
        "empty": to_server(b""),
        "padding of type 1": raw_to_server(b"\0\x01" + ones[:40] + b"\0" + bytes(213)),
        "no zero after the padding": raw_to_server(b"\0\x02" + b"\x07" * 254),
        "padding too short": raw_to_server(b"\0\x02\x07\x07\x07\0" + bytes(250)),
        "does not begin with zero": raw_to_server(b"\x03\x02" + ones[:40] + b"\0" + bytes(213)),
        "beyond the modulus": (modulus + 5).to_bytes(256, "big") if modulus + 5 < 1 << 2048 else b"\xff" * 256,
        "zero": bytes(256),
        "noise": os.urandom(256),
    }


@pytest.mark.parametrize("what", wrong_blocks())
def test_whatever_is_wrong_with_a_block_the_answer_is_the_same_silence(what: str) -> None:
    cloud = server()
    cloud.outgoing()
    assert cloud.receive(wrong_blocks()[what], 0.0) == [Failed(Failure.NOT_FOR_US)]
    assert cloud.outgoing() == b""
    assert cloud.over
    assert cloud.receive(b"once more", 0.0) == []
    with pytest.raises(RuntimeError):
        cloud.admit()


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 255), flip=st.integers(1, 255))
def test_a_changed_block_is_not_for_us(at: int, flip: int) -> None:
    cloud, client = server(), device()
    client.receive(cloud.outgoing(), 0.0)
    identity = bytearray(client.outgoing())
    identity[at] ^= flip
    assert cloud.receive(bytes(identity), 0.0) == [Failed(Failure.NOT_FOR_US)]


@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=1, max_size=600), size=st.integers(1, 300))
def test_nothing_that_comes_raises(data: bytes, size: int) -> None:
    for side in (server(), device()):
        side.outgoing()
        for at in range(0, len(data), size):
            for event in side.receive(data[at : at + size], 0.0):
                assert isinstance(event, Failed)


def test_what_a_device_said_to_one_nonce_is_worth_nothing_for_another() -> None:
    cloud, client = server(), device()
    client.receive(cloud.outgoing(), 0.0)
    identity = client.outgoing()
    asked(cloud, identity)
    assert server().receive(identity, 0.0) == [Failed(Failure.NOT_FOR_US)]


def other_keys() -> dict[str, bytes]:
    good = public_der(device_key())
    numbers = device_key().public_key().public_numbers()
    odd = rsa.RSAPublicNumbers(65539, numbers.n).public_key()
    return {
        "another exponent": odd.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "not DER": bytes(162),
        "an even exponent": good[:-1] + b"\0",
        "noise": os.urandom(162),
        "a smaller modulus": good[:29] + b"\x01" + good[30:],
    }


@pytest.mark.parametrize("what", other_keys())
def test_only_keys_as_devices_make_them_are_taken(what: str) -> None:
    cloud = server()
    nonce = cloud.outgoing()
    key = other_keys()[what]
    assert len(key) == 162
    assert cloud.receive(to_server(nonce + DEVICE_ID + key), 0.0) == [Failed(Failure.BAD_KEY)]
    assert cloud.outgoing() == b""


def test_a_device_that_goes_on_before_it_is_admitted_is_let_go() -> None:
    cloud, client = server(), device()
    client.receive(cloud.outgoing(), 0.0)
    asked(cloud, client.outgoing())
    assert cloud.receive(b"\0", 0.0) == [Failed(Failure.TALKED_OUT_OF_TURN)]
    with pytest.raises(RuntimeError):
        cloud.admit()


def test_more_than_a_block_is_let_go() -> None:
    cloud, client = server(), device()
    client.receive(cloud.outgoing(), 0.0)
    assert cloud.receive(client.outgoing() + b"\0", 0.0) == [Failed(Failure.TALKED_OUT_OF_TURN)]


def test_a_refused_device_hears_nothing() -> None:
    cloud, client = server(), device()
    client.receive(cloud.outgoing(), 0.0)
    asked(cloud, client.outgoing())
    cloud.refuse()
    assert cloud.over
    assert cloud.outgoing() == b""
    with pytest.raises(RuntimeError):
        cloud.admit()


def test_a_device_is_admitted_once_and_only_after_it_asked() -> None:
    cloud, client = server(), device()
    with pytest.raises(RuntimeError):
        cloud.admit()
    client.receive(cloud.outgoing(), 0.0)
    asked(cloud, client.outgoing())
    cloud.admit()
    with pytest.raises(RuntimeError):
        cloud.admit()


def test_only_the_owner_of_the_key_can_read_what_the_server_answers() -> None:
    cloud = server()
    nonce = cloud.outgoing()
    asked(cloud, to_server(nonce + DEVICE_ID + public_der(device_key("somebody else's"))))
    cloud.admit()
    client = device()
    client.receive(nonce, 0.0)
    assert client.receive(cloud.outgoing(), 0.0) == [Failed(Failure.NOT_THE_SERVER)]


# --- what a device makes of a server that is not the right one ---


def answer(credentials: bytes, signer: rsa.RSAPrivateKey, plain: bool = True) -> bytes:
    sealed = device_key().public_key().encrypt(credentials, PKCS1v15())
    mac = hmac.digest(credentials, sealed, "sha1")
    if plain:
        return sealed + signer.sign(mac, PKCS1v15(), NoDigestInfo())
    return sealed + signer.sign(mac, PKCS1v15(), hashes.SHA1())


def wrong_answers() -> dict[str, bytes]:
    credentials = os.urandom(40)
    good = answer(credentials, server_key())
    return {
        "another server's key": answer(credentials, server_key("another's")),
        "a signature with a DigestInfo": answer(credentials, server_key(), plain=False),
        "too few credentials": answer(credentials[:39], server_key()),
        "changed credentials": bytes((good[0] ^ 1,)) + good[1:],
        "a changed signature": good[:-1] + bytes((good[-1] ^ 1,)),
        "noise": os.urandom(384),
    }


@pytest.mark.parametrize("what", wrong_answers())
def test_a_device_trusts_only_the_server_that_it_knows(what: str) -> None:
    client = device()
    client.receive(os.urandom(40), 0.0)
    assert client.receive(wrong_answers()[what], 0.0) == [Failed(Failure.NOT_THE_SERVER)]
    assert client.over


def test_a_device_expects_nothing_behind_the_answer() -> None:
    client = device()
    client.receive(os.urandom(40), 0.0)
    assert client.receive(answer(os.urandom(40), server_key()) + b"\0", 0.0) == [Failed(Failure.TALKED_OUT_OF_TURN)]


# --- time, and what we do wrong ourselves ---


def test_each_step_has_its_time() -> None:
    cloud, client = server(now=100.0), device(now=100.0)
    assert cloud.deadline() == client.deadline() == 100.0 + STEP_S
    client.receive(cloud.outgoing(), 110.0)
    assert client.deadline() == 110.0 + STEP_S
    [_] = cloud.receive(client.outgoing(), 115.0)
    assert cloud.tick(134.9) == []
    assert cloud.tick(135.0) == [Failed(Failure.LATE)]
    assert cloud.tick(136.0) == []
    assert cloud.outgoing() == b""
    assert client.tick(130.0) == [Failed(Failure.LATE)]


def test_single_bytes_buy_no_time() -> None:
    cloud = server(now=0.0)
    for second in range(19):
        assert cloud.receive(b"\0", float(second)) == []
    assert cloud.tick(20.0) == [Failed(Failure.LATE)]


def test_keys_of_other_sizes_are_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="2048"):
        ServerHandshake(device_key(), 0.0)
    with pytest.raises(ValueError, match="1024"):
        ClientHandshake(DEVICE_ID, server_key(), server_key().public_key(), 0.0)
    with pytest.raises(ValueError, match="12 bytes"):
        ClientHandshake(DEVICE_ID[1:], device_key(), server_key().public_key(), 0.0)
