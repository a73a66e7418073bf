"""Guessing passwords at a real cloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.cloud import Cloud, cloud

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud behind a proxy that is trusted; each test has networks and accounts of its own."""
    with cloud(tmp_path_factory.mktemp("logins") / "data", trusted_proxies="127.0.0.0/8", login_failures="5") as live:
        for name in ("ann", "bob", "carl", "eve"):
            live.command("user", "create", name, "--password-stdin", stdin=PASSWORD + "\n")
        yield live


def log_in(live: Cloud, address: str, password: str = "wrong horse", name: str = "ann") -> httpx.Response:
    return httpx.post(
        f"{live.url}/oauth/token",
        data={"grant_type": "password", "username": name, "password": password},
        headers={"X-Forwarded-For": address},
        timeout=60,
    )


def test_many_guesses_at_once_are_no_more_than_one_after_the_other(behind: Cloud) -> None:
    with ThreadPoolExecutor(50) as threads:
        found = Counter(answer.status_code for answer in threads.map(lambda _: log_in(behind, "192.0.2.1"), range(150)))
    assert found[400] <= 5
    assert found[400] + found[429] == 150
    # Who is somewhere else has not waited for them, nor is kept out.
    assert log_in(behind, "192.0.2.2", PASSWORD).status_code == 200


@pytest.mark.parametrize(
    "addresses",
    [
        [f"203.0.113.9:{port}" for port in range(1000, 1007)],
        [f"2001:db8::{number:x}" for number in range(1, 8)],
        [f"[2001:db8:1::{number:x}]:{number}" for number in range(1, 8)],
        [f"::ffff:203.0.113.8%eth{number}" for number in range(7)],
        [f"nonsense {number}" for number in range(7)],
    ],
    ids=["ports", "a /64", "brackets", "zones", "nonsense"],
)
def test_one_network_counts_as_one_however_it_is_written(behind: Cloud, addresses: list[str]) -> None:
    names = [f"nobody of {addresses[0]} {number}".replace(" ", "-") for number in range(7)]
    seen = [log_in(behind, address, name=name).status_code for address, name in zip(addresses, names, strict=True)]
    assert seen == [400] * 5 + [429] * 2


def test_a_login_of_ones_own_forgives_nothing_at_others_accounts(behind: Cloud) -> None:
    seen = []
    for _ in range(7):
        seen.append(log_in(behind, "192.0.2.3", name="bob").status_code)
        log_in(behind, "192.0.2.3", PASSWORD, "eve")
    assert seen == [400] * 5 + [429] * 2


def test_one_account_is_not_guessed_at_from_many_networks(behind: Cloud) -> None:
    assert log_in(behind, "198.51.100.1", PASSWORD, "carl").status_code == 200
    seen = [log_in(behind, f"198.51.100.{number}", name="carl").status_code for number in range(2, 15)]
    assert seen == [400] * 10 + [429] * 3
    # Its owner is not kept out of where she was.
    assert log_in(behind, "198.51.100.1", PASSWORD, "carl").status_code == 200


def test_the_same_holds_for_basic_and_for_changing_the_account(behind: Cloud) -> None:
    token = behind.command("token", "create", "--user", "bob").strip()
    there = {"X-Forwarded-For": "192.0.2.4"}
    with behind.client(token) as client:
        for _ in range(3):
            answer = client.put("/v1/user", json={"username": "b", "current_password": "wrong horse"}, headers=there)
            assert answer.status_code == 400
    for _ in range(2):
        answer = httpx.get(f"{behind.url}/v1/access_tokens", auth=("ann", "wrong horse"), headers=there)
        assert answer.status_code == 401
    refused = log_in(behind, "192.0.2.4", PASSWORD)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 60
