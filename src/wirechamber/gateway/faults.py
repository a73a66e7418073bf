"""One device's fault is that device's: what goes wrong with it inside a loop over many ends there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import structlog

from wirechamber.gateway.link import Link
from wirechamber.observe.logs import Seldom

_seldom = Seldom(structlog.get_logger("wirechamber.gateway"))


class Faults:
    """Counts, and tells once in a while, what went wrong with single devices by an error of ours.

    Attributes:
        counted: By part.
    """

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()

    def of(self, link: Link | None, part: str, problem: Exception) -> None:
        """Something failed that concerns one device, or somebody who is no device yet; the others go on."""
        self.counted[part] += 1
        device = None if link is None or link.device is None else link.device.id
        _seldom.warning("device_fault", why=f"{part}: {problem!r}", device=device, exc_info=problem)

    def guard(self, link: Link | None, part: str, work: Callable[[], object]) -> bool:
        """Does something for one of many; False: it failed."""
        try:
            work()
        except Exception as problem:
            self.of(link, part, problem)
            return False
        return True
