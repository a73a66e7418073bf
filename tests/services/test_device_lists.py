"""Lists of devices as CSV, line by line."""

from __future__ import annotations

import pytest

from wirechamber.services.device_lists import DeviceList, read

ONE, TWO = "0123456789abcdef01234567", "0123456789abcdef01234568"


def read_text(text: str | bytes, owner: str | None = "id-ann") -> DeviceList:
    data = text if isinstance(text, bytes) else text.encode()
    return read(data, {"bob": "id-bob"}.get, owner, now=1)


@pytest.mark.parametrize(
    "text",
    [
        f"id,name\n{ONE},lamp\n{TWO},\n",
        f"id,name\r\n{ONE},lamp\r\n{TWO},\r\n",
        f"\ufeffid,name\r\n{ONE},lamp\r\n{TWO}",
        f"{ONE},lamp\n{TWO}\n",
        f"\ufeff{ONE},lamp\n\n \n{TWO.upper()}\n",
        f"Device ID;Name\n{ONE};lamp\n{TWO};\n",
        f'name,device_id\n" lamp ", {ONE}\n,"{TWO}"\n',
    ],
    ids=["LF", "CR LF", "byte order mark", "no header", "blank lines", "semicolons", "quotes"],
)
def test_files_as_programs_write_them(text: str) -> None:
    found = read_text(text)
    assert found.wrong == []
    assert [(device.id, device.name, device.owner) for device in found.devices.values()] == [
        (ONE, "lamp", "id-ann"),
        (TWO, None, "id-ann"),
    ]


def test_owner_and_platform_by_line() -> None:
    found = read_text(f"id,owner,platform\n{ONE},bob,13\n{TWO},,\n", owner=None)
    assert [(device.owner, device.platform_id) for device in found.devices.values()] == [("id-bob", 13), (None, 32)]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        (f"id\n{ONE}\nxyz\n", 3, "24 hex digits"),
        (f"id\n{ONE}\n\n{ONE.upper()}\n", 4, "stands in line 2 already"),
        (f"id,name\n{ONE},Lamp\n{TWO},lamp\n", 3, "the name lamp stands in line 2 already"),
        (f"id,name\n{ONE},events\n", 2, "reserved"),
        (f"id,name\n{ONE},{'n' * 129}\n", 2, "128 printable"),
        (f"id,owner\n{ONE},nobody\n", 2, "no user named nobody"),
        (f"id,platform\n{ONE},P2\n", 2, "whole number"),
        (f"id,platform\n{ONE},65536\n", 2, "whole number"),
        (f"id,name\n{ONE},a,b\n", 2, "3 cells and 2 columns"),
        ("name\nlamp\n", 1, "must name the columns"),
        (f"id,colour\n{ONE},red\n", 1, "no column 'colour'"),
        (f"id,deviceID\n{ONE},{ONE}\n", 1, "there twice"),
        (f"id,name\n{ONE},a\n{TWO},".encode() + b"\xff\n", 3, "UTF-8"),
        (f'id,name\n"{ONE}","a\nb"\nxyz,\n', 2, "printable"),
        (f'id,name\n{ONE},"{"x" * 200_000}"\n', 2, "field larger"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str | bytes, line: int, why: str) -> None:
    first = read_text(text).wrong[0]
    assert (first.line, why in first.why) == (line, True), first


def test_every_wrong_line_is_told() -> None:
    assert [each.line for each in read_text(f"id\nx\n{ONE}\ny\n\nz\n").wrong] == [2, 4, 6]
