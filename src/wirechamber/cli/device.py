"""`wirechamber device`: which devices this cloud knows."""

from __future__ import annotations

from typing import Annotated

import typer

from wirechamber.cli.folder import Folder, in_folder
from wirechamber.cli.output import Exit, done, fail, show_json, show_table
from wirechamber.cli.user import Data, Json
from wirechamber.model.devices import DEFAULT_PLATFORM, Device
from wirechamber.services.devices import view
from wirechamber.store.base import DeviceFilter

Id = Annotated[str, typer.Argument(help="The device's id, 24 hex digits.")]


def app() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(help="Devices: add, list, show, remove.", no_args_is_help=True)
    group.command("add")(add)
    group.command("list")(listed)
    group.command("show")(show)
    group.command("remove")(remove)
    return group


def add(
    device_id: Id,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Name of its owner; without, anyone may claim it.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name, unique to its owner.")] = None,
    platform: Annotated[
        int, typer.Option("--platform", help="Platform id; 32 is a P2 or Photon 2.")
    ] = DEFAULT_PLATFORM,
    data: Data = None,
    json: Json = False,
) -> None:
    """Make a device known to this cloud."""

    async def work(folder: Folder) -> None:
        user = None if owner is None else await folder.access.named(owner)
        device = await folder.devices.add(device_id, None if user is None else user.id, name=name, platform=platform)
        if json:
            show_json(view(device))
        else:
            typer.echo(f"device {device.id} was added{f' for {owner}' if owner else ', free to be claimed'}")

    in_folder(work, data=data, create=True)


def listed(
    owner: Annotated[str | None, typer.Option("--owner", help="Only this user's.")] = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """List the devices."""

    async def work(folder: Folder) -> None:
        user = None if owner is None else await folder.access.named(owner)
        devices, _ = await folder.store.devices.find(DeviceFilter(owner=None if user is None else user.id))
        if json:
            show_json([view(device) for device in devices])
            return
        names = {each.id: each.name for each in await folder.store.users.all()}
        rows = [(each.id, each.name, names.get(each.owner or ""), each.platform_id) for each in devices]
        show_table(("ID", "NAME", "OWNER", "PLATFORM"), rows, empty="there are no devices yet")

    in_folder(work, data=data)


def show(device_id: Id, data: Data = None, json: Json = False) -> None:
    """Show a device, always as JSON."""

    async def work(folder: Folder) -> None:
        show_json(view(await _found(folder, device_id)))

    in_folder(work, data=data)


def remove(
    device_id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """Forget a device; its events stay as long as retention says."""

    async def work(folder: Folder) -> None:
        device = await _found(folder, device_id)
        if not yes and not typer.confirm(f"forget the device {device.id} ({device.name or 'no name'})?"):
            fail("nothing was removed")
        await folder.store.devices.remove(device.id)
        text = f"device {device.id} was removed; `wirechamber device add {device.id}` makes it known again"
        done(text, json, id=device.id)

    in_folder(work, data=data)


async def _found(folder: Folder, device_id: str) -> Device:
    device = await folder.store.devices.get(device_id.lower())
    if device is None:
        fail(f"there is no device {device_id}", Exit.NOT_FOUND)
    return device
