"""How far dispatch has come: the cursor below which every delivery has been settled.

The cursor moves when the *oldest* outstanding event is settled, so a crash repeats what is in flight and loses nothing.
"""

from __future__ import annotations

from collections import deque

from wirechamber.eventlog.base import Cursor


class Mark:
    """An event of which deliveries are outstanding.

    Attributes:
        upto: Everything up to here is settled once this mark and all before it are.
        open: Deliveries that are not yet settled.
    """

    __slots__ = ("open", "upto")

    def __init__(self, upto: Cursor, deliveries: int) -> None:
        self.upto = upto
        self.open = deliveries


class Watermark:
    """The cursor that may be stored.

    Args:
        cursor: As it was stored last.
    """

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._marks: deque[Mark] = deque()

    def passed(self, cursor: Cursor, deliveries: int) -> Mark | None:
        """The reader has passed an event that triggered so many deliveries; its mark, if there are any."""
        if deliveries:
            mark = Mark(cursor, deliveries)
            self._marks.append(mark)
            return mark
        if self._marks:
            self._marks[-1].upto = cursor
        else:
            self.cursor = cursor
        return None

    def settled(self, mark: Mark) -> None:
        """One delivery of the mark's event is settled."""
        mark.open -= 1
        while self._marks and not self._marks[0].open:
            self.cursor = self._marks.popleft().upto

    @property
    def outstanding(self) -> int:
        """How many events wait for their deliveries."""
        return len(self._marks)
