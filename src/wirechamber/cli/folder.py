"""Commands that open the data folder directly, also beside a running server, which sees the change at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from wirechamber.cli.files import reason
from wirechamber.cli.output import Exit, exit_code, fail
from wirechamber.clock import SystemClock
from wirechamber.datafolder.check import server_keys
from wirechamber.datafolder.files import STATE, looking_into
from wirechamber.errors import CloudError
from wirechamber.eventlog.lock import FolderInUse, hold_folder
from wirechamber.model.devices import Device
from wirechamber.secrets import Vault
from wirechamber.services.access import Access
from wirechamber.services.devices import Devices
from wirechamber.services.grants import Grants
from wirechamber.services.identity import Identity
from wirechamber.services.serverkeys import ServerKeys
from wirechamber.services.usage import Usages
from wirechamber.services.vitals import VitalSigns
from wirechamber.settings import Settings, load
from wirechamber.store.base import DeviceFilter, Store
from wirechamber.store.sqlite import open_sqlite_store
from wirechamber.store.sqlite.database import Database, migrations

Result = TypeVar("Result")


class Folder:
    """An opened data folder and the services on it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        clock = SystemClock()
        self.settings = settings
        self.store = store
        self.access = Access(store, clock, settings)
        self.grants = Grants(store, self.access, clock)
        self.devices = Devices(store, clock)
        self.vitals = VitalSigns(store, self.devices, clock)
        self.identity = Identity(store, clock, settings)
        self.usage = Usages(store, self.devices, clock)

    async def device(self, id_or_name: str) -> Device:
        """The device of that id, or the only one of that name. Ends the command when there is none."""
        device = await self.store.devices.get(id_or_name.lower())
        if device is not None:
            return device
        alike, _ = await self.store.devices.find(DeviceFilter(name=id_or_name))
        found = [each for each in alike if (each.name or "").casefold() == id_or_name.casefold()]
        if not found:
            fail(f"there is no device {id_or_name}; `wirechamber device list` shows all", Exit.NOT_FOUND)
        if len(found) > 1:
            ids = ", ".join(device.id for device in found[:5])
            fail(f"several devices have this name; say which one by its id: {ids}", Exit.USAGE)
        return found[0]

    @property
    def keys(self) -> ServerKeys:
        """The keys by which devices know this cloud.

        Raises:
            FolderUnusable: They are lost.
        """
        return server_keys(self.settings.data_folder)


def opened(data: Path | None, *, create: bool = False) -> Settings:
    """The settings, once the data folder is there.

    Args:
        data: From the command's flag; None for the setting.
        create: Make the folder if it is not there.
    """
    settings, _ = load(flags={"data": None if data is None else str(data)})
    folder = settings.data_folder
    if create:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as problem:
            fail(f"the data folder {folder} can't be made: {reason(problem)}; choose another with WIRECHAMBER_DATA")
    elif not folder.is_dir():
        fail(f"there is no data folder {folder}; set WIRECHAMBER_DATA, or make one with `wirechamber user create`")
    return settings


def in_folder(work: Callable[[Folder], Awaitable[Result]], *, data: Path | None, create: bool = False) -> Result:
    """Opens the data folder, does the work, and turns errors into one line.

    Args:
        data: From the command's flag; None for the setting.
        create: Make the folder if it is not there.
    """
    try:
        settings = opened(data, create=create)
        return asyncio.run(_opened(settings, work))
    except CloudError as problem:
        fail(problem.description, exit_code(problem))
    except BrokenPipeError:
        raise
    except OSError as problem:
        fail(f"the data folder can't be used: {problem}", Exit.FAILED)


async def _opened(settings: Settings, work: Callable[[Folder], Awaitable[Result]]) -> Result:
    folder = settings.data_folder
    _bring_up_to_date(folder)
    async with open_sqlite_store(folder, Vault.open(folder), clock=SystemClock()) as store:
        return await work(Folder(settings, store))


def _bring_up_to_date(folder: Path) -> None:
    """Brings the schema up to date, if it is not and no server runs: one of an earlier version goes on with its own.

    Raises:
        FolderInUse: A server runs.
    """
    file = folder / STATE
    if not file.exists():
        return
    with looking_into(file) as state:
        (version,) = state.execute("pragma user_version").fetchone()
    if 0 < version < max(migrations()):
        try:
            with hold_folder(folder):
                Database(file).close()
        except FolderInUse:
            raise FolderInUse(
                f"a server of an earlier version runs on the data folder {folder}: start it again with this one first"
            ) from None
