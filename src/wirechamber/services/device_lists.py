"""Lists of devices as CSV (RFC 4180): what spreadsheets and manufacturers hand out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from wirechamber.errors import BadInput
from wirechamber.model.devices import DEFAULT_PLATFORM, Device, name_key
from wirechamber.services.devices import check_id, check_name

COLUMNS = ("id", "name", "owner", "platform")
# Other spellings of the header, without case, blanks and underscores.
ALIASES = {"deviceid": "id", "devicename": "name", "platformid": "platform", "user": "owner"}
MAX_PLATFORM = 0xFFFF


class Wrong(Struct, frozen=True):
    """What can't be taken.

    Attributes:
        line: Where it stands, from 1 on.
    """

    line: int
    why: str


class DeviceList(Struct, frozen=True):
    """What a file holds.

    Attributes:
        devices: By the line that each stands in.
        wrong: In the order of lines; with any, nothing of the file should be used.
    """

    devices: dict[int, Device]
    wrong: list[Wrong]


def read(data: bytes, owner_id: Callable[[str], str | None], owner: str | None, now: int) -> DeviceList:
    """The devices of a file, every line checked.

    Args:
        data: UTF-8 with or without a byte order mark, lines that end in LF or CR LF, commas or semicolons. The first
            line names the columns; without that the columns are id and name.
        owner_id: The id of the user of a name; None when there is none.
        owner: The id of the owner of devices without one in the file.
        now: When they were made, in milliseconds since 1970.
    """
    devices: dict[int, Device] = {}
    wrong: list[Wrong] = []
    lines: dict[str, int] = {}
    names: dict[tuple[str, str], int] = {}
    for line, row in _rows(data, wrong):
        try:
            device = _device(row, owner_id, owner, now)
            _check_first(lines, device.id, line, f"the device {device.id}")
            if device.name is not None and device.owner is not None:
                _check_first(names, (device.owner, name_key(device.name)), line, f"the name {device.name}")
        except BadInput as problem:
            wrong.append(Wrong(line, problem.description))
        else:
            devices[line] = device
    return DeviceList(devices, wrong)


def _check_first(seen: dict[Any, int], key: Any, line: int, what: str) -> None:
    first = seen.setdefault(key, line)
    if first != line:
        raise BadInput(f"{what} stands in line {first} already")


def _device(row: dict[str, str], owner_id: Callable[[str], str | None], owner: str | None, now: int) -> Device:
    if row.get("owner"):
        owner = owner_id(row["owner"])
        if owner is None:
            raise BadInput(f"there is no user named {row['owner'][:100]}")
    platform = row.get("platform") or str(DEFAULT_PLATFORM)
    if not (platform.isascii() and platform.isdigit() and int(platform[:10]) <= MAX_PLATFORM):
        raise BadInput(f"the platform is a whole number up to {MAX_PLATFORM}, not {platform[:40]!r}")
    device_id = check_id(row.get("id", ""))
    return Device(
        id=device_id,
        created_at=now,
        owner=owner,
        name=check_name(row["name"], device_id) if row.get("name") else None,
        platform_id=int(platform),
        product_id=int(platform),
    )


def _rows(data: bytes, wrong: list[Wrong]) -> Iterator[tuple[int, dict[str, str]]]:
    """The cells of each line by their column."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        wrong.append(Wrong(data.count(b"\n", 0, problem.start) + 1, "this is no UTF-8; save the file as CSV UTF-8"))
        return
    first = text.lstrip("\r\n").partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in first and "," not in first else ",")
    columns: tuple[str, ...] | None = None
    line = 0
    try:
        for cells in reader:
            # Where the row begins: a quoted cell may have lines of its own.
            line, begin = reader.line_num, line + 1
            row = [cell.strip() for cell in cells]
            if not any(row):
                continue
            if columns is None:
                columns, is_header = _columns(row)
                if is_header:
                    continue
            if len(row) > len(columns) and any(row[len(columns) :]):
                wrong.append(Wrong(begin, f"there are {len(row)} cells and {len(columns)} columns"))
                continue
            yield begin, dict(zip(columns, row, strict=False))
    except (csv.Error, BadInput) as problem:
        wrong.append(Wrong(reader.line_num, str(problem)))


def _columns(row: list[str]) -> tuple[tuple[str, ...], bool]:
    """The columns, and whether the row was their header."""
    names = [name.lower().replace(" ", "").replace("_", "") for name in row]
    columns = tuple(ALIASES.get(name, name) for name in names)
    if "id" not in columns:
        try:
            check_id(row[0])
        except BadInput:
            raise BadInput(
                "the first line must name the columns, such as `id,name`, or begin with a device id"
            ) from None
        return COLUMNS[:2], False
    for name, column in zip(row, columns, strict=True):
        if column not in COLUMNS:
            raise BadInput(f"there is no column {name[:40]!r}; there are {', '.join(COLUMNS)}")
    if len(set(columns)) < len(columns):
        raise BadInput("a column is there twice")
    return columns, True
