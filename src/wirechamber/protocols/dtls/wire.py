"""Reading and writing TLS's presentation language (RFC 5246, section 4): numbers, and vectors with their length."""

from __future__ import annotations


class Malformed(Exception):
    """The bytes are not what the structure demands; the message says where."""


class Reader:
    """Walks over bytes from the network and checks every length itself.

    All methods raise `Malformed` when there are fewer bytes than asked for.
    """

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes have not been read."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise Malformed(f"{count} bytes expected, {self.left} left")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes."""
        at = self._at
        end = self._at = at + size
        taken = self._data[at:end]
        if len(taken) < size:
            raise Malformed(f"a number of {size} bytes expected, {len(taken)} left")
        return int.from_bytes(taken, "big")

    def vector(self, size: int, least: int = 0, most: int | None = None) -> bytes:
        """A vector whose length is written in `size` bytes and lies between `least` and `most`."""
        length = self.number(size)
        if length < least or (most is not None and length > most):
            raise Malformed(f"a vector of {length} bytes")
        return self.take(length)

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(self.left)

    def end(self) -> None:
        """Raises unless everything was read."""
        if self.left:
            raise Malformed(f"{self.left} bytes too many")


def number(value: int, size: int) -> bytes:
    """An unsigned number of `size` bytes."""
    return value.to_bytes(size, "big")


def vector(data: bytes, size: int) -> bytes:
    """`data` with its length in front, in `size` bytes."""
    return len(data).to_bytes(size, "big") + data


def numbers(data: bytes) -> tuple[int, ...]:
    """A list of 2-byte numbers; raises `Malformed` when the bytes are odd."""
    if len(data) % 2:
        raise Malformed("half a number at the end of a list")
    return tuple(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
