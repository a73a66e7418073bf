"""Shares of a bounded room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirechamber.shares import Shares, neighbours_of, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:4711", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("[2001:db8:1:2::7]:443", "2001:db8:1:2::"),
        ('"[2001:db8:1:2::7]:443"', "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        (" 203.0.113.9 ", "203.0.113.9"),
        ("unknown", ""),
        ("_hidden:80", ""),
        ("", ""),
    ],
)
def test_an_address_counts_for_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_ipv4_can_be_counted_by_wider_networks() -> None:
    assert neighbours_of("203.0.113.9") == neighbours_of("203.0.113.200") == "203.0.113.0"
    assert neighbours_of("2001:db8:1:2::7") == "2001:db8:1:2::"


def test_a_holder_beyond_its_share_loses_its_own_oldest() -> None:
    shares: Shares[int] = Shares(room=10, each=2)
    assert shares.add("a", 1) is None
    assert shares.add("b", 2) is None
    assert shares.add("a", 3) is None
    assert shares.add("a", 4) == 1
    assert (shares.held("a"), shares.held("b"), len(shares)) == (2, 1, 3)


def test_when_the_room_is_full_whoever_holds_most_gives_way() -> None:
    shares: Shares[str] = Shares(room=5)
    for number in range(4):
        shares.add("flood", f"flood {number}")
    shares.add("innocent", "first")
    assert shares.add("newcomer", "second") == "flood 0"
    assert shares.add("flood", "flood 4") == "flood 1"
    assert shares.held("innocent") == shares.held("newcomer") == 1


def test_of_the_group_that_holds_most_whoever_holds_most_gives_way() -> None:
    shares: Shares[str] = Shares(room=6)
    shares.add("one", "1", "wide")
    shares.add("two", "2", "wide")
    shares.add("two", "3", "wide")
    shares.add("three", "4", "wide")
    # More than any of those, and less than all of them.
    shares.add("alone", "5")
    shares.add("alone", "6")
    assert shares.add("newcomer", "7") == "2"
    assert shares.add("alone", "8") == "1"
    assert shares.add("four", "9", "wide") == "5"


def test_an_item_that_is_added_again_is_its_new_holders_newest() -> None:
    shares: Shares[int] = Shares(room=5)
    shares.add("a", 1)
    shares.add("b", 1)
    assert (shares.held("a"), shares.held("b"), len(shares)) == (0, 1, 1)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 30), st.booleans()), max_size=200), st.integers(1, 8))
def test_the_newcomer_always_stays_and_no_bound_is_passed(steps: list[tuple[int, int, bool]], each: int) -> None:
    shares: Shares[int] = Shares(room=12, each=each)
    model: dict[int, str] = {}
    for holder, item, add in steps:
        if not add:
            assert shares.discard(item) == (model.pop(item, None) is not None)
            continue
        counts: dict[str, int] = {}
        model.pop(item, None)
        for owner in model.values():
            counts[owner] = counts.get(owner, 0) + 1
        out = shares.add(str(holder), item)
        if out is not None:
            loser = model.pop(out)
            counts[str(holder)] = counts.get(str(holder), 0) + 1
            assert loser == str(holder) or counts[loser] == max(counts.values())
        model[item] = str(holder)
        assert item in shares
        assert len(shares) == len(model) <= 12
        assert all(shares.held(owner) <= each for owner in set(model.values()))
