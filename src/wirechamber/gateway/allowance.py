"""How often a device may publish: a token bucket (device-protocol.md, section 12; RFC 8516 for the refusal)."""

from __future__ import annotations

# Device OS allows itself 255 events under its own names in 65.5 s (device-protocol.md, section 12).
SYSTEM_BURST = 255.0
SYSTEM_RATE = 255 / 65.5


class Allowance:
    """One device's bucket. Idle, it costs two numbers.

    Args:
        burst: How many events may come at once; the bucket is full at first.
    """

    __slots__ = ("_at", "_left")

    def __init__(self, burst: float) -> None:
        self._left = burst
        self._at = 0.0

    def take(self, now: float, rate: float, burst: float) -> float:
        """Takes one event's worth; returns 0, or the seconds to wait before there is enough again.

        Args:
            now: Seconds, monotonic.
            rate: Events per second on average.
        """
        left = min(burst, self._left + (now - self._at) * rate)
        self._at = now
        if left >= 1.0:
            self._left = left - 1.0
            return 0.0
        self._left = left
        return (1.0 - left) / rate
