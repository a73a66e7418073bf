"""How much of what does not verify is looked at, by network.

Records of Device OS before 3.1 that moved name their device in the clear (device-protocol.md, section 4.5), so anybody
can make us try a device's keys. One try is cheap; a flood of them is not worth more than what its network gets here.
Only tries that failed count, so devices themselves are not slowed down.
"""

from __future__ import annotations

from collections import OrderedDict

from wirechamber.gateway.allowance import Allowance

# Tries that fail, at once and then per second, before a network's records are dropped unread for a moment. A device
# that comes to this network meanwhile waits that moment, too, and repeats; one that was there is not held up.
BURST = 64
RATE = 16.0
# Networks that are remembered. Whoever has more of them gets a burst from each.
MAX_NETWORKS = 4096


class Forgeries:
    """Counts tries that failed."""

    def __init__(self) -> None:
        self._allowances: OrderedDict[str, Allowance] = OrderedDict()
        self._shut: dict[str, float] = {}

    def shut(self, network: str, now: float) -> bool:
        """Whether nothing of a network is tried for now."""
        until = self._shut.get(network)
        if until is None:
            return False
        if now < until:
            return True
        del self._shut[network]
        return False

    def failed(self, network: str, now: float) -> None:
        """A record from a network did not verify."""
        allowance = self._allowances.pop(network, None) or Allowance(BURST)
        self._allowances[network] = allowance
        wait = allowance.take(now, RATE, BURST)
        if wait:
            self._shut[network] = now + wait
        if len(self._allowances) > MAX_NETWORKS:
            oldest, _ = self._allowances.popitem(last=False)
            self._shut.pop(oldest, None)
