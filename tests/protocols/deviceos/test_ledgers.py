"""A cloud without ledgers answers so that firmware asks no more, and neither loses nor believes anything."""

from __future__ import annotations

import pytest

from wirechamber.protocols.coap.blockwise import Block, write_block
from wirechamber.protocols.coap.message import Code, Option
from wirechamber.protocols.deviceos.ledgers import NO_INFORMATION, NOT_FOUND, NOTHING_SUBSCRIBED, no_ledgers
from wirechamber.protocols.deviceos.messages import LedgerRequest

GET_INFO = bytes.fromhex("08011206") + b"\x0a\x04conf"
SET_DATA = bytes.fromhex("08021a0a") + b"\x0a\x04conf\x52\x02\xa1\x00"
GET_DATA = bytes.fromhex("08032206") + b"\x0a\x04conf"
SUBSCRIBE = bytes.fromhex("08042a08") + b"\x0a\x06\x0a\x04conf"
# To nothing, as after the last one turned out not to be there.
UNSUBSCRIBE = bytes.fromhex("08042a00")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (GET_INFO, NO_INFORMATION),
        (SET_DATA, NOT_FOUND),
        (GET_DATA, NOT_FOUND),
        (SUBSCRIBE, NOT_FOUND),
        (UNSUBSCRIBE, NOTHING_SUBSCRIBED),
        (b"\x08\x04", NOTHING_SUBSCRIBED),
        (b"", NOT_FOUND),
        (b"\x08", NOT_FOUND),
        (b"\x08\xff\xff", NOT_FOUND),
        (b"\xff" * 1024, NOT_FOUND),
    ],
)
def test_each_request_has_an_answer_that_ends_it(request_: bytes, answer: bytes) -> None:
    assert no_ledgers(LedgerRequest(request_)) == (Code.CHANGED, answer, ())


def test_the_bytes_are_what_the_firmware_s_protobuf_says() -> None:
    # Response.ledger_get_info, ledger_subscribe: empty; Response.result: sint32 2, LEDGER_NOT_FOUND.
    assert (NO_INFORMATION.hex(), NOTHING_SUBSCRIBED.hex(), NOT_FOUND.hex()) == ("1a00", "3200", "0804")


def test_blocks_are_asked_for_until_the_last_one() -> None:
    for number, more, code, payload in (
        (0, True, Code.CONTINUE, b""),
        (1, True, Code.CONTINUE, b""),
        (2, False, Code.CHANGED, NOT_FOUND),
    ):
        block1 = write_block(Block(number, more, 6))
        found = no_ledgers(LedgerRequest(SET_DATA if number == 0 else bytes(100), block1, b"\x01"))
        assert found == (code, payload, ((Option.BLOCK1, block1),))
    # One block that is all, and a value that says nothing.
    assert no_ledgers(LedgerRequest(GET_INFO, write_block(Block(0, False, 6))))[1] == NO_INFORMATION
    assert no_ledgers(LedgerRequest(GET_INFO, b"\x07"))[1] == NO_INFORMATION
