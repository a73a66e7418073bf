"""Bodies that are too long for one message, in blocks (RFC 7959).

`Receiver` puts a request together that comes in Block1 blocks, `Fetch` a response that is asked for in Block2 blocks;
`block_of` and `Sending` are the other ends. All are bounded: in size, in number, and in how long they wait.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import ceil

from msgspec import Struct

from wirechamber.protocols.coap.message import Code, Message, Option, uint

# The largest body. Device OS describes itself in a few KB, and publishes 16 KB at most since 6.3.
MAX_BODY = 65_536
# Bodies that one peer may be in the middle of. Device OS sends one description at a time; another request may come by.
MAX_TRANSFERS = 4
# EXCHANGE_LIFETIME (RFC 7252, section 4.8.2): a block that is not followed by the next for so long is not followed.
PATIENCE = 247.0
# Sizes are 2 to the power of this plus 4: 1024 and 512 bytes. 7 is reserved.
SZX_1024 = 6
SZX_512 = 5
_RESERVED_SZX = 7
# The number of a block has 20 bits.
_MAX_NUMBER = 0xFFFFF
# device-protocol.md, section 6: a device whose messages are smaller uses blocks of 512 bytes.
_ROOM_FOR_1024 = 1040


class Block(Struct, frozen=True, gc=False):
    """The value of a Block1 or Block2 option (RFC 7959, section 2.2)."""

    number: int
    more: bool
    szx: int

    @property
    def size(self) -> int:
        """Of each block but the last, bytes."""
        return 1 << self.szx + 4

    @property
    def offset(self) -> int:
        """Where in the body it begins, bytes."""
        return self.number << self.szx + 4


def read_block(value: bytes) -> Block | None:
    """What a block option says; None if it says nothing that is allowed."""
    if len(value) > 3:
        return None
    number = int.from_bytes(value, "big")
    if number & 7 == _RESERVED_SZX:
        return None
    return Block(number >> 4, bool(number & 8), number & 7)


def write_block(block: Block) -> bytes:
    """The value of a block option.

    Raises:
        ValueError: There is no such block.
    """
    if not 0 <= block.number <= _MAX_NUMBER or not 0 <= block.szx < _RESERVED_SZX:
        raise ValueError("no such block")
    return uint(block.number << 4 | block.more << 3 | block.szx)


def szx_for(max_message: int) -> int:
    """The size of blocks for a Device OS device, which must be exactly this (device-protocol.md, section 6).

    Args:
        max_message: The largest message that it takes, as its Hello says, bytes.
    """
    return SZX_1024 if max_message >= _ROOM_FOR_1024 else SZX_512


# --- requests in blocks: the receiving end ---


class More(Struct, frozen=True, gc=False):
    """The block is kept, more are to come. To be answered by 2.31 and this option, or by as little as an empty ACK."""

    option: tuple[int, bytes]


class Whole(Struct, frozen=True, gc=False):
    """The body is complete."""

    body: bytes


class Refused(Struct, frozen=True, gc=False):
    """It can't be completed; it begins anew with its first block.

    Attributes:
        code: To answer by, where it is a request.
    """

    why: str
    code: int


class _Transfer:
    __slots__ = ("body", "last", "last_at")

    def __init__(self) -> None:
        self.body = bytearray()
        # Where the last block began, in case it comes again.
        self.last = 0
        self.last_at = 0.0


class Receiver:
    """Puts requests of one peer together from their blocks (RFC 7959, section 2.5).

    Blocks of a request come one after the other. The next may come in another message with another token, as Device OS
    does it, so whoever calls says what belongs together.
    """

    __slots__ = ("_limit", "_transfers")

    def __init__(self, limit: int = MAX_BODY) -> None:
        self._limit = limit
        self._transfers: dict[Hashable, _Transfer] = {}

    def __bool__(self) -> bool:
        return bool(self._transfers)

    @property
    def held(self) -> int:
        """Bytes of bodies that are not complete."""
        return sum(len(transfer.body) for transfer in self._transfers.values())

    def take(self, key: Hashable, option: bytes, payload: bytes, now: float) -> More | Whole | Refused:
        """Takes a block.

        Args:
            key: What all blocks of this request, and no others of this peer's, have in common: such as method, path,
                query and Request-Tag.
            option: The value of Block1.
        """
        block = read_block(option)
        if block is None or (block.more and len(payload) != block.size) or len(payload) > block.size:
            self._transfers.pop(key, None)
            return Refused("a block that does not have its size", Code.BAD_REQUEST)
        self.expire(now)
        offset = block.offset
        transfer = self._transfers.get(key)
        if offset == 0:
            # RFC 7959, section 2.5: a first block begins anew.
            transfer = _Transfer()
            self._transfers.pop(key, None)
            while len(self._transfers) >= MAX_TRANSFERS:
                del self._transfers[next(iter(self._transfers))]
            self._transfers[key] = transfer
        elif transfer is None:
            return Refused("a block without those before it", Code.REQUEST_ENTITY_INCOMPLETE)
        if offset != len(transfer.body):
            if offset == transfer.last and transfer.body[offset:] == payload:
                # The last one again, in a new message: what it was answered by was lost together with a session.
                transfer.last_at = now
                return More((Option.BLOCK1.value, option))
            del self._transfers[key]
            return Refused("a block that is not the next", Code.REQUEST_ENTITY_INCOMPLETE)
        if offset + len(payload) > self._limit:
            del self._transfers[key]
            return Refused(f"a body longer than {self._limit} bytes", Code.REQUEST_ENTITY_TOO_LARGE)
        transfer.last = offset
        transfer.last_at = now
        transfer.body += payload
        if block.more:
            return More((Option.BLOCK1.value, option))
        del self._transfers[key]
        return Whole(bytes(transfer.body))

    def expire(self, now: float) -> None:
        """Forgets what was begun and not gone on with."""
        for key in [key for key, transfer in self._transfers.items() if now - transfer.last_at >= PATIENCE]:
            del self._transfers[key]


# --- requests in blocks: the sending end ---


class Sending:
    """A body to be sent in Block1 blocks, each once the one before it was answered."""

    __slots__ = ("_body", "_number", "_szx")

    def __init__(self, body: bytes, szx: int = SZX_1024) -> None:
        self._body = body
        self._szx = szx
        self._number = 0

    def next(self) -> tuple[bytes, bytes] | None:
        """The value of Block1 and the payload of the next block; None: that was the last one."""
        found = block_of(self._body, Block(self._number, False, self._szx))
        if found is None:
            return None
        self._number += 1
        return found


def block_of(body: bytes, wanted: Block) -> tuple[bytes, bytes] | None:
    """One block of a body: the value of its option, and the payload. None: the body ends before it."""
    offset, size = wanted.offset, wanted.size
    if offset >= len(body) and wanted.number:
        return None
    return write_block(Block(wanted.number, offset + size < len(body), wanted.szx)), body[offset : offset + size]


# --- responses in blocks ---


class Next(Struct, frozen=True, gc=False):
    """The next block is to be asked for, with this value of Block2."""

    option: bytes


class Fetch:
    """Puts a response together from its blocks (RFC 7959, section 2.4).

    Args:
        limit: The longest body, bytes.
    """

    __slots__ = ("_body", "_etag", "_limit", "_szx")

    def __init__(self, limit: int = MAX_BODY) -> None:
        self._body = bytearray()
        self._etag: bytes | None = None
        self._szx: int | None = None
        self._limit = limit

    def take(self, response: Message) -> Next | Whole | Refused:
        """Takes a response, the first or the one that `Next` asked for."""
        value = response.option(Option.BLOCK2)
        if value is None:
            if self._body:
                return Refused("not a block, though one was asked for", response.code)
            return self._kept(response.payload) or Whole(response.payload)
        block = read_block(value)
        if block is None or (block.more and len(response.payload) != block.size) or len(response.payload) > block.size:
            return Refused("a block that does not have its size", response.code)
        etag = response.option(Option.ETAG)
        if not self._body:
            self._etag = etag
        elif etag != self._etag:
            # RFC 7959, section 2.4: blocks of different representations are not put together.
            return Refused("the body has changed meanwhile", response.code)
        if block.offset != len(self._body):
            return Refused("not the block that was asked for", response.code)
        refused = self._kept(response.payload)
        if refused is not None:
            return refused
        if not block.more:
            return Whole(bytes(self._body))
        self._szx = block.szx
        return Next(write_block(Block(len(self._body) // block.size, False, block.szx)))

    def _kept(self, payload: bytes) -> Refused | None:
        if len(self._body) + len(payload) > self._limit:
            return Refused(f"a body longer than {self._limit} bytes", Code.REQUEST_ENTITY_TOO_LARGE)
        self._body += payload
        return None


def count(length: int, szx: int = SZX_1024) -> int:
    """How many blocks a body of this length takes."""
    return max(1, ceil(length / (1 << szx + 4)))
