"""What devices tell of themselves, in the forms of several years (device-protocol.md, section 7.2)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocols.deviceos import captured
from wirechamber.protocols.coap.message import read_message
from wirechamber.protocols.deviceos.describe import (
    MAX_LISTED,
    MAX_PARTS,
    MODULE_TYPES,
    STORES,
    Application,
    Asset,
    Dependency,
    Module,
    NotADescription,
    System,
    read_application,
    read_system,
    write_application,
    write_system,
)
from wirechamber.protocols.deviceos.metrics import NotMetrics, metric_id, read_metrics, write_metrics
from wirechamber.protocols.deviceos.protobuf import MAX_FIELDS, NotProtobuf, bytes_field, fields, number_field
from wirechamber.protocols.deviceos.system_events import UPDATES_FORCED, flag_text, is_system, is_true
from wirechamber.protocols.deviceos.varint import TooShort, read_varint, write_varint

SYSTEM = read_message(bytes.fromhex(captured.SYSTEM_DESCRIBE)).payload
APPLICATION = read_message(bytes.fromhex(captured.APPLICATION_DESCRIBE)).payload


def test_the_captured_modules() -> None:
    system = read_system(SYSTEM)
    bootloader, firmware = system.modules
    assert (bootloader.type, bootloader.version, bootloader.store, bootloader.valid) == (
        "bootloader",
        1000,
        "main",
        True,
    )
    assert (firmware.type, firmware.version, firmware.max_size) == ("monolithic", 6200, 10485760)
    assert firmware.dependencies == (Dependency("bootloader", 0, 1000),)
    assert (firmware.checked, firmware.passed) == (0x1E, 0x1E)
    assert write_system(system) == SYSTEM


def test_the_captured_application() -> None:
    application = read_application(APPLICATION)
    assert application.functions == ("set", "cmd", "err")
    assert application.variables == {
        "counter": "int32", "temp": "double", "strVar": "string", "flag": "bool", "calc": "string",
    }  # fmt: skip
    assert write_application(application) == APPLICATION


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)
NUMBERS = st.integers(0, 0xFFFFFFFF)
ASSETS = st.builds(Asset, HASHES, TEXTS, NUMBERS, NUMBERS)
TYPES = st.sampled_from(list(MODULE_TYPES.values())) | st.just("77")
MODULES = st.builds(
    Module, TYPES, NUMBERS, NUMBERS, st.sampled_from(list(STORES.values())), NUMBERS, NUMBERS, NUMBERS,
    st.none() | HASHES, st.lists(st.builds(Dependency, TYPES, NUMBERS, NUMBERS), max_size=2).map(tuple),
    st.lists(ASSETS, max_size=2).map(tuple), NUMBERS, st.booleans(),
)  # fmt: skip


@given(
    st.builds(
        System,
        modules=st.lists(MODULES, max_size=3).map(tuple),
        imei=st.none() | TEXTS,
        iccid=st.none() | TEXTS,
        modem_version=st.none() | TEXTS,
        assets=st.lists(ASSETS, max_size=3).map(tuple),
        protected=st.booleans(),
    )
)
def test_modules_are_read_as_written(system: System) -> None:
    assert read_system(write_system(system)) == system


def test_modules_as_json() -> None:
    # Up to 4.2; values as a Photon of 2.3 has them.
    told = {
        "p": 6,
        "imei": "353162070000000",
        "iccid": "8934076500002589174",
        "m": [
            {"s": 16384, "l": "m", "vc": 30, "vv": 30, "f": "b", "n": "0", "v": 1003, "d": []},
            {"s": 262144, "l": "m", "vc": 30, "vv": 30, "f": "s", "n": "1", "v": 2302,
             "d": [{"f": "s", "n": "2", "v": 207}]},
            {"s": 131072, "l": "m", "vc": 30, "vv": 26, "u": "ABCDEF" + "0" * 58, "f": "u", "n": "1", "v": 6,
             "d": [{"f": "s", "n": "2", "v": 2302, "_": ""}, {}]},
            {"s": 131072, "l": "f", "vc": 30, "vv": 0, "f": "z", "n": "x", "v": -1},
            {},
        ],
    }  # fmt: skip
    system = read_system(json.dumps(told).encode())
    assert system.platform == 6
    assert system.iccid == "8934076500002589174"
    bootloader, part, user, odd = system.modules
    assert bootloader == Module("bootloader", 0, 1003, "main", 16384, 30, 30)
    assert part.dependencies == (Dependency("system part", 2, 207),)
    assert (user.type, user.hash, user.valid) == ("user part", "abcdef" + "0" * 58, False)
    assert user.dependencies == (Dependency("system part", 2, 2302),)
    assert odd == Module("z", 0, 0, "factory", 131072, 30, 0)


def test_one_object_with_everything() -> None:
    payload = b'{"f":["led"],"v":{"x":2,"odd":7},"p":6,"m":[{"f":"b","n":"0","v":1}]}'
    assert read_application(payload) == Application(("led",), {"x": "int32", "odd": "7"})
    assert read_system(payload).modules == (Module("bootloader", 0, 1),)


@pytest.mark.parametrize("payload", [b"{}", b'{"f":null,"v":null}', b'{"f":[],"v":{}}'])
def test_an_application_that_offers_nothing(payload: bytes) -> None:
    assert read_application(payload) == Application()


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{", b"[]", b"1", b'{"f":{"x":1}}', b'{"v":["x"]}', b'{"f":[1]}', b'{"v":{"x":"2"}}', b'{"v":{"x":300}}',
        b'{"f":["' + b'","'.join([b"x"] * (MAX_LISTED + 1)) + b'"]}', b'{"f":' + b"[" * 100_000,
        b'{"v":{"x":' + b"9" * 5000,
    ],
)  # fmt: skip
def test_applications_that_are_none(payload: bytes) -> None:
    with pytest.raises(NotADescription):
        read_application(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"{}", b'{"m":{}}', b'{"m":[' + b",".join([b"{}"] * (MAX_LISTED + 1)) + b"]}", b"\x0a\x05\x08", b"\x0b",
        b"\x00\x00", b"\x0a\x02\x08\x80", b"\x0a\x00" * (MAX_LISTED + 1), b"\x30\x01" * (MAX_FIELDS + 1),
        b"\x35\x00", b"\x31\x00", b"\xff" * 11,
    ],
)  # fmt: skip
def test_modules_that_are_none(payload: bytes) -> None:
    with pytest.raises(NotADescription):
        read_system(payload)


def test_fields_of_another_form_or_of_later_versions_are_read_over() -> None:
    payload = number_field(2, 5) + bytes_field(1, number_field(1, 2) + number_field(99, 1)) + bytes_field(7, b"hash")
    assert read_system(payload) == System((Module("bootloader"),))


def test_numbers_have_32_bits() -> None:
    module = number_field(1, 2) + number_field(3, (7 << 32) + 5) + b"\x31" + b"\x1e\0\0\0\1\0\0\0"
    assert read_system(bytes_field(1, module)) == System((Module("bootloader", version=5, checked=30),))


def test_half_a_character_in_json_can_be_written_afterwards() -> None:
    application = read_application(b'{"f":["a\\ud800"],"v":{"\\udfff":2}}')
    assert application == Application(("a?",), {"?": "int32"})


@given(st.binary(max_size=60))
def test_any_payload_describes_something_or_not(payload: bytes) -> None:
    for read in (read_system, read_application, read_metrics):
        try:
            read(payload)
        except (NotADescription, NotMetrics):
            continue


# --- protobuf ---


@given(st.integers(0, (1 << 64) - 1))
def test_varints(value: int) -> None:
    assert read_varint(b"\0" + write_varint(value) + b"\0", 1) == (value, 1 + len(write_varint(value)))


@pytest.mark.parametrize("data", ["", "80", "ff" * 10, "ff" * 9 + "7f"])
def test_numbers_that_are_none(data: str) -> None:
    with pytest.raises(TooShort):
        read_varint(bytes.fromhex(data), 0)


@pytest.mark.parametrize("data", ["08", "0b", "0a", "0a05", "0d0000", "0900", "0001", "0c"])
def test_fields_that_are_none(data: str) -> None:
    with pytest.raises(NotProtobuf):
        list(fields(bytes.fromhex(data)))


# --- vital signs ---


def test_metrics() -> None:
    payload = bytes.fromhex(
        "00 0400 0200 0400"
        "0600 10270000"  # up for 10,000 s
        "1300 00bfffff"  # -65 dBm in 256ths
        "2100 00320000"  # 50 %
        "1980 58ffffff"  # total RAM: not to be had
        "0580 2a000000"  # the application's own
        "6400 ffffffff"  # not known here
    )
    metrics = read_metrics(payload)
    assert [(metric.name, metric.value, metric.error) for metric in metrics] == [
        ("sys:uptime", 10_000, None),
        ("net:rssi", -65.0, None),
        ("net:sigstr", 50.0, None),
        ("sys:tram", None, -168),
        ("app:5", 42, None),
        ("100", 0xFFFFFFFF, None),
    ]
    assert write_metrics(metrics) == payload
    assert metric_id("net:rssi") == 19


@pytest.mark.parametrize(
    "payload",
    [
        "", "00", "010400020004000600000000", "000200020004000600000000", "0004000400040006000000",
        "000400020000000600",
        "00040002000900" + "00" * 11, "0004000200040006000000", "00040002000400" + "000000000000" * 513,
    ],
)  # fmt: skip
def test_metrics_that_are_none(payload: str) -> None:
    with pytest.raises(NotMetrics):
        read_metrics(bytes.fromhex(payload))


# --- system events ---


def test_system_events() -> None:
    assert is_system(UPDATES_FORCED)
    assert is_system("spark/device/claim/code")
    assert not is_system("demo/spark")
    assert (flag_text(True), flag_text(False)) == (b"true", b"false")
    # device-protocol.md, section 10.2: empty data counts as true.
    assert [is_true(data) for data in (b"true", b"", b"t", b"false", b"true!")] == [True, True, True, False, False]


@pytest.mark.parametrize("number", [9, 10])
def test_a_description_has_only_so_many_parts(number: int) -> None:
    # Each list is short enough; all of them together would take long.
    few = b"".join(bytes_field(1, bytes_field(number, b"\x10\1") * 60) for _ in range(MAX_PARTS // 61 - 1))
    assert len(read_system(few).modules) == MAX_PARTS // 61 - 1
    with pytest.raises(NotADescription):
        read_system(few * 7)
