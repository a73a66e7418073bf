"""`wirechamber server`: the key by which devices know this cloud, their sessions, and the time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from wirechamber.cli.device import device_address
from wirechamber.cli.folder import Folder, in_folder, opened
from wirechamber.cli.output import Exit, done, exit_code, fail, show_json
from wirechamber.cli.user import Data, Json
from wirechamber.clock import confirm_time
from wirechamber.datafolder.check import server_keys
from wirechamber.datafolder.era import begin_era
from wirechamber.errors import CloudError
from wirechamber.eventlog.lock import hold_folder
from wirechamber.services.identity import as_pem, fingerprint


def app() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(
        help="The key by which devices know this cloud, their sessions, and the time.", no_args_is_help=True
    )
    group.command("key")(key)
    group.command("forget-sessions")(forget_sessions)
    group.command("confirm-clock")(confirm_clock)
    group.command("new-era")(new_era)
    return group


def key(
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the public key here, DER (SubjectPublicKeyInfo); - for stdout.")
    ] = None,
    for_device: Annotated[
        Path | None,
        typer.Option("--for-device", help="Write key and address here, as a device's memory takes them."),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="IPv4 address or name for --for-device [default: device_host]")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Port for --for-device [default: the running server's, or as set]")
    ] = None,
    tcp: Annotated[bool, typer.Option("--tcp", help="The RSA key, for devices of the older generation.")] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """Print or write this cloud's public key, which is made on first use. Works while a server runs, and while none
    does."""
    try:
        settings = opened(data, create=True)
        keys = server_keys(settings.data_folder)
        public = keys.public(tcp=tcp)
        if out is not None:
            _write(out, public)
        if for_device is not None:
            where, to_port = device_address(settings, host, port, tcp=tcp)
            if not where:
                fail("name the host under which devices reach this cloud: --host, or device_host", Exit.USAGE)
            _write(for_device, keys.for_device(where, to_port, tcp=tcp))
    except CloudError as problem:
        fail(problem.description, exit_code(problem))
    except BrokenPipeError:
        raise
    except OSError as problem:
        fail(f"{problem.filename or 'the data folder'} can't be written: {problem.strerror}", Exit.FAILED)
    if json:
        show_json({"public_key": as_pem(public), "fingerprint": fingerprint(public)})
    elif out is None and for_device is None:
        typer.echo(as_pem(public), nl=False)


def forget_sessions(data: Data = None, json: Json = False) -> None:
    """End all sessions of devices, for a data folder that was restored from a backup: record numbers that they have
    used since must not be used again. No server may run on the folder."""

    async def work(folder: Folder) -> None:
        with hold_folder(folder.settings.data_folder):
            known = await folder.store.sessions.known()
            count = await folder.store.sessions.remove([session.id for session in known])
        done(f"{count} sessions were forgotten; their devices make new ones by themselves", json, forgotten=count)

    in_folder(work, data=data)


def new_era(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, data: Data = None, json: Json = False
) -> None:
    """Go on with a data folder as it is, of which something is lost, or older than the rest. Positions of events jump
    beyond all that were given, streams are told of a gap, devices make new sessions. No server may run on it."""
    try:
        folder = opened(data).data_folder
        with hold_folder(folder):
            if not yes:
                typer.confirm(f"Give up what is missing in {folder}?", abort=True)
            ended = begin_era(folder)
    except CloudError as problem:
        fail(problem.description, exit_code(problem))
    except OSError as problem:
        fail(f"the data folder can't be written: {problem}", Exit.FAILED)
    done(f"a new era has begun; {ended} sessions of devices have ended", json, forgotten=ended)


def confirm_clock(data: Data = None, json: Json = False) -> None:
    """Say that this machine's clock is right, after it was set: what is deleted for its age goes by it at once, instead
    of after clock_settle_hours. A running server takes note within a second or two, another one when it starts."""
    try:
        folder = opened(data).data_folder
        confirm_time(folder)
    except CloudError as problem:
        fail(problem.description, exit_code(problem))
    except OSError as problem:
        fail(f"the data folder can't be written: {problem.strerror}", Exit.FAILED)
    done("the clock is confirmed", json)


def _write(file: Path, content: bytes) -> None:
    if str(file) == "-":
        sys.stdout.buffer.write(content)
    else:
        file.write_bytes(content)
