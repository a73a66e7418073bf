"""`wirechamber device simulate`: many devices that connect and publish, with live progress."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric import ec
from rich.live import Live
from rich.table import Table

from wirechamber.cli.folder import Folder, in_folder
from wirechamber.cli.output import Exit, console, fail, show_json
from wirechamber.cli.user import Data, Json
from wirechamber.datafolder import listening
from wirechamber.device import Device, DeviceError
from wirechamber.device.fleet import Fleet, allow_sockets
from wirechamber.device.keys import read_server_key, spki
from wirechamber.model.accounts import User
from wirechamber.services.usage import HTTPS_BYTES, HTTPS_KEPT_BYTES

# Where the seed of the simulated devices' keys is kept, so that the next run uses the same ones; mode 0600.
SEED_FILE = "simulated-devices"
SEED_BYTES = 32
DEFAULT_PORT = 5684
# A cloud that not one device has reached by then is not there.
REACHED_S = 30.0
# Without a terminal a line is printed this often.
LINE_S = 10.0
DATA_BYTES = 20
PLATFORM = 3


def command(
    count: Annotated[int, typer.Option("--count", min=1, max=60_000, help="How many devices.")] = 10,
    rate: Annotated[
        float, typer.Option("--rate", min=0, help="Events per second of each device; the cloud allows 1 by default.")
    ] = 0.2,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0, help="Seconds to publish for [default: until Ctrl-C]")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the events.")] = "simulated/reading",
    size: Annotated[int, typer.Option("--bytes", min=0, max=1024, help="Bytes of data of each event.")] = DATA_BYTES,
    subscribe: Annotated[
        list[str] | None, typer.Option("--subscribe", help="Prefix that each device subscribes to; may be repeated.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Whose devices they are [default: the only user there is]")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Where the cloud is.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option("--port", help="Its UDP port [default: the server's]")] = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Let many devices connect and publish, and show how the cloud answers.

    The devices are registered with the cloud of the data folder, and stay: the next run uses the same ones.
    """

    async def register(folder: Folder) -> tuple[list[Device], int]:
        running = listening.found(folder.settings.data_folder)
        usual = folder.settings.udp_port if running is None else running.udp_port
        where = port if port is not None else usual or DEFAULT_PORT
        return await registered(folder, await _owner(folder, owner), count, host, where), where

    try:
        allow_sockets(count)
        devices, where = in_folder(register, data=data)
    except DeviceError as problem:
        fail(str(problem))

    def reading(number: int, count: int) -> str:
        return f"d={number} n={count} ".ljust(size, "x")[:size]

    async def work() -> dict[str, Any]:
        fleet = Fleet(devices, rate=rate, name=name, data=reading, subscribe=subscribe or ())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, fleet.stop)
        try:
            with _progress(fleet, shown=not json):
                await _opened(fleet)
                await fleet.run(duration)
                return _report(fleet)
        finally:
            await fleet.close()

    import uvloop

    try:
        report = uvloop.run(work())
    except* DeviceError as problems:
        fail(f"{host} port {where}: {problems.exceptions[0]}", Exit.UNREACHABLE)
    if json:
        show_json(report)
    else:
        console().print(_table(report))


async def registered(folder: Folder, user: User, count: int, host: str, port: int) -> list[Device]:
    """Simulated devices of a user's, known to the cloud of the folder."""
    server_key = read_server_key(folder.keys.public()).key
    seed = _seed(folder.settings.data_folder)
    made = []
    for number in range(count):
        device_id, key = _device(seed, number)
        if await folder.store.devices.get(device_id) is None:
            await folder.devices.add(device_id, user.id, name=f"simulated-{number:05}", platform=PLATFORM)
        await folder.identity.set_key(device_id, spki(key.public_key()))
        made.append(Device(device_id, key=key, server_key=server_key, host=host, port=port, goodbye=True))
    return made


async def _opened(fleet: Fleet) -> None:
    """Connects, unless it is stopped before.

    Raises:
        DeviceError: Not one device reached the cloud.
    """
    opening = asyncio.ensure_future(fleet.open())
    stopped = asyncio.ensure_future(fleet.stopped())
    done, _ = await asyncio.wait((opening, stopped), timeout=REACHED_S, return_when=asyncio.FIRST_COMPLETED)
    nobody = not done and not fleet.connected
    if not done and not nobody:
        await asyncio.wait((opening, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not opening.done():
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
        if nobody:
            raise DeviceError(
                f"no device reached the cloud within {REACHED_S:g} s; does it run there, and do datagrams get through?"
            )
        return
    opening.result()


async def _owner(folder: Folder, name: str | None) -> User:
    if name is not None:
        return await folder.access.named(name)
    users = await folder.store.users.all()
    if len(users) != 1:
        fail(f"there are {len(users)} users; name the devices' owner with --owner", Exit.USAGE)
    return users[0]


def _seed(folder: Path) -> bytes:
    """What the keys of all simulated devices derive from; made on the first call."""
    file = folder / SEED_FILE
    with suppress(FileExistsError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(os.urandom(SEED_BYTES))
    return file.read_bytes()


def _device(seed: bytes, number: int) -> tuple[str, ec.EllipticCurvePrivateKey]:
    """Id and key of a simulated device."""
    digest = hashlib.sha512(seed + number.to_bytes(4, "big")).digest()
    # A number of 32 bytes is a valid private key but for one in 2^32; the top bit cleared, always.
    scalar = int.from_bytes(digest[:32], "big") >> 1 or 1
    return digest[32:44].hex(), ec.derive_private_key(scalar, ec.SECP256R1())


@contextmanager
def _progress(fleet: Fleet, *, shown: bool) -> Iterator[None]:
    """Shows how things stand: a table that changes on a terminal, lines elsewhere."""
    out = console()
    task: asyncio.Task[None] | None = None
    if not shown:
        yield
        return
    if out.is_terminal:
        with Live(console=out, refresh_per_second=4, transient=True, get_renderable=lambda: _table(_report(fleet))):
            yield
        return

    async def lines() -> None:
        while True:
            await asyncio.sleep(LINE_S)
            report = _report(fleet)
            shown = ("connected", "published", "acknowledged", "refused", "ack_ms_p50", "ack_ms_p99", "bytes_per_event")
            why = "".join(f"  ({reason}{HINTS.get(reason[:4], '')})" for reason in report["refusals"])
            typer.echo("  ".join(f"{key} {report[key]}" for key in shown) + why)

    task = asyncio.get_running_loop().create_task(lines())
    try:
        yield
    finally:
        task.cancel()


def _report(fleet: Fleet) -> dict[str, Any]:
    traffic = fleet.traffic
    each = fleet.bytes_per_event()
    ready = None if fleet.ready is None else round(fleet.ready.total / len(fleet.devices))
    return {
        "devices": len(fleet.devices),
        "connected": fleet.connected,
        "handshakes": fleet.handshakes,
        "published": fleet.published,
        "acknowledged": fleet.acknowledged,
        "unanswered": fleet.unanswered,
        "refused": fleet.refused,
        "refusals": dict(fleet.refusals),
        "received": fleet.received,
        "ack_ms_p50": _ms(fleet.latencies.quantile(0.5)),
        "ack_ms_p99": _ms(fleet.latencies.quantile(0.99)),
        "bytes_to_connect": ready,
        "bytes_per_event": None if each is None else round(each, 1),
        "https_bytes_per_event": HTTPS_BYTES,
        "https_kept_open_bytes_per_event": HTTPS_KEPT_BYTES,
        "up_bytes": traffic.up_bytes,
        "down_bytes": traffic.down_bytes,
        "up_datagrams": traffic.up_datagrams,
        "down_datagrams": traffic.down_datagrams,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


# What an operator may do about a refusal, by its code.
HINTS = {
    "4.29": " (WIRECHAMBER_PUBLISH_RATE and _BURST where the cloud runs, or a lower --rate)",
    "5.03": " (its disk is nearly full: WIRECHAMBER_DISK_FLOOR_MB)",
}
_LABELS = {
    "connected": "connected",
    "handshakes": "handshakes",
    "published": "published",
    "acknowledged": "acknowledged",
    "unanswered": "not answered",
    "refused": "refused",
    "received": "received by devices",
    "ack_ms_p50": "acknowledged after, p50 (ms)",
    "ack_ms_p99": "acknowledged after, p99 (ms)",
    "bytes_to_connect": "bytes to connect, each device",
    "bytes_per_event": "bytes per event, both ways",
    "https_bytes_per_event": "a new HTTPS connection",
    "https_kept_open_bytes_per_event": "one that is kept open",
}


def _table(report: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for key, label in _LABELS.items():
        value = report[key]
        shown = "-" if value is None else f"{value:,}"
        table.add_row(label, f"{shown} of {report['devices']:,}" if key == "connected" else shown)
        if key == "refused":
            for reason, count in report["refusals"].items():
                table.add_row(f"  {reason}{HINTS.get(reason[:4], '')}", f"{count:,}")
    return table
