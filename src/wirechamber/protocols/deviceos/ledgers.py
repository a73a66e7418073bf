"""What a cloud without ledgers answers to a device that asks about them (device-protocol.md, 7.8).

What firmware from 5.8 to 6.2 makes of an answer (its `system/src/ledger/ledger_manager.cpp`):

- An error by its code alone, such as 4.04, makes it ask again after 30 seconds to 5 minutes, for ever.
- Information about no ledger says that there is none of those that it asked for. It forgets what another cloud told it
  of them, and asks no more before it connects anew.
- The same as the answer to anything else would mean success: it would take data for stored that is not, or empty its
  own. "Not found" makes it ask for information about those ledgers.
- If it had subscribed to one that is not there, it subscribes anew, to nothing; that is taken.

All of it is 2.04: 2.05 would set the device's clock (device-protocol.md, Q19).
"""

from __future__ import annotations

from wirechamber.protocols.coap.blockwise import read_block
from wirechamber.protocols.coap.message import Code, Option
from wirechamber.protocols.deviceos.messages import LedgerRequest
from wirechamber.protocols.deviceos.varint import TooShort, read_varint

# `particle.cloud.Request`, in Protobuf's encoding: the type is field 1, a number.
_TYPE = 0x08
_GET_INFO, _SUBSCRIBE = 1, 4
# Field 5, a message without fields: no ledger to subscribe to.
_NO_LEDGERS = (b"", b"\x2a\x00")
# `particle.cloud.Response`: field 3, a message without fields.
NO_INFORMATION = b"\x1a\x00"
# Field 6, the same.
NOTHING_SUBSCRIBED = b"\x32\x00"
# Field 1, the result: LEDGER_NOT_FOUND, 2, as a signed number.
NOT_FOUND = b"\x08\x04"

Answer = tuple[int, bytes, tuple[tuple[int, bytes], ...]]


def no_ledgers(request: LedgerRequest) -> Answer:
    """The answer to a request, or to a block of one: its code, payload and options.

    Blocks are not put together: of a request that has several, data for a ledger or many subscriptions, the answer is
    always the same.
    """
    block = None if request.block1 is None else read_block(request.block1)
    if block is not None and block.more:
        # Firmware goes on after 2.31 only.
        return Code.CONTINUE, b"", ((Option.BLOCK1.value, request.block1 or b""),)
    if block is not None and block.number:
        return Code.CHANGED, NOT_FOUND, ((Option.BLOCK1.value, request.block1 or b""),)
    kind, rest = _kind(request.payload)
    if kind == _GET_INFO:
        return Code.CHANGED, NO_INFORMATION, ()
    if kind == _SUBSCRIBE and rest in _NO_LEDGERS:
        return Code.CHANGED, NOTHING_SUBSCRIBED, ()
    return Code.CHANGED, NOT_FOUND, ()


def _kind(payload: bytes) -> tuple[int | None, bytes]:
    """The type of a request, and what follows it."""
    if payload[:1] != bytes((_TYPE,)):
        return None, payload
    try:
        kind, at = read_varint(payload, 1)
    except TooShort:
        return None, payload
    return kind, payload[at:]
