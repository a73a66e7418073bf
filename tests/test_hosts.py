"""What names a host, and what does not."""

from __future__ import annotations

import pytest

from wirechamber.hosts import check_host, with_port


@pytest.mark.parametrize(
    ("host", "meant"),
    [
        ("192.0.2.1", "192.0.2.1"), ("cloud.example.com", "cloud.example.com"), ("cloud", "cloud"),
        ("cloud.example.com.", "cloud.example.com."), ("::1", "::1"), ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"), ("bücher.example", "xn--bcher-kva.example"), ("my_service", "my_service"),
        ("4.example", "4.example"), ("a" * 63 + ".example", "a" * 63 + ".example"), (" cloud\n", "cloud"),
    ],
)  # fmt: skip
def test_hosts(host: str, meant: str) -> None:
    assert check_host(host) == meant


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("300.1.2.3", "IPv4"), ("1.2.3", "IPv4"), ("1.2.3.4.5", "IPv4"), ("127.0.0.01", "IPv4"), ("0x7f.0x1", "IPv4"),
        ("4294967296", "IPv4"), ("", "characters"), (" ", "characters"), ("a b", "labels"), ("a\nb", "labels"),
        ("a..b", "labels"), (".a", "labels"), ("-a.example", "labels"), ("a-.example", "labels"),
        ("a" * 64 + ".example", "labels"), ("a." * 127, "characters"), ("cloud.example.com:5684", "port"),
        ("192.0.2.1:5684", "port"), ("https://cloud.example.com", "URL"), ("cloud/x", "labels"), ("a@b", "labels"),
        ("é" * 70, "no name"), ("gggg::1", "labels"), ("\0", "labels"),
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused_with_the_reason(host: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_host(host)


def test_an_ipv6_address_is_none_where_there_is_no_place_for_it() -> None:
    for host in ("::1", "[2001:db8::1]"):
        with pytest.raises(ValueError, match="IPv6"):
            check_host(host, ipv6=False)


def test_hosts_with_their_port() -> None:
    assert [with_port("192.0.2.1", 80), with_port("::1", 80)] == ["192.0.2.1:80", "[::1]:80"]
