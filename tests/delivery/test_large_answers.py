"""Large answers have places, and owners shares of them."""

from __future__ import annotations

from collections import Counter

from wirechamber.delivery.flight import MAX_LARGE_ANSWERS, LargeAnswers


def test_an_owner_has_half_of_the_places_and_leaves_room_for_others() -> None:
    counted: Counter[str] = Counter()
    large = LargeAnswers(counted)
    took = {owner: sum(large.take(owner) for _ in range(MAX_LARGE_ANSWERS)) for owner in ("ann", "bob", "cleo")}
    assert took == {"ann": 32, "bob": 16, "cleo": 8}
    assert counted["large"] == 3 * MAX_LARGE_ANSWERS - 56
    for owner, places in took.items():
        for _ in range(places):
            large.give_back(owner)
    assert sum(large.take("ann") for _ in range(MAX_LARGE_ANSWERS)) == 32
