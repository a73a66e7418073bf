"""What the devices of one owner want to have."""

from __future__ import annotations

from wirechamber.gateway.link import Link
from wirechamber.model.events import Event
from wirechamber.model.links import Subscription
from wirechamber.model.prefixes import Prefixes


class Wishes:
    """The links of an owner by what they want."""

    __slots__ = ("of", "of_all")

    def __init__(self) -> None:
        self.of_all: Prefixes[Link] = Prefixes()
        # Where only the events of one device are wanted.
        self.of: dict[str, Prefixes[Link]] = {}

    def __bool__(self) -> bool:
        return bool(self.of_all or self.of)

    def add(self, subscription: Subscription, link: Link) -> None:
        """The link wants what this subscription brings."""
        sender = subscription.device
        prefixes = self.of_all if sender is None else self.of.setdefault(sender, Prefixes())
        prefixes.add(subscription.prefix, link)

    def discard(self, subscription: Subscription, link: Link) -> None:
        """It does not want that any more."""
        sender = subscription.device
        prefixes = self.of_all if sender is None else self.of.get(sender)
        if prefixes is None:
            return
        prefixes.discard(subscription.prefix, link)
        if sender is not None and not prefixes:
            del self.of[sender]

    def match(self, event: Event) -> list[Link]:
        """Those who want the event; one may come several times."""
        found = self.of_all.match(event.name)
        of = self.of.get(event.coreid)
        return found if of is None else found + of.match(event.name)
