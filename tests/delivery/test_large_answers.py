"""Large answers have places, and owners shares of them."""

from __future__ import annotations

from collections import Counter

from wirechamber.delivery.flight import MAX_LARGE_ANSWERS, LargeAnswers, Place


def test_an_owner_has_half_of_the_places_and_leaves_room_for_others() -> None:
    counted: Counter[str] = Counter()
    large = LargeAnswers(counted)

    def taken(owner: str) -> list[Place]:
        return [place for place in (large.take(owner) for _ in range(MAX_LARGE_ANSWERS)) if place is not None]

    took = {owner: taken(owner) for owner in ("ann", "bob", "cleo")}
    assert {owner: len(places) for owner, places in took.items()} == {"ann": 32, "bob": 16, "cleo": 8}
    assert counted["large"] == 3 * MAX_LARGE_ANSWERS - 56
    for places in took.values():
        for place in places:
            place.give_back()
            # Whoever says it twice takes nobody else's.
            place.give_back()
    assert len(taken("ann")) == 32
