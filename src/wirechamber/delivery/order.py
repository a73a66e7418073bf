"""Keeps deliveries in line where their order counts and some of them wait as rows.

A lane whose order counts performs one plan at a time, and what fails goes back to its front, so in memory its jobs
can't overtake each other. When some are put aside for want of memory, whatever comes after them must become a row
behind them. Known in memory only: after a restart, what waits as a row may be overtaken.
"""

from __future__ import annotations

from wirechamber.delivery.lanes import LaneKey


class Order:
    """How many rows of each lane wait, and when the last of them is due."""

    def __init__(self) -> None:
        self._lines: dict[LaneKey, tuple[int, int]] = {}

    def behind(self, lane: LaneKey) -> bool:
        """Whether rows wait ahead of a job that is new."""
        return lane in self._lines

    def row(self, lane: LaneKey, due: int) -> int:
        """A job becomes a row, the last of its line: when it is due, later than the one before it."""
        rows, last = self._lines.get(lane, (0, 0))
        last = max(due, last + 1)
        self._lines[lane] = rows + 1, last
        return last

    def resumed(self, lane: LaneKey) -> None:
        """The first row came back to memory."""
        rows, last = self._lines.get(lane, (0, 0))
        if rows > 1:
            self._lines[lane] = rows - 1, last
        else:
            self._lines.pop(lane, None)
