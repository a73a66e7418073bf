"""The switchboard of one process: whatever holds devices is in it."""

from __future__ import annotations

from wirechamber.switchboard.base import Holder, Offline, Question, Value


class MemorySwitchboard:
    """Asks the one holder that has announced itself."""

    def __init__(self) -> None:
        self._holder: Holder | None = None

    def connect(self, holder: Holder) -> None:
        """From now on, questions go to this holder."""
        self._holder = holder

    async def ask(self, device: str, question: Question) -> Value:
        """As `Switchboard.ask`."""
        if self._holder is None:
            raise Offline("the device is offline", error="timed out")
        return await self._holder.ask(device, question)
