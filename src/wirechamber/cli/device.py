"""`wirechamber device`: which devices this cloud knows."""

from __future__ import annotations

import os
import secrets
import sys
from codecs import BOM_UTF8
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from rich.console import Console
from rich.progress import Progress

from wirechamber.cli import complete, simulate
from wirechamber.cli.files import read_bytes, read_text, reason
from wirechamber.cli.folder import Folder, in_folder
from wirechamber.cli.output import Exit, done, fail, show_json, show_table
from wirechamber.cli.user import Data, Json
from wirechamber.clock import SystemClock
from wirechamber.datafolder import listening
from wirechamber.errors import BadInput, Conflict
from wirechamber.model.devices import DEFAULT_PLATFORM, Device
from wirechamber.model.times import iso_or_none
from wirechamber.services import device_lists
from wirechamber.services.devices import check_id, check_name, view
from wirechamber.services.identity import (
    as_pem,
    check_psk,
    fingerprint,
    new_device_key,
    new_psk,
    read_public_key,
    survives_a_shell,
)
from wirechamber.services.presence import expected_by
from wirechamber.settings import Settings
from wirechamber.store.base import DeviceFilter

# Devices that share a transaction; a running server's writes go in between.
AT_ONCE = 2_000
SHOWN_ERRORS = 20
# device-protocol.md, section 2.
UDP_PORT, TCP_PORT = 5684, 5683

Key = Annotated[
    Path | None, typer.Option("--key", help="File with the device's public key, PEM or DER: P-256, or RSA for TCP.")
]
PskFile = Annotated[
    Path | None, typer.Option("--psk-file", help="File with a pre-shared key in hex digits, 16 to 64 bytes.")
]
NewId = Annotated[str, typer.Argument(metavar="ID", help="The device's id, 24 hex digits.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The device's id or name.", autocompletion=complete.devices)]


def app() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(
        help="Devices: add, import, list, show, remove; their keys; simulated ones.", no_args_is_help=True
    )
    group.command("add")(add)
    group.command("import")(import_)
    group.command("list")(listed)
    group.command("show")(show)
    group.command("remove")(remove)
    group.command("keys")(keys)
    group.command("provision")(provision)
    group.command("simulate")(simulate.command)
    return group


def add(
    device_id: NewId,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Name of its owner; without, anyone may claim it.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name, unique to its owner.")] = None,
    platform: Annotated[
        int, typer.Option("--platform", help="Platform id; 32 is a P2 or Photon 2.")
    ] = DEFAULT_PLATFORM,
    key: Key = None,
    psk_file: PskFile = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Make a device known to this cloud, with the key by which it will be known again."""
    public_key, psk = _keys(key, psk_file)

    async def work(folder: Folder) -> None:
        user = None if owner is None else await folder.access.named(owner)
        device = await folder.devices.add(device_id, None if user is None else user.id, name=name, platform=platform)
        await _bind(folder, device.id, public_key, psk)
        if json:
            show_json(view(await folder.device(device.id)))
        else:
            typer.echo(f"device {device.id} was added{f' for {owner}' if owner else ', free to be claimed'}")

    in_folder(work, data=data, create=True)


def import_(
    file: Annotated[
        Path, typer.Argument(help="CSV with the columns id, name, owner and platform, or some of them; `-` for stdin.")
    ],
    owner: Annotated[
        str | None, typer.Option("--owner", help="Name of the owner of those that the file gives none.")
    ] = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Make many devices known at once. Nothing is done when a line is wrong; doing it twice does no harm."""
    content = read_text(file).encode()

    async def work(folder: Folder) -> None:
        user = None if owner is None else await folder.access.named(owner)
        users = {each.name.casefold(): each.id for each in await folder.store.users.all()}
        found = device_lists.read(
            content, lambda name: users.get(name.casefold()), None if user is None else user.id, SystemClock().now()
        )
        if found.wrong:
            _fail_at_lines(file, found.wrong, "nothing was added")
        known, wrong = await _add_all(folder, found.devices)
        added = len(found.devices) - known - len(wrong)
        if wrong:
            _fail_at_lines(file, wrong, f"{added} devices were added", Exit.FAILED)
        text = f"{added} devices were added" + (f", {known} were known already and stay as they are" if known else "")
        done(text, json, added=added, known=known)

    in_folder(work, data=data, create=True)


async def _add_all(folder: Folder, devices: dict[int, Device]) -> tuple[int, list[device_lists.Wrong]]:
    """Adds them; returns how many were known already, and those that could not be added."""
    known, wrong = 0, list[device_lists.Wrong]()
    lines = list(devices)
    with Progress(console=Console(stderr=True), disable=len(lines) < AT_ONCE, transient=True) as progress:
        task = progress.add_task("adding devices", total=len(lines))
        for start in range(0, len(lines), AT_ONCE):
            some = lines[start : start + AT_ONCE]
            try:
                known += len(await folder.devices.add_new([devices[line] for line in some]))
            except Conflict:
                # One of the names is taken: which one is found by trying each.
                for line in some:
                    try:
                        known += len(await folder.devices.add_new([devices[line]]))
                    except Conflict:
                        wrong.append(
                            device_lists.Wrong(line, f"the owner has another device named {devices[line].name}")
                        )
            progress.advance(task, len(some))
            if not sys.stderr.isatty() and (start // AT_ONCE) % 10 == 9:
                typer.echo(f"{start + len(some)} of {len(lines)} devices", err=True)
    return known, wrong


def _fail_at_lines(file: Path, wrong: list[device_lists.Wrong], result: str, code: Exit = Exit.USAGE) -> NoReturn:
    for each in wrong[:SHOWN_ERRORS]:
        typer.echo(f"{file}, line {each.line}: {each.why}", err=True)
    if len(wrong) > SHOWN_ERRORS:
        typer.echo(f"… and {len(wrong) - SHOWN_ERRORS} more", err=True)
    fail(f"{len(wrong)} lines of {file} can't be taken; {result}", code)


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
        rows = [
            (
                each.id,
                each.name,
                names.get(each.owner or ""),
                each.platform_id,
                "yes" if each.online else "no",
                iso_or_none(each.last_heard),
                iso_or_none(expected_by(each)),
                each.key,
            )
            for each in devices
        ]
        columns = ("ID", "NAME", "OWNER", "PLATFORM", "ONLINE", "HEARD", "EXPECTED BY", "KEY")
        show_table(columns, rows, empty="there are no devices yet")

    in_folder(work, data=data)


def show(device_id: Id, data: Data = None, json: Json = False) -> None:
    """Show a device and its newest vitals, always as JSON."""

    async def work(folder: Folder) -> None:
        device = await folder.device(device_id)
        vitals = await folder.vitals.newest(device)
        show_json(
            view(device)
            | {"vitals": None if vitals is None else {"updated_at": vitals["updated_at"], **vitals["payload"]}}
        )

    in_folder(work, data=data)


def remove(
    device_id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """Forget a device; its events stay as long as retention says."""

    async def work(folder: Folder) -> None:
        device = await folder.device(device_id)
        if not yes and not typer.confirm(f"forget the device {device.id} ({device.name or 'no name'})?"):
            fail("nothing was removed")
        await folder.store.devices.remove(device.id)
        text = f"device {device.id} was removed; `wirechamber device add {device.id}` makes it known again"
        done(text, json, id=device.id)

    in_folder(work, data=data)


def keys(
    device_id: Id,
    key: Key = None,
    psk_file: PskFile = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take its keys away: it is refused from now on.")] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """Show which keys a device has, or replace them: its sessions end, and it must prove to hold the new one."""
    public_key, psk = _keys(key, psk_file)
    if remove and (public_key is not None or psk is not None):
        fail("give it keys, or --remove them", Exit.USAGE)

    async def work(folder: Folder) -> None:
        device = await folder.device(device_id)
        if remove:
            changed = await folder.identity.remove_keys(device.id)
            done(f"device {device.id} has no key now, and is refused", json, id=device.id, changed=changed)
            return
        if public_key is not None or psk is not None:
            changed = await _bind(folder, device.id, public_key, psk)
            text = f"device {device.id} has another key now" if changed else f"device {device.id} had that key already"
            done(text, json, id=device.id, changed=changed)
            return
        bound = await folder.identity.keys(device.id)
        shown = {
            "id": device.id,
            "public_key": None if bound is None or bound.public_key is None else as_pem(bound.public_key),
            "fingerprint": None if bound is None or bound.public_key is None else fingerprint(bound.public_key),
            "psk": bound is not None and bound.psk is not None,
            "changed_at": None if bound is None else iso_or_none(bound.changed_at),
        }
        if json:
            show_json(shown)
            return
        typer.echo(f"public key      {shown['fingerprint'] or 'none'}")
        typer.echo(f"pre-shared key  {'yes' if shown['psk'] else 'none'}")
        if shown["public_key"] is not None:
            typer.echo(shown["public_key"], nl=False)

    in_folder(work, data=data)


def provision(
    out: Annotated[Path, typer.Option("--out", help="Folder for the files; made if need be.")],
    device_id: Annotated[
        str | None, typer.Argument(help="The device's id, 24 hex digits; a new one is made up if there is none.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Name of its owner; without, anyone may claim it.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name, unique to its owner.")] = None,
    psk: Annotated[bool, typer.Option("--psk", help="A pre-shared key, for devices without Device OS.")] = False,
    tcp: Annotated[bool, typer.Option("--tcp", help="RSA, for devices of the older generation.")] = False,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Where the device finds this cloud [default: device_host]"),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="[default: the running server's, or as set]")] = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Make a key for a device, bind it, and write the files that the device needs."""
    if psk and tcp:
        fail("choose one of --psk and --tcp", Exit.USAGE)
    made = secrets.token_hex(12) if device_id is None else device_id.lower()

    async def work(folder: Folder) -> None:
        # What may be refused comes before anything is written.
        check_id(made)
        if name is not None:
            check_name(name, made)
        user = None if owner is None else await folder.access.named(owner)
        where, to_port = device_address(folder.settings, host, port, tcp=tcp)
        link = "TCP" if tcp else "UDP"
        server = folder.keys.for_device(where, to_port, tcp=tcp) if where else b""
        key = None if psk else new_device_key(tcp=tcp)
        secret = new_psk() if psk else None
        files: dict[str, bytes] = {"device_id": f"{made}\n".encode()}
        if key is None:
            assert secret is not None
            files["device.psk"] = f"{secret.hex()}\n".encode()
        else:
            files["device_key.der"] = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
            files["server_key.der"] = server or folder.keys.public(tcp=tcp)
        written = [str(_write(out / file, content)) for file, content in files.items()]
        device = await folder.store.devices.get(made)
        if device is None:
            device = await folder.devices.add(made, None if user is None else user.id, name=name)
        elif owner is not None and (user is None or device.owner != user.id):
            fail(f"the device {made} is known already, and not {owner}'s", Exit.NOT_ALLOWED)
        public = None if key is None else key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        await _bind(folder, device.id, public, secret)
        if json:
            show_json({**view(await folder.device(device.id)), "files": written})
            return
        typer.echo(f"device {device.id} can connect with the files in {out}: {', '.join(files)}")
        typer.echo(f"this cloud is at {where or 'an address that was not told,'} port {to_port} of {link}")
        if not psk and not server:
            typer.echo("server_key.der holds no address, since neither --host nor device_host was given")

    in_folder(work, data=data, create=True)


def device_address(settings: Settings, host: str | None, port: int | None, *, tcp: bool) -> tuple[str, int]:
    """Host and port that are written into a device's memory: as told, as the server has them that runs on the data
    folder, as set, else (the port) the usual one. An empty host: nothing says it."""
    running = listening.found(settings.data_folder)
    if host is None:
        host = (running.device_host if running is not None else "") or settings.device_host
    if port is None:
        known = 0 if running is None else running.tcp_port if tcp else running.udp_port
        port = known or (settings.tcp_port or TCP_PORT if tcp else settings.udp_port or UDP_PORT)
    return host, port


def _keys(key: Path | None, psk_file: Path | None) -> tuple[bytes | None, bytes | None]:
    """What the files hold, checked before anything is changed."""
    file, public_key, psk = key, None, None
    try:
        if key is not None:
            public_key = read_public_key(read_bytes(key).removeprefix(BOM_UTF8))
        if psk_file is not None:
            file = psk_file
            psk = check_psk(bytes.fromhex(read_text(psk_file).strip()))
    except ValueError:
        fail(f"{file} must hold the key in hex digits", Exit.USAGE)
    except BadInput as problem:
        fail(f"{file}: {problem.description}", Exit.USAGE)
    if psk is not None and not survives_a_shell(psk):
        typer.echo(
            f"note: the key in {psk_file} has a zero byte, or a newline at its end. Programs that are given it as an "
            "argument, such as coap-client, get another key; `wirechamber device provision --psk` makes keys without",
            err=True,
        )
    return public_key, psk


async def _bind(folder: Folder, device_id: str, public_key: bytes | None, psk: bytes | None) -> bool:
    changed = False
    if public_key is not None:
        changed |= await folder.identity.set_key(device_id, public_key)
    if psk is not None:
        changed |= await folder.identity.set_psk(device_id, psk)
    return changed


def _write(file: Path, content: bytes) -> Path:
    """Writes a file that only its owner may read; one that is there is not touched."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
    except FileExistsError as problem:
        taken = file if problem.filename == str(file) else file.parent
        fail(f"{taken} is there already; choose another folder with --out")
    except OSError as problem:
        fail(f"{file} can't be written: {reason(problem)}; choose another folder with --out")
    return file
