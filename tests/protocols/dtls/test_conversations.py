"""Handshakes on good and bad wires, every way there is."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocols.dtls.conversation import (
    DEVICE_KEY,
    KEYS,
    PSK,
    SERVER_KEY,
    WAYS,
    Conversation,
    Wire,
    a_listener,
    shake,
)
from wirechamber.protocols.dtls import Alert, ClientHandshake, PreSharedKey, PublicKeys
from wirechamber.protocols.dtls.messages import write_spki
from wirechamber.protocols.dtls.records import read_records

DEVICE_PATIENCE_S = 45.0


@pytest.mark.parametrize("way", WAYS)
def test_a_handshake_ends_with_the_same_keys_on_both_sides(way: str) -> None:
    conversation = shake(way)
    conversation.talk()
    client, server = conversation.client_session, conversation.server_session
    assert client is not None
    assert server is not None
    ours, theirs = server.state, client.state
    assert ours.read_key == theirs.write_key
    assert ours.write_key == theirs.read_key
    assert ours.read_key != ours.write_key
    assert ours.cid_form == theirs.cid_form
    assert (ours.local_cid, ours.remote_cid) == (theirs.remote_cid, theirs.local_cid)
    assert ours.profile == (way if way.startswith("deviceos") else "rfc")
    assert len(ours.local_cid) == (8 if ours.cid_form != "none" else 0)
    if "psk" in way:
        assert (ours.psk_identity, ours.peer_public_key) == (PSK.identity, None)
        assert conversation.identities == [PSK.identity]
    else:
        assert (ours.psk_identity, ours.peer_public_key) == (None, write_spki(DEVICE_KEY.public_key()))
        assert theirs.peer_public_key == write_spki(SERVER_KEY.public_key())


@pytest.mark.parametrize("way", WAYS)
def test_on_a_good_wire_there_are_six_datagrams(way: str) -> None:
    said = shake(way).said
    assert [one.to_server for one in said] == [True, False] * 3


def test_a_device_s_handshake_takes_as_many_bytes_as_it_did() -> None:
    # device-protocol.md, section 15: +-2 for the length of a signature.
    sizes = [len(one.datagram) for one in shake("deviceos").said]
    assert sizes[:3] == [116, 44, 132]
    assert abs(sizes[3] - 326) <= 2
    assert abs(sizes[4] - 393) <= 2
    assert sizes[5] == 67


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lost", range(6))
def test_each_flight_may_be_lost_once(way: str, lost: int) -> None:
    class LosesOne(Wire):
        count = 0

        def carry(self, datagram: bytes, now: float) -> list[tuple[float, bytes]]:
            self.count += 1
            return [] if self.count == lost + 1 else super().carry(datagram, now)

    conversation = Conversation(WAYS[way](), a_listener(), LosesOne()).run(30.0)
    assert conversation.done
    conversation.talk()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(8))
def test_a_bad_wire_delays_a_handshake_until_it_heals(way: str, seed: int) -> None:
    wire = Wire(seed, drop=0.4, duplicate=0.3, reorder=0.3, heals_at=15.0)
    conversation = Conversation(WAYS[way](), a_listener(), wire, lookup_s=0.3).run()
    assert conversation.done, (conversation.client_failed, conversation.server_failed)
    conversation.talk()


@settings(max_examples=150, deadline=None)
@given(
    way=st.sampled_from(sorted(WAYS)),
    seed=st.integers(0, 2**32),
    drop=st.floats(0, 0.7),
    duplicate=st.floats(0, 0.5),
    reorder=st.floats(0, 0.5),
    corrupt=st.floats(0, 0.5),
    mtu=st.sampled_from([1200, 300, 120, 60]),
    lookup_s=st.sampled_from([0.0, 0.5, 5.0]),
)
def test_whatever_the_wire_does_a_handshake_finishes_or_fails_cleanly(
    way: str, seed: int, drop: float, duplicate: float, reorder: float, corrupt: float, mtu: int, lookup_s: float
) -> None:
    wire = Wire(seed, drop, duplicate, reorder, corrupt)
    client = WAYS[way](mtu=max(mtu, 150))
    conversation = Conversation(client, a_listener(mtu=mtu), wire, lookup_s=lookup_s).run()
    assert (conversation.client_session is None) != (conversation.client_failed is None)
    # Whoever is established understands the other side, who was established before or has the same keys.
    if conversation.client_session is not None:
        assert conversation.done
        conversation.talk()
    # Nobody is left waiting.
    assert conversation.server is None
    assert conversation.client.deadline() is None


@pytest.mark.parametrize("way", WAYS)
def test_small_datagrams_carry_fragments(way: str) -> None:
    conversation = Conversation(WAYS[way](mtu=150), a_listener(mtu=80)).run(2.0)
    assert conversation.done
    assert all(len(one.datagram) <= (150 if one.to_server else 80) for one in conversation.said)
    conversation.talk()


def test_a_device_repeats_itself_as_one_was_seen_to() -> None:
    client = ClientHandshake(KEYS, 0.0)
    conversation = Conversation(client, a_listener(), Wire(drop=1.0)).run()
    assert [one.at for one in conversation.said] == [0.0, 3.0, 9.0, 21.0]
    assert conversation.client_failed is not None
    assert conversation.now == DEVICE_PATIENCE_S
    hellos = [read_records(one.datagram, 0)[0] for one in conversation.said]
    assert [hello.sequence for hello in hellos] == [0, 1, 2, 3]
    assert len({hello.content for hello in hellos}) == 1


@pytest.mark.parametrize("way", WAYS)
def test_no_record_of_epoch_0_has_a_number_twice(way: str) -> None:
    for seed in range(10):
        wire = Wire(seed, drop=0.5, duplicate=0.2, reorder=0.4, heals_at=20.0)
        conversation = Conversation(WAYS[way](), a_listener(), wire).run()
        for to_server in (True, False):
            # A HelloVerifyRequest and the first ServerHello take their ClientHello's number, which is new as well; a
            # ClientHello that the wire doubled gets two answers that are alike.
            seen: dict[int, bytes] = {}
            for one in conversation.said:
                if one.to_server is to_server:
                    for record in read_records(one.datagram, 8):
                        if record.epoch == 0:
                            assert seen.setdefault(record.sequence, record.raw) == record.raw


@pytest.mark.parametrize("way", WAYS)
def test_no_protected_record_has_a_number_twice_unless_it_is_a_copy(way: str) -> None:
    wire = Wire(5, drop=0.5, heals_at=20.0)
    conversation = Conversation(WAYS[way](), a_listener(), wire).run()
    for to_server, length in ((True, 8), (False, 4)):
        seen: dict[int, bytes] = {}
        for one in conversation.said:
            if one.to_server is to_server:
                for record in read_records(one.datagram, length):
                    if record.epoch == 1:
                        assert seen.setdefault(record.sequence, record.raw) == record.raw


def test_a_lost_last_flight_is_sent_again_when_the_device_repeats_its_own() -> None:
    class LosesTheLast(Wire):
        lost = 0

        def carry(self, datagram: bytes, now: float) -> list[tuple[float, bytes]]:
            if datagram[0] == 20 and self.lost < 2:
                self.lost += 1
                return []
            return super().carry(datagram, now)

    conversation = Conversation(WAYS["deviceos"](), a_listener(), LosesTheLast()).run()
    assert conversation.done
    ends = [one for one in conversation.said if not one.to_server and one.datagram[0] == 20]
    assert len(ends) == 3
    finished = {read_records(one.datagram, 0)[1].raw for one in ends}
    # Copies: the session's numbers are for what is sent in it.
    assert len(finished) == 1
    session = conversation.server_session
    assert session is not None
    assert session.next_sequence == 1
    assert conversation.server_over


def test_the_repeated_end_of_a_flight_may_come_through_the_session() -> None:
    conversation = shake("deviceos")
    server, session = conversation.server, conversation.server_session
    assert server is not None
    assert session is not None
    # The device's Finished again, as a new record: it is made by its session, which still has the key.
    (last,) = [one for one in conversation.said if one.to_server and len(one.datagram) > 300]
    client = conversation.client_session
    assert client is not None
    plain = shake_finished(conversation, read_records(last.datagram, 8)[-1].raw)
    received = session.unprotect(client.protect(22, plain))
    assert received is not None
    server.repeated(received, conversation.now + 1.0)
    (again,) = server.datagrams(conversation.now)
    assert read_records(again, 0)[1].raw == read_records(conversation.said[-1].datagram, 0)[1].raw
    # Something else under the keys changes nothing.
    received = session.unprotect(client.protect(22, b"\0" * 40))
    assert received is not None
    server.repeated(received, conversation.now + 2.0)
    assert server.datagrams(conversation.now) == []


def shake_finished(conversation: Conversation, raw: bytes) -> bytes:
    """What is inside a record of the client's."""
    from wirechamber.protocols.dtls import Session

    session = conversation.server_session
    assert session is not None
    received = Session(session.state).unprotect(raw)
    assert received is not None
    return received.data


def test_application_data_that_overtakes_the_finish_is_held_back() -> None:
    # Against the rules, but possible: the device's data comes before its Finished message.
    conversation = Conversation(WAYS["deviceos"](), a_listener())

    class Overtakes(Wire):
        def carry(self, datagram: bytes, now: float) -> list[tuple[float, bytes]]:
            if len(datagram) > 300 and datagram[13] == 11:
                records = read_records(datagram, 8)
                client = conversation.client._session
                assert client is not None
                data = [client.protect(23, bytes((n,))) for n in range(3)]
                head = b"".join(record.raw for record in records[:3])
                return [
                    (now + 0.01, data[0]),
                    (now + 0.02, head),
                    (now + 0.03, data[1]),
                    (now + 0.04, records[-1].raw + data[2]),
                ]
            return super().carry(datagram, now)

    conversation.wire = Overtakes()
    conversation.run(2.0)
    assert conversation.done
    assert sorted(received.data for received in conversation.server_arrived) == [b"\0", b"\1", b"\2"]


def test_an_unknown_identity_looks_like_a_wrong_key() -> None:
    def transcript(key: bytes | None) -> list[tuple[float, bool, int, bytes]]:
        client = ClientHandshake(PSK, 0.0, "rfc", suites=[0xC0A8])
        conversation = Conversation(client, a_listener(), psk=key).run()
        assert not conversation.done
        assert conversation.server_failed is not None
        assert conversation.server_failed.alert == Alert.BAD_RECORD_MAC
        return [
            (one.at, one.to_server, len(one.datagram), one.datagram[:13])
            for one in conversation.said
        ]  # fmt: skip

    unknown, wrong = transcript(None), transcript(b"another key, wrong")
    assert unknown == wrong
    assert transcript(b"") == unknown


def test_a_client_without_the_right_server_key_fails() -> None:
    keys = PublicKeys(DEVICE_KEY, DEVICE_KEY.public_key())
    for profile, alert in (("deviceos", Alert.DECRYPT_ERROR), ("rfc", Alert.CERTIFICATE_UNKNOWN)):
        conversation = Conversation(ClientHandshake(keys, 0.0, profile), a_listener()).run()  # type: ignore[arg-type]
        assert conversation.client_failed is not None
        assert conversation.client_failed.alert == alert
        assert conversation.server_failed is not None
        assert (conversation.server_failed.alert, conversation.server_failed.by_peer) == (alert, True)


def test_pre_shared_keys_can_be_switched_off() -> None:
    conversation = Conversation(WAYS["psk"](), a_listener(psk=False)).run()
    assert conversation.client_failed is not None
    assert conversation.client_failed.alert == Alert.HANDSHAKE_FAILURE
    assert conversation.client_failed.by_peer
    assert conversation.identities == []


def test_a_client_with_both_suites_gets_the_one_with_forward_secrecy() -> None:
    conversation = Conversation(ClientHandshake(PSK, 0.0, "rfc", suites=[0xC0A8, 0xCCAC]), a_listener()).run(2.0)
    assert conversation.server_session is not None
    assert conversation.server_session.state.suite == 0xCCAC


def test_a_new_handshake_replaces_the_old_one() -> None:
    first = Conversation(WAYS["deviceos"](), a_listener()).run(0.16)
    assert first.server is not None
    hello = first.said[2].datagram
    assert first.server.continues(hello)
    other = Conversation(WAYS["deviceos"](), first.listener).run(0.01)
    assert not first.server.continues(other.said[0].datagram)


def test_what_belongs_to_a_handshake() -> None:
    conversation = shake("deviceos")
    assert conversation.server is not None
    for one in conversation.said:
        if one.to_server:
            assert conversation.server.continues(one.datagram)
    for other in (b"", b"\x16", b"\x16\xfe\xfd" + bytes(10), b"GET / HTTP/1.1\r\n\r\n"):
        assert not conversation.server.continues(other)


@pytest.mark.parametrize("way", WAYS)
def test_a_session_survives_being_stored(way: str) -> None:
    from wirechamber.protocols.dtls import Session, SessionState

    conversation = shake(way)
    client, server = conversation.client_session, conversation.server_session
    assert client is not None
    assert server is not None
    records = [client.protect(23, bytes((n,))) for n in range(10)]
    for record in itertools.islice(records, 5):
        assert server.unprotect(record)
    stored = msgspec.msgpack.encode(server.state)
    restored = Session(
        msgspec.msgpack.decode(stored, type=SessionState), next_sequence=1024, send_limit=2048, top=server.top
    )
    # Nothing that was received can be received again, also not from inside the window.
    assert [restored.unprotect(record) is not None for record in records] == [False] * 5 + [True] * 5
    record = restored.protect(23, b"back")
    received = client.unprotect(record)
    assert received is not None
    assert received.sequence == 1024


def test_too_long_an_identity_is_refused() -> None:
    client = ClientHandshake(PreSharedKey(b"x" * 129, b"key"), 0.0, "rfc", suites=[0xC0A8])
    conversation = Conversation(client, a_listener()).run()
    assert conversation.identities == []
    assert conversation.client_failed is not None
    assert conversation.client_failed.alert == Alert.DECODE_ERROR
