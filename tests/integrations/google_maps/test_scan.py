"""From a scan to the question for Google: a pure function of what the library publishes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wirechamber.integrations.google_maps.scan import BadScan, is_wide, question, read, same_place, sights, too_little

WIFI = '{"w":{"a":[{"m":"3c:37:86:5d:75:d4","s":-45,"c":6},{"m":"94:b4:0f:fd:c1:40","s":-60,"c":11}]}}'
CELL = '{"c":{"o":"AT&T","a":[{"i":42,"l":33,"c":310,"n":410},{"i":43,"l":33,"c":310,"n":410}]}}'


def asked(data: Any) -> dict[str, Any]:
    return question(read(data if isinstance(data, str) else json.dumps(data)))


def test_networks() -> None:
    assert asked(WIFI) == {
        "considerIp": False,
        "wifiAccessPoints": [
            {"macAddress": "3c:37:86:5d:75:d4", "signalStrength": -45, "channel": 6},
            {"macAddress": "94:b4:0f:fd:c1:40", "signalStrength": -60, "channel": 11},
        ],
    }


def test_towers() -> None:
    tower = {"locationAreaCode": 33, "mobileCountryCode": 310, "mobileNetworkCode": 410}
    assert asked(CELL) == {
        "considerIp": False, "carrier": "AT&T", "cellTowers": [{"cellId": 42} | tower, {"cellId": 43} | tower],
    }  # fmt: skip


def test_an_id_that_no_gsm_cell_has_is_asked_for_as_lte() -> None:
    found = asked({"c": {"o": "", "a": [{"i": 200_000_001, "l": 678, "c": 310, "n": 410}]}})
    assert found["radioType"] == "lte"
    assert "carrier" not in found


def test_it_may_be_a_cell_of_3g_as_well() -> None:
    scan = read('{"c":{"o":"","a":[{"i":70000,"l":678,"c":310,"n":410}]}}')
    assert is_wide(scan)
    assert question(scan, "wcdma") == {**question(scan), "radioType": "wcdma"}
    assert not is_wide(read(CELL))
    assert not is_wide(read(WIFI))
    assert question(read(CELL), "wcdma") == question(read(CELL))


def test_what_can_not_help_is_left_out() -> None:
    networks = [{"m": "3c:37:86:5d:75:d4"}, {"m": "02:00:00:00:00:01"}, {"m": "ff:ff:ff:ff:ff:ff"}, {"m": "phone"}]
    assert [each["macAddress"] for each in asked({"w": {"a": networks}})["wifiAccessPoints"]] == ["3c:37:86:5d:75:d4"]
    # Nothing else is there: better than nothing.
    assert len(asked({"w": {"a": networks[1:2]}})["wifiAccessPoints"]) == 1
    towers = [{"i": 1, "l": lac, "c": mcc, "n": 1} for lac, mcc in ((0, 310), (65535, 310), (7, 65535), (7, 310))]
    assert [each["locationAreaCode"] for each in asked({"c": {"a": towers}})["cellTowers"]] == [7]


@pytest.mark.parametrize(
    "data",
    [None, "", "hello", "[]", "{}", '{"w":{}}', '{"w":{"a":[]}}', '{"w":{"a":[{"m":1}]}}', '{"c":{"a":[{"i":"x"}]}}',
     '{"w":{"a":[{"m":"nonsense"}]}}', "[" * 5000],
)  # fmt: skip
def test_what_is_no_scan(data: str | None) -> None:
    with pytest.raises(BadScan, match="scan"):
        read(data)


def test_the_same_place_is_told_by_most_of_the_networks() -> None:
    here = sights(read(WIFI))
    assert same_place(here, here)
    assert same_place(list("abcdefgh"), list("abcdefghi"))
    assert not same_place(list("abcd"), list("abce"))
    assert not same_place([], [])
    assert sights(read(CELL)) == ["310-410-33-42"]


ONE = {"m": "3c:37:86:5d:75:d4", "s": -45, "c": 6}
TOWER = {"i": 42, "l": 33, "c": 310, "n": 410}


@pytest.mark.parametrize(
    "data",
    [
        {"w": {"a": [ONE]}},
        {"w": {"a": [ONE, ONE | {"m": "3C-37-86-5D-75-D4"}]}},
        {"w": {"a": [ONE, {"m": "02:00:00:00:00:01"}, {"m": "01:00:5e:00:00:01"}, {"m": "00:00:5e:00:01:01"}]}},
        {"w": {"a": [{"m": "02:00:00:00:00:01"}, {"m": "06:00:00:00:00:01"}]}},
        {"w": {"a": [ONE, {"m": "00:00:00:00:00:00"}]}, "c": {"a": [TOWER | {"i": 0}]}},
    ],
)
def test_what_google_could_not_answer_is_not_worth_asking(data: Any) -> None:
    problem = too_little(read(json.dumps(data)))
    assert problem is not None
    assert problem.endswith("it was not asked")


@pytest.mark.parametrize(
    "tower",
    [{"i": 0}, {"i": 65535}, {"i": 0xFFFFFFF}, {"i": 2147483647}, {"i": -1}, {"l": 0}, {"l": 65534}, {"l": 65535},
     {"l": -1}, {"c": 0}, {"c": 65535}, {"n": 65535}, {"n": -1}],
)  # fmt: skip
def test_a_tower_of_which_a_part_is_unknown_is_not_asked_for(tower: dict[str, int]) -> None:
    with pytest.raises(BadScan, match="Google was not asked"):
        read(json.dumps({"c": {"a": [TOWER | tower]}}))
    # Beside one that is known it is left out.
    assert len(asked({"c": {"a": [TOWER | tower, TOWER]}})["cellTowers"]) == 1


@pytest.mark.parametrize("data", [WIFI, CELL, {"w": {"a": [ONE]}, "c": {"a": [TOWER]}}])
def test_what_google_may_answer_is_asked(data: Any) -> None:
    assert too_little(read(data if isinstance(data, str) else json.dumps(data))) is None
