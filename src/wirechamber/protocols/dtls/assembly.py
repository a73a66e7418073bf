"""Handshake messages from their fragments, in order, each once (RFC 6347, sections 4.2.2 and 4.2.3)."""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

from wirechamber.protocols.dtls.messages import MESSAGE_HEADER
from wirechamber.protocols.dtls.wire import Malformed

# The longest message that can be meant for us is a Certificate with a raw public key, 94 bytes, or a ClientHello, which
# is read before. A stranger's certificate chain is longer and refused.
MAX_MESSAGE = 2048
# A flight has five messages; one from further on is dropped and comes again.
MAX_AHEAD = 8
# So a peer that begins messages and never ends them holds this much.
MAX_BUFFERED = 4096

# Type and length (1 + 3 bytes), message number, offset and length of the fragment (3 + 3 bytes).
_header = Layout(">IH6s")


class Fragment(Struct, frozen=True, gc=False):
    """A part of a message, or all of it."""

    kind: int
    length: int
    sequence: int
    offset: int
    data: bytes


def read_fragments(content: bytes) -> list[Fragment]:
    """What a handshake record holds: at least one fragment; raises `Malformed`."""
    fragments = []
    at = 0
    size = len(content)
    while True:
        if at + MESSAGE_HEADER > size:
            raise Malformed("part of a header")
        kind_length, sequence, place = _header.unpack_from(content, at)
        length = kind_length & 0xFFFFFF
        offset, count = divmod(int.from_bytes(place, "big"), 1 << 24)
        start = at + MESSAGE_HEADER
        at = start + count
        if at > size or offset + count > length:
            raise Malformed("a fragment beyond the end of its record or message")
        fragments.append(Fragment(kind_length >> 24, length, sequence, offset, content[start:at]))
        if at == size:
            return fragments


class _Partial:
    __slots__ = ("data", "kind", "missing")

    def __init__(self, kind: int, length: int) -> None:
        self.kind = kind
        self.data = bytearray(length)
        # Bit n: byte n has not come. However fragments overlap, this is all that is kept.
        self.missing = (1 << length) - 1


class Assembly:
    """Collects fragments and gives messages out by their numbers.

    Args:
        expected: The number of the next message.
    """

    __slots__ = ("_buffered", "_partials", "expected")

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self._partials: dict[int, _Partial] = {}
        self._buffered = 0

    @property
    def buffered(self) -> int:
        """Bytes that are held."""
        return self._buffered

    def add(self, fragment: Fragment) -> bool:
        """Takes a fragment; False when its message has been given out already, so that the peer repeats itself.

        Raises `Malformed` when the message is longer than any that is meant for us.
        """
        ahead = fragment.sequence - self.expected
        if ahead < 0:
            return False
        if ahead >= MAX_AHEAD:
            return True
        length = fragment.length
        if length > MAX_MESSAGE:
            raise Malformed(f"a message of {length} bytes")
        partial = self._partials.get(fragment.sequence)
        if partial is None:
            # The message that is due always finds room, or the handshake could be stopped by those after it.
            if self._buffered + length > MAX_BUFFERED and ahead:
                return True
            partial = self._partials[fragment.sequence] = _Partial(fragment.kind, length)
            self._buffered += length
        elif partial.kind != fragment.kind or len(partial.data) != length:
            # Not of the same message; which of them is right can't be told.
            return True
        size = len(fragment.data)
        partial.data[fragment.offset : fragment.offset + size] = fragment.data
        partial.missing &= ~(((1 << size) - 1) << fragment.offset)
        return True

    def next(self) -> tuple[int, int, bytes] | None:
        """Type, number and body of the message that is due, if it is complete."""
        partial = self._partials.get(self.expected)
        if partial is None or partial.missing:
            return None
        sequence = self.expected
        del self._partials[sequence]
        self._buffered -= len(partial.data)
        self.expected = sequence + 1
        return partial.kind, sequence, bytes(partial.data)
