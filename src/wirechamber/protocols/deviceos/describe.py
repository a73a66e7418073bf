"""What a device tells of itself: its firmware modules, and its application's functions and variables
(device-protocol.md, section 7.2).

The modules come as a protobuf `SystemDescribe`, up to 4.2 as JSON; functions and variables as JSON always. Up to 1.x
one JSON object has both.
"""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct

from wirechamber.protocols.deviceos.protobuf import (
    NotProtobuf,
    bytes_field,
    fields,
    fixed32_field,
    number_field,
)
from wirechamber.protocols.deviceos.requests import TYPE_CODES, VARIABLE_TYPES

# What a description may list; firmware has at most 100 functions, 100 variables and a dozen modules.
MAX_LISTED = 256
MAX_TEXT = 256
# Modules, their dependencies and assets, all together: a few microseconds each, and no device has a tenth of these.
MAX_PARTS = 2_048

MODULE_TYPES = {
    1: "resource", 2: "bootloader", 3: "monolithic", 4: "system part", 5: "user part", 6: "settings", 7: "ncp",
    8: "radio stack", 9: "asset",
}  # fmt: skip
_MODULE_NUMBERS = {name: number for number, name in MODULE_TYPES.items()}
STORES = {0: "main", 1: "factory", 2: "backup", 3: "scratchpad"}
_STORE_NUMBERS = {name: number for number, name in STORES.items()}
# As the JSON form has them.
_MODULE_LETTERS = {
    "r": "resource", "b": "bootloader", "m": "monolithic", "s": "system part", "u": "user part", "c": "ncp",
    "a": "radio stack",
}  # fmt: skip
_STORE_LETTERS = {"m": "main", "f": "factory", "b": "backup", "t": "scratchpad"}


class NotADescription(ValueError):
    """A payload that describes nothing."""


class Dependency(Struct, frozen=True):
    """A module that another one needs, of at least this version."""

    type: str
    index: int
    version: int


class Asset(Struct, frozen=True):
    """A file that belongs to an application.

    Attributes:
        hash: SHA-256, 64 hex digits.
        size, storage_size: Bytes.
    """

    hash: str
    name: str
    size: int = 0
    storage_size: int = 0


class Module(Struct, frozen=True):
    """A firmware module.

    Attributes:
        type: One of `MODULE_TYPES`, or a number as text.
        store: One of `STORES`, or a number as text.
        checked, passed: Bits of the checks that were made, and that it passed: 2 integrity, 4 dependencies, 8 range,
            16 platform.
        hash: SHA-256, 64 hex digits.
        max_size, size: Bytes.
        protected: Its security mode says so.
    """

    type: str
    index: int = 0
    version: int = 0
    store: str = "main"
    max_size: int = 0
    checked: int = 0
    passed: int = 0
    hash: str | None = None
    dependencies: tuple[Dependency, ...] = ()
    assets: tuple[Asset, ...] = ()
    size: int = 0
    protected: bool = False

    @property
    def valid(self) -> bool:
        """Whether it passed all checks that were made."""
        return self.checked & ~self.passed == 0


class System(Struct, frozen=True):
    """A device's firmware and, where it has one, its modem.

    Attributes:
        platform: As JSON tells it; None otherwise: then the Hello did.
        protected: The device is protected.
    """

    modules: tuple[Module, ...] = ()
    platform: int | None = None
    imei: str | None = None
    iccid: str | None = None
    modem_version: str | None = None
    assets: tuple[Asset, ...] = ()
    protected: bool = False


class Application(Struct, frozen=True):
    """What an application offers.

    Attributes:
        variables: Names and types: `bool`, `int32`, `double`, `string`, or a number as text.
    """

    functions: tuple[str, ...] = ()
    variables: dict[str, str] = {}


# --- reading ---


def read_application(payload: bytes) -> Application:
    """Reads the functions and variables.

    Raises:
        NotADescription: It is none.
    """
    told = _json(payload)
    functions, variables = told.get("f") or [], told.get("v") or {}
    if not isinstance(functions, list) or not isinstance(variables, dict):
        raise NotADescription("functions or variables that are none")
    if len(functions) > MAX_LISTED or len(variables) > MAX_LISTED:
        raise NotADescription(f"more than {MAX_LISTED} functions or variables")
    if not all(isinstance(name, str) for name in functions):
        raise NotADescription("a function without a name")
    types = {}
    for name, code in variables.items():
        if not isinstance(code, int) or not 0 <= code <= 255:
            raise NotADescription("a variable without a type")
        types[_clean(name)] = VARIABLE_TYPES.get(code, str(int(code)))
    return Application(tuple(_clean(name) for name in functions), types)


def read_system(payload: bytes) -> System:
    """Reads the modules, in either form.

    Raises:
        NotADescription: It is none.
    """
    return _system_from_json(_json(payload)) if payload[:1] == b"{" else _system(payload)


def _json(payload: bytes) -> dict[str, Any]:
    try:
        told = json.loads(payload.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as problem:
        raise NotADescription("no JSON") from problem
    if not isinstance(told, dict):
        raise NotADescription("no JSON object")
    return told


class _Parts:
    """How many messages within a description were read."""

    def __init__(self) -> None:
        self._count = 0

    def read(self, data: bytes) -> _Fields:
        """One more."""
        self._count += 1
        if self._count > MAX_PARTS:
            raise NotADescription(f"more than {MAX_PARTS} parts")
        return _Fields(data)


class _Fields:
    """A message's fields by number, each with the values of the form that is asked for."""

    def __init__(self, data: bytes) -> None:
        self._found: dict[int, list[int | bytes]] = {}
        for number, value in fields(data):
            self._found.setdefault(number, []).append(value)

    def number(self, number: int) -> int:
        values = [value for value in self._found.get(number, ()) if isinstance(value, int)]
        # The last one counts, in protobuf; and all numbers here have 32 bits, the rest of a longer one is dropped.
        return values[-1] & 0xFFFFFFFF if values else 0

    def all(self, number: int) -> list[bytes]:
        values = [value for value in self._found.get(number, ()) if isinstance(value, bytes)]
        if len(values) > MAX_LISTED:
            raise NotADescription(f"a list of more than {MAX_LISTED}")
        return values

    def text(self, number: int) -> str | None:
        values = self.all(number)
        return values[-1].decode("utf-8", "replace")[:MAX_TEXT] if values else None

    def hash(self, number: int) -> str | None:
        values = self.all(number)
        return values[-1][:MAX_TEXT].hex() if values else None


def _system(payload: bytes) -> System:
    try:
        parts = _Parts()
        told = parts.read(payload)
        return System(
            modules=tuple(_module(data, parts) for data in told.all(1)),
            imei=told.text(2),
            iccid=told.text(3),
            modem_version=told.text(4),
            assets=tuple(_asset(data, parts) for data in told.all(5)),
            protected=bool(told.number(6)),
        )
    except NotProtobuf as problem:
        raise NotADescription(f"no protobuf: {problem}") from problem


def _module(data: bytes, parts: _Parts) -> Module:
    told = parts.read(data)
    security = told.all(12)
    return Module(
        type=_name(MODULE_TYPES, told.number(1)),
        index=told.number(2),
        version=told.number(3),
        store=_name(STORES, told.number(4)),
        max_size=told.number(5),
        checked=told.number(6),
        passed=told.number(7),
        hash=told.hash(8),
        dependencies=tuple(_dependency(found, parts) for found in told.all(9)),
        assets=tuple(_asset(found, parts) for found in told.all(10)),
        size=told.number(11),
        protected=bool(security) and bool(parts.read(security[-1]).number(1)),
    )


def _dependency(data: bytes, parts: _Parts) -> Dependency:
    told = parts.read(data)
    return Dependency(_name(MODULE_TYPES, told.number(1)), told.number(2), told.number(3))


def _asset(data: bytes, parts: _Parts) -> Asset:
    told = parts.read(data)
    return Asset(told.hash(1) or "", told.text(2) or "", told.number(3), told.number(4))


def _name(names: dict[int, str], number: int) -> str:
    return names.get(number, str(number))


def _system_from_json(told: dict[str, Any]) -> System:
    modules = told.get("m")
    if not isinstance(modules, list) or len(modules) > MAX_LISTED:
        raise NotADescription("no modules, or too many")
    platform = told.get("p")
    return System(
        modules=tuple(_module_from_json(module) for module in modules if isinstance(module, dict) and module),
        platform=platform if isinstance(platform, int) else None,
        imei=_text(told, "imei") or None,
        iccid=_text(told, "iccid") or None,
        modem_version=_text(told, "cellfw") or None,
    )


def _module_from_json(module: dict[str, Any]) -> Module:
    dependencies = module.get("d")
    letter = _text(module, "f")
    store = _text(module, "l") or "m"
    return Module(
        type=_MODULE_LETTERS.get(letter, letter),
        index=_int(module, "n"),
        version=_int(module, "v"),
        store=_STORE_LETTERS.get(store, store),
        max_size=_int(module, "s"),
        checked=_int(module, "vc"),
        passed=_int(module, "vv"),
        hash=_text(module, "u").lower() or None,
        dependencies=tuple(
            Dependency(_MODULE_LETTERS.get(_text(found, "f"), _text(found, "f")), _int(found, "n"), _int(found, "v"))
            for found in (dependencies if isinstance(dependencies, list) else ())[:MAX_LISTED]
            if isinstance(found, dict) and found.get("f")
        ),
    )


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    return _clean(value) if isinstance(value, str) else ""


def _clean(text: str) -> str:
    """JSON can escape half a character, which nothing else can write; and text is bounded."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()


def _int(members: dict[str, Any], name: str) -> int:
    """A number that is written as one, or as text (`n` is)."""
    value = members.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return int(value) if isinstance(value, int) and 0 <= value < 1 << 32 else 0


# --- writing: a device's side ---


def write_application(application: Application) -> bytes:
    """The functions and variables, as firmware writes them."""
    variables = {name: TYPE_CODES.get(type, 0) for name, type in application.variables.items()}
    return json.dumps({"f": application.functions, "v": variables}, separators=(",", ":")).encode()


def write_system(system: System) -> bytes:
    """The modules, as protobuf."""
    return b"".join(
        (
            *(bytes_field(1, _write_module(module)) for module in system.modules),
            bytes_field(2, system.imei),
            bytes_field(3, system.iccid),
            bytes_field(4, system.modem_version),
            *(bytes_field(5, _write_asset(asset)) for asset in system.assets),
            number_field(6, system.protected),
        )
    )


def _write_module(module: Module) -> bytes:
    return b"".join(
        (
            number_field(1, _number(_MODULE_NUMBERS, module.type)),
            number_field(2, module.index),
            number_field(3, module.version),
            number_field(4, _number(_STORE_NUMBERS, module.store)),
            number_field(5, module.max_size),
            fixed32_field(6, module.checked),
            fixed32_field(7, module.passed),
            bytes_field(8, None if module.hash is None else bytes.fromhex(module.hash)),
            *(
                bytes_field(
                    9,
                    number_field(1, _number(_MODULE_NUMBERS, needed.type))
                    + number_field(2, needed.index)
                    + number_field(3, needed.version),
                )
                for needed in module.dependencies
            ),
            *(bytes_field(10, _write_asset(asset)) for asset in module.assets),
            number_field(11, module.size),
            bytes_field(12, number_field(1, 1) if module.protected else None),
        )
    )


def _write_asset(asset: Asset) -> bytes:
    return (
        bytes_field(1, bytes.fromhex(asset.hash))
        + bytes_field(2, asset.name)
        + number_field(3, asset.size)
        + number_field(4, asset.storage_size)
    )


def _number(numbers: dict[str, int], name: str) -> int:
    return numbers[name] if name in numbers else int(name)
