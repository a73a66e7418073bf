"""Long bodies in blocks (RFC 7959), as Device OS sends them and as it is asked for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirechamber.protocols.coap.blockwise import (
    MAX_TRANSFERS,
    PATIENCE,
    Block,
    Fetch,
    More,
    Next,
    Receiver,
    Refused,
    Sending,
    Whole,
    block_of,
    count,
    read_block,
    szx_for,
    write_block,
)
from wirechamber.protocols.coap.message import Code, Message, Option, Type

BLOCKS = st.builds(Block, st.integers(0, 0xFFFFF), st.booleans(), st.integers(0, 6))


@given(BLOCKS)
def test_what_is_written_is_read(block: Block) -> None:
    assert read_block(write_block(block)) == block


@given(st.binary(max_size=5))
def test_any_value_is_a_block_or_none(value: bytes) -> None:
    block = read_block(value)
    if block is not None:
        assert int.from_bytes(write_block(block), "big") == int.from_bytes(value, "big")


@pytest.mark.parametrize(
    ("value", "block"),
    [
        # device-protocol.md, section 7.2: three blocks of a description.
        ("0e", Block(0, True, 6)),
        ("1e", Block(1, True, 6)),
        ("26", Block(2, False, 6)),
        ("", Block(0, False, 0)),
        ("07", None),
        ("00000001", None),
    ],
)
def test_captured_blocks(value: str, block: Block | None) -> None:
    assert read_block(bytes.fromhex(value)) == block


@pytest.mark.parametrize("block", [Block(1 << 20, False, 6), Block(-1, False, 6), Block(0, False, 7)])
def test_blocks_that_there_are_not(block: Block) -> None:
    with pytest.raises(ValueError, match="no such block"):
        write_block(block)


def test_the_size_that_a_device_wants() -> None:
    assert [szx_for(size) for size in (1152, 1040, 1039, 800)] == [6, 6, 5, 5]


# --- Block1 ---


@given(st.binary(max_size=300), st.integers(0, 3))
def test_a_body_goes_over_in_blocks(body: bytes, szx: int) -> None:
    sending, receiver = Sending(body, szx), Receiver()
    blocks = []
    while (block := sending.next()) is not None:
        blocks.append(block)
    assert len(blocks) == count(len(body), szx)
    told = [receiver.take("d", option, payload, 0.0) for option, payload in blocks]
    assert told[:-1] == [More((Option.BLOCK1, option)) for option, _ in blocks[:-1]]
    assert told[-1] == Whole(body)
    assert not receiver


def test_a_block_that_comes_again_is_taken_once() -> None:
    receiver = Receiver()
    receiver.take("d", b"\x08", b"a" * 16, 0.0)
    receiver.take("d", b"\x18", b"b" * 16, 0.0)
    # Once more, in a new message: the device had to begin a new session meanwhile.
    assert receiver.take("d", b"\x18", b"b" * 16, 1.0) == More((Option.BLOCK1, b"\x18"))
    assert receiver.take("d", b"\x20", b"c", 1.0) == Whole(b"a" * 16 + b"b" * 16 + b"c")


def test_a_first_block_begins_anew() -> None:
    receiver = Receiver()
    receiver.take("d", b"\x08", b"a" * 16, 0.0)
    receiver.take("d", b"\x18", b"b" * 16, 0.0)
    assert receiver.take("d", b"\x08", b"x" * 16, 1.0) == More((Option.BLOCK1, b"\x08"))
    assert receiver.take("d", b"\x10", b"y", 1.0) == Whole(b"x" * 16 + b"y")


@pytest.mark.parametrize(
    ("option", "payload", "code"),
    [
        (b"\x38", b"d" * 16, Code.REQUEST_ENTITY_INCOMPLETE),
        (b"\x18", b"x" * 16, Code.REQUEST_ENTITY_INCOMPLETE),
        (b"\x28", b"short", Code.BAD_REQUEST),
        (b"\x20", b"c" * 17, Code.BAD_REQUEST),
        (b"\x2f", b"c", Code.BAD_REQUEST),
        (b"\x10\x00\x00\x00", b"c", Code.BAD_REQUEST),
    ],
)
def test_blocks_that_do_not_fit(option: bytes, payload: bytes, code: int) -> None:
    receiver = Receiver()
    receiver.take("d", b"\x08", b"a" * 16, 0.0)
    receiver.take("d", b"\x18", b"b" * 16, 0.0)
    told = receiver.take("d", option, payload, 0.0)
    assert isinstance(told, Refused)
    assert told.code == code
    assert not receiver


def test_a_later_block_without_the_first() -> None:
    told = Receiver().take("d", b"\x18", b"b" * 16, 0.0)
    assert told == Refused("a block without those before it", Code.REQUEST_ENTITY_INCOMPLETE)


def test_a_body_that_is_too_long() -> None:
    receiver = Receiver(limit=40)
    receiver.take("d", b"\x08", b"a" * 16, 0.0)
    receiver.take("d", b"\x18", b"b" * 16, 0.0)
    told = receiver.take("d", b"\x20", b"c" * 9, 0.0)
    assert told == Refused("a body longer than 40 bytes", Code.REQUEST_ENTITY_TOO_LARGE)
    assert not receiver


def test_what_is_not_gone_on_with_is_forgotten() -> None:
    receiver = Receiver()
    receiver.take("d", b"\x08", b"a" * 16, 0.0)
    told = receiver.take("d", b"\x10", b"b", PATIENCE)
    assert isinstance(told, Refused)
    assert not receiver


def test_several_at_a_time_are_kept_apart_and_bounded() -> None:
    receiver = Receiver()
    for key in range(MAX_TRANSFERS + 1):
        receiver.take(key, b"\x08", bytes((key,)) * 16, 0.0)
    assert isinstance(receiver.take(0, b"\x10", b"", 0.0), Refused)
    for key in range(1, MAX_TRANSFERS + 1):
        assert receiver.take(key, b"\x10", b"!", 0.0) == Whole(bytes((key,)) * 16 + b"!")


@given(st.lists(st.tuples(st.integers(0, 2), BLOCKS.map(write_block) | st.binary(max_size=4), st.binary(max_size=40))))
def test_whatever_comes_it_is_bounded(blocks: list[tuple[int, bytes, bytes]]) -> None:
    receiver = Receiver(limit=100)
    for now, (key, option, payload) in enumerate(blocks):
        told = receiver.take(key, option, payload, float(now))
        if isinstance(told, Whole):
            assert len(told.body) <= 100


# --- Block2 ---


def response(payload: bytes, block2: bytes | None = None, etag: bytes | None = None) -> Message:
    options = []
    if etag is not None:
        options.append((Option.ETAG.value, etag))
    if block2 is not None:
        options.append((Option.BLOCK2.value, block2))
    return Message(Type.CON, Code.CONTENT, 1, b"t", tuple(options), payload)


def test_a_short_answer_is_whole() -> None:
    assert Fetch().take(response(b"short")) == Whole(b"short")


@given(st.binary(max_size=300), st.integers(0, 3))
def test_a_long_answer_is_asked_for_block_by_block(body: bytes, szx: int) -> None:
    fetch = Fetch()
    wanted = Block(0, False, szx)
    for _ in range(count(len(body), szx)):
        found = block_of(body, wanted)
        assert found is not None
        told = fetch.take(response(found[1], found[0], b"\1"))
        if isinstance(told, Whole):
            assert told.body == body
            return
        assert isinstance(told, Next)
        block = read_block(told.option)
        assert block is not None
        wanted = block
    raise AssertionError("it never was whole")


def test_the_next_block_of_a_device_has_its_size() -> None:
    # device-protocol.md, section 8: `1e` or `16`; the M bit is ignored.
    assert Fetch().take(response(bytes(1024), b"\x0e", b"\1")) == Next(b"\x16")


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (response(b"x" * 16, b"\x18", b"\2"), "the body has changed meanwhile"),
        (response(b"x" * 16, b"\x18"), "the body has changed meanwhile"),
        (response(b"x" * 16, b"\x28", b"\1"), "not the block that was asked for"),
        (response(b"x" * 16, b"\x08", b"\1"), "not the block that was asked for"),
        (response(b"x" * 15, b"\x18", b"\1"), "a block that does not have its size"),
        (response(b"x" * 17, b"\x10", b"\1"), "a block that does not have its size"),
        (response(b"x", b"\x1f", b"\1"), "a block that does not have its size"),
        (response(b"all of it"), "not a block, though one was asked for"),
        (response(b"x" * 16, b"\x18", b"\1"), "a body longer than 24 bytes"),
    ],
)
def test_answers_that_do_not_fit(second: Message, why: str) -> None:
    fetch = Fetch(limit=24)
    fetch.take(response(b"a" * 16, b"\x08", b"\1"))
    told = fetch.take(second)
    assert isinstance(told, Refused)
    assert told.why == why


def test_there_is_no_block_behind_the_end() -> None:
    assert block_of(b"a" * 16, Block(1, False, 0)) is None
    assert block_of(b"", Block(0, False, 0)) == (b"", b"")
