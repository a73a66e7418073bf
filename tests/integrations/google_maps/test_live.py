"""GoogleMaps on a running cloud, against a strict stand-in of the Geolocation API; `googlemaps` asks the same one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import googlemaps
import httpx
import pytest
from googlemaps import geolocation as library

from tests.cloud import Cloud, cloud, eventually
from tests.sse import Seen, stream, take
from tests.standins.geolocation import PATH, SERVER_PLACE, Geolocation, error
from tests.standins.server import in_json, times
from wirechamber.integrations.google_maps.scan import question, read

WIFI = '{"w":{"a":[{"m":"3c:37:86:5d:75:d4","s":-45,"c":6},{"m":"94:b4:0f:fd:c1:40","s":-60,"c":11}]}}'
CELL = '{"c":{"o":"AT&T","a":[{"i":42,"l":33,"c":310,"n":410}]}}'
LTE = '{"c":{"o":"","a":[{"i":200000001,"l":678,"c":310,"n":410}]}}'
UNKNOWN = '{"w":{"a":[{"m":"00:11:22:33:44:55","s":-45,"c":6},{"m":"00:11:22:33:44:56","s":-60,"c":11}]}}'


@pytest.fixture
def google() -> Iterator[Geolocation]:
    with Geolocation() as service:
        yield service


@pytest.fixture
def live(tmp_path: Path, google: Geolocation) -> Iterator[Cloud]:
    settings = {"geolocation_url": google.url + PATH, "retry_schedule": "0,0.1,0.2"}
    with cloud(tmp_path / "data", **settings) as running:
        yield running


@pytest.fixture
def client(live: Cloud) -> httpx.Client:
    return live.client(live.user("ann"))


WIDE = '{"c":{"o":"","a":[{"i":%d,"l":678,"c":310,"n":410}]}}'


def make(client: httpx.Client, google: Geolocation, **rest: Any) -> str:
    made = client.post("/v1/integrations", json={"integration_type": "GoogleMaps", "api_key": google.key, **rest})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def results(client: httpx.Client, *scans: str, count: int = 2, name: str = "deviceLocator") -> list[Seen]:
    """The results after publishing scans."""
    with stream(client, "/v1/devices/events/hook-") as source:
        for scan in scans:
            assert client.post("/v1/devices/events", json={"name": name, "data": scan}).status_code == 200
        return take(source, count)


def attempts(client: httpx.Client, made: str) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/integrations/{made}/logs").json()["logs"])


def test_a_scan_comes_back_as_a_place(client: httpx.Client, google: Geolocation) -> None:
    made = make(client, google)
    sent, response = results(client, WIFI)
    assert (sent.name, response.name) == ("hook-sent/deviceLocator", "hook-response/deviceLocator/api/0")
    assert response.data == "38.9901,-77.5501,500"
    # The key goes to Google and nowhere else.
    assert google.asked[0].query == {"key": google.key}
    (found,) = eventually(lambda: attempts(client, made))
    assert found["ok"] is True
    assert found["request"]["url"].endswith("?key=[[SENSITIVE]]")
    assert google.key not in client.get(f"/v1/integrations/{made}").text


def test_towers_and_a_name_of_its_own(client: httpx.Client, google: Geolocation) -> None:
    make(client, google, event="where")
    seen = results(client, CELL, name="where/lamp")
    assert [(each.name, each.data) for each in seen] == [
        ("hook-sent/where/lamp", ""), ("hook-response/where/lamp/api/0", "37.42,-122.08,1000"),
    ]  # fmt: skip


def test_an_unknown_place_is_no_failure(client: httpx.Client, google: Geolocation) -> None:
    made = make(client, google)
    (told,) = results(client, UNKNOWN, count=1)
    assert told.name == "hook-error/deviceLocator/0"
    assert told.data.startswith("error status 404 from 127.0.0.1: the location is unknown")
    (found,) = eventually(lambda: attempts(client, made))
    assert (found["ok"], found["final"], found["status"]) == (True, True, 404)
    shown = client.get(f"/v1/integrations/{made}").json()["integration"]
    assert (shown["todayCounters"], shown["waiting"]) == ({"success": 1, "error": 0}, 0)


def test_a_wide_cell_is_asked_for_as_lte_and_then_as_3g(client: httpx.Client, google: Geolocation) -> None:
    google.wide = {70_000: "wcdma"}
    google.towers[310, 410, 678, 70_000] = (51.5, -0.1)
    make(client, google)
    (_, response) = results(client, WIDE % 70_000)
    assert response.data == "51.5,-0.1,1000"
    (_, response) = results(client, LTE)
    assert response.data == "40.5,-100.25,1000"
    (told,) = results(client, WIDE % 70_001, count=1)
    assert told.data.startswith("error status 404 from 127.0.0.1: the location is unknown")
    radios = [each["radioType"] for each in google.questions]
    assert radios == ["lte", "wcdma", "lte", "lte", "wcdma"]


@pytest.mark.parametrize(
    ("said", "paused", "tries", "says"),
    [
        (error(403, "accessNotConfigured", "Enable billing", "usageLimits"), True, 1, "enable the API and billing"),
        (error(400, "keyInvalid", "Bad Request", "usageLimits"), True, 1, "the API key is not valid"),
        (error(400, "parseError", "Parse Error", "global"), False, 1, "could not read the scan"),
        (in_json(500, {}), False, 3, "error status 500"),
        (in_json(200, {"location": {"lat": "north"}}), False, 3, "no location"),
        (in_json(200, [1]), False, 3, "no location"),
    ],
)
def test_errors_in_words(
    client: httpx.Client, google: Geolocation, said: Any, paused: bool, tries: int, says: str
) -> None:
    google.mode = lambda asked: said
    made = make(client, google)
    (told,) = results(client, WIFI, count=1)
    assert (told.name, says in told.data) == ("hook-error/deviceLocator/0", True), told.data
    found = eventually(lambda: len(logs := attempts(client, made)) == tries and logs)
    assert found[0]["error"] == told.data
    if paused:
        shown = eventually(
            lambda: (it := client.get(f"/v1/integrations/{made}").json()["integration"])["paused"] and it
        )
        assert shown["paused"] == told.data
        # What caused it waits, and is done when the key is mended.
        google.mode = None
        with stream(client, "/v1/devices/events/hook-sent") as source:
            assert client.put(f"/v1/integrations/{made}", json={"api_key": google.key}).status_code == 200
            take(source, 1)


@pytest.mark.parametrize(
    ("scan", "says"),
    [
        ('{"w":{"a":[{"m":"3c:37:86:5d:75:d4","s":-45,"c":6}]}}', "names 1 usable Wi-Fi network"),
        ('{"c":{"o":"","a":[{"i":268435455,"l":678,"c":310,"n":410}]}}', "no usable cell tower"),
    ],
)
def test_what_google_could_not_answer_is_not_asked_and_not_paid_for(
    client: httpx.Client, google: Geolocation, scan: str, says: str
) -> None:
    make(client, google)
    (told,) = results(client, scan, count=1)
    assert told.name == "hook-error/deviceLocator/0"
    assert says in told.data
    assert "not asked" in told.data
    assert google.asked == []


def test_a_quota_by_the_minute_waits(client: httpx.Client, google: Geolocation) -> None:
    google.mode = times(1, in_json(429, {}, ("Retry-After", "1")))
    made = make(client, google)
    (_, response) = results(client, WIFI)
    assert response.data == "38.9901,-77.5501,500"
    # Being throttled used up none of the attempts.
    found = eventually(lambda: len(logs := attempts(client, made)) == 2 and logs)
    assert [(each["attempt"], each["ok"]) for each in found] == [(1, True), (1, False)]


def test_a_device_that_stays_costs_one_look_up(client: httpx.Client, google: Geolocation, live: Cloud) -> None:
    make(client, google, cache_seconds=3600)
    weaker = WIFI.replace("-45", "-47")
    seen = results(client, WIFI)[1:]
    seen += results(client, weaker)[1:]
    assert [each.data for each in seen] == ["38.9901,-77.5501,500"] * 2
    assert len(google.asked) == 1
    results(client, CELL)
    assert len(google.asked) == 2
    live.stop()
    live.start()
    # What was remembered is written down.
    results(client, CELL)
    assert len(google.asked) == 2


def test_a_test_sends_a_sample_scan(client: httpx.Client, google: Geolocation) -> None:
    made = make(client, google)
    said = client.post(f"/v1/integrations/{made}/test", json={}).json()
    assert (said["ok"], said["status_code"], said["error"]) == (True, 200, None)
    google.mode = lambda asked: error(403, "accessNotConfigured", "Enable billing", "usageLimits")
    said = client.post(f"/v1/integrations/{made}/test", json={}).json()
    assert said["ok"] is False
    assert "enable the API and billing for its project" in said["error"]
    assert google.key not in json.dumps(said)


def test_from_the_command_line(live: Cloud, google: Geolocation, tmp_path: Path) -> None:
    live.environment |= {"WIRECHAMBER_URL": live.url, "WIRECHAMBER_TOKEN": live.user("ann"), "COLUMNS": "200"}
    (tmp_path / "key.txt").write_text(google.key + "\n")
    made = live.command(
        "integration",
        "create",
        "googlemaps",
        "--api-key",
        f"@{tmp_path / 'key.txt'}",
        "--cache-seconds",
        "60",
        "--json",
    )
    found = json.loads(made)
    assert (found["integration_type"], found["event"], found["cache_seconds"], found["api_key"]) == (
        "GoogleMaps", "deviceLocator", 60, "[[SENSITIVE]]",
    )  # fmt: skip
    assert "deviceLocator for Google Maps" in live.command("integration", "list")
    said = live.command("integration", "test", found["id"])
    assert "status 200" in said
    assert google.key not in said
    google.mode = lambda asked: error(403, "accessNotConfigured", "Enable billing", "usageLimits")
    with pytest.raises(AssertionError, match=r"error status 403 from [0-9.]+: the key may not use the Geo"):
        live.command("integration", "test", found["id"])
    kinds = live.command("integration", "kinds")
    assert "GoogleCloudPubSub" in kinds
    # What is required is asked for on a terminal only; a wrong value is the server's to refuse, with the field.
    for arguments, says in (
        (("AzureIotHub", "--event", "t"), "--hub-name is required: Name of the hub"),
        (("GoogleMaps", "--api-key", "a b"), "api_key: must be an API key as Google shows it"),
        (("GoogleMaps", "--api-key", "@/no/such/file"), "/no/such/file can't be read"),
        (
            ("GoogleMaps", "--api-key", google.key, "--cache-seconds", "-1"),
            "cache_seconds: must be a whole number from 0",
        ),
    ):
        with pytest.raises(AssertionError, match=says):
            live.command("integration", "create", *arguments)


@pytest.fixture
def theirs(google: Geolocation, monkeypatch: pytest.MonkeyPatch) -> googlemaps.Client:
    """Google's library for Python, pointed at the same service."""
    monkeypatch.setattr(library, "_GEOLOCATION_BASE_URL", google.url)
    return googlemaps.Client(key="AIza" + google.key[4:])


def test_googles_library_gets_the_same_answers(
    client: httpx.Client, google: Geolocation, theirs: googlemaps.Client
) -> None:
    make(client, google)
    for scan in (WIFI, CELL, LTE):
        asked = question(read(scan))
        answer = theirs.geolocate(
            consider_ip=asked["considerIp"], carrier=asked.get("carrier"), cell_towers=asked.get("cellTowers"),
            wifi_access_points=asked.get("wifiAccessPoints"), radio_type=asked.get("radioType"),
        )  # fmt: skip
        response = results(client, scan)[1]
        lat, lng, accuracy = map(float, response.data.split(","))
        assert answer == {"location": {"lat": lat, "lng": lng}, "accuracy": accuracy}
        assert google.questions[-1] == google.questions[-2]
    nothing = theirs.geolocate(consider_ip=False, wifi_access_points=[{"macAddress": "00:11:22:33:44:55"}])
    assert nothing["error"]["code"] == 404
    # Without considerIp the service answers with the place of whoever asks: the stand-in is as treacherous.
    assert theirs.geolocate(wifi_access_points=[{"macAddress": "00:11:22:33:44:55"}]) == SERVER_PLACE
