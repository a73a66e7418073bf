import pytest

from wirechamber.delivery.guard import Guard

FORBIDDEN = [
    "127.0.0.1", "127.255.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "169.254.0.1", "0.0.0.0",
    "100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254",
    "ff02::1", "2001:db8::1", "2001::1", "not an address", "", "127.1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_a_special_address_is_forbidden(address: str) -> None:
    assert not Guard([]).permits(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_permitted(address: str) -> None:
    assert Guard([]).permits(address)


def test_what_a_setting_allows_is_permitted_in_every_form_and_nothing_beside_it() -> None:
    guard = Guard(["127.0.0.0/8", "fd00::/16"])
    assert guard.permits("127.0.0.1")
    assert guard.permits("::ffff:127.0.0.1")
    assert guard.permits("fd00::1")
    assert not guard.permits("10.0.0.1")
    assert not guard.permits("::1")


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "fd20:ce::254", "64:ff9b::a9fe:a9fe", "100.100.100.200"]
)
def test_a_metadata_service_is_for_who_asks_as_the_machine_only_whatever_is_allowed(address: str) -> None:
    guard = Guard(["0.0.0.0/0", "::/0"])
    assert guard.permits("169.254.1.1")
    assert not guard.permits(address)
    assert guard.permits(address, True)
    assert not Guard([]).permits(address, True)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1/", "127.0.0.1"), ("https://LocalHost:8443/x", "127.0.0.1"), ("http://0/", "0.0.0.0"),
        ("http://a.localhost./", "127.0.0.1"), ("http://127.1/", "127.0.0.1"), ("http://2130706433", "127.0.0.1"),
        ("http://0x7f000001:80", "127.0.0.1"), ("http://017700000001/", "127.0.0.1"), ("http://[::1]:9000/", "::1"),
        ("http://[::ffff:10.0.0.1]/", "10.0.0.1"), ("http://u:p@192.168.0.1/", "192.168.0.1"),
        ("http://10.0.0.1:{{port}}/", "10.0.0.1"),
    ],
)  # fmt: skip
def test_an_address_in_a_url_is_refused_before_anybody_asks_for_it(url: str, address: str) -> None:
    assert Guard([]).refuses(url) == address
    assert Guard(["0.0.0.0/0", "::/0"]).refuses(url) is None


@pytest.mark.parametrize(
    "url", ["http://8.8.8.8/", "http://example.com/", "http://10.example/", "http://1.2.3.4.5/", "http://{{host}}/", "http://[::1",
            "http:///x", "", "http://10.0.0.1@example.com/", "http://xn--bcher-kva.example/", "http://999.1.1.1/"],
)  # fmt: skip
def test_of_a_name_only_a_look_up_can_tell(url: str) -> None:
    assert Guard([]).refuses(url) is None
