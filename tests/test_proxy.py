"""The operator's proxy, as a setting: what is taken, and what is refused without a word of the password."""

from __future__ import annotations

import pytest

from wirechamber.errors import BadInput
from wirechamber.proxy import Proxy, read
from wirechamber.settings import load


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example.com:3128", Proxy("http", "proxy.example.com", 3128)),
        ("HTTP://proxy:3128/", Proxy("http", "proxy", 3128)),
        ("https://me:a%2Fb%40c%25@proxy:443", Proxy("https", "proxy", 443, "me", "a/b@c%")),
        ("socks5h://me@[::1]:1080", Proxy("socks5h", "[::1]", 1080, "me")),
        ("socks5://m%3Ae:p:q@10.0.0.1:1", Proxy("socks5", "10.0.0.1", 1, "m:e", "p:q")),
    ],
)
def test_a_proxy_is_taken_apart(text: str, proxy: Proxy) -> None:
    assert read(text) == proxy
    assert proxy.password not in proxy.address or not proxy.password


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http://user:s3cr/et@proxy:3130", "/ is %2F"),
        ("http://user:s3cr#et@proxy:3130", "percent-encoded"),
        ("http://user:s3cr?et@proxy:3130", "percent-encoded"),
        ("http://user:s3cr@et@proxy:3130", "@ is %40"),
        ("http://user:s3cr et@proxy:3130", "percent-encoded"),
        ("http://user:s3cret%zz@proxy:3130", "% is %25"),
        ("http://user:s3cret%0d%0aX@proxy:3130", "control characters"),
        ("http://:s3cret@proxy:3130", "name the user"),
        ("http://us%3Aer:s3cret@proxy:3130", "colon"),
        ("socks4://user:s3cret@proxy:1080", "no password"),
        ("ftp://user:s3cret@proxy:21", "begin with one of http://"),
        ("user:s3cret@proxy:3130", "begin with one of http://"),
        ("s3cret garbage", "begin with one of http://"),
        ("http://user:s3cret@proxy", "scheme, host and port"),
        ("http://user:s3cret@:3130", "scheme, host and port"),
        ("http://user:s3cret@proxy:0", "from 1 to 65535"),
        ("http://user:s3cret@proxy:99999", "from 1 to 65535"),
        ("http://user:s3cret@proxy:3130/path", "nothing behind them"),
        ("http://user:s3cret@[::g]:3130", "no IPv6 address"),
        ("http://user:s3cret@pr%6fxy:3130", "no name and no address"),
        ("http://user:s3cret@-:3130", "no name and no address"),
    ],
)
def test_what_can_not_be_used_stops_the_start_and_shows_no_password(text: str, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        load(environment={"WIRECHAMBER_OUTBOUND_PROXY": text})
    told = refused.value.description
    assert says in told
    assert told.startswith("setting outbound_proxy (from environment): ")
    assert "s3cr" not in told
    assert "garbage" not in told


@pytest.mark.parametrize("name", ["pubsub_url", "google_token_url", "geolocation_url", "iothub_url"])
@pytest.mark.parametrize(
    "url", ["https://me:s3cret@host/", "https://s3cret@host", "ftp://host/s3cret", "s3cret", "https://"]
)
def test_other_addresses_hold_no_password_either(name: str, url: str) -> None:
    with pytest.raises(BadInput) as refused:
        load(environment={f"WIRECHAMBER_{name.upper()}": url})
    assert "without user and password" in refused.value.description
    assert "s3cret" not in refused.value.description
    for good in ("http://127.0.0.1:8085", "https://[::1]:1/a@b?c=d@e"):
        load(environment={f"WIRECHAMBER_{name.upper()}": good})
