"""`wirechamber usage`: what devices used, beside what HTTPS would have cost."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from wirechamber.cli import complete
from wirechamber.cli.folder import Folder, in_folder
from wirechamber.cli.output import show_json, show_table
from wirechamber.cli.user import Data, Json
from wirechamber.model.times import iso
from wirechamber.model.usage import HOUR_MS
from wirechamber.services.usage import DeviceUsage, by_hour, by_purpose, compared, total, view
from wirechamber.store.base import UsageFilter

Device = Annotated[
    str | None,
    typer.Argument(
        help="Id or name of a device; without, all of them.", show_default=False, autocompletion=complete.devices
    ),
]


def command(
    device: Device = None,
    owner: Annotated[str | None, typer.Option("--owner", help="Only this user's devices.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="From this time on, ISO 8601 [default: 30 days ago]")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Before this time, ISO 8601 [default: now]")] = None,
    hours: Annotated[bool, typer.Option("--hours", help="One row for each hour.")] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """Show what devices used, and what the same publishes would have cost by HTTPS."""

    async def work(folder: Folder) -> None:
        span = folder.usage.span(since, until)
        if device is None:
            user = None if owner is None else await folder.access.named(owner)
            slices = folder.usage.slices(None if user is None else user.id, span)
            found = [usage async for some in slices for usage in some]
            if json:
                show_json([view(each) for each in found])
            else:
                _show_all(found)
            return
        record = await folder.device(device)
        where = UsageFilter(device=record.id, since=span.since, until=span.until)
        usage = DeviceUsage(record, span, tuple(await folder.store.usage.totals(where)))
        by_hours = by_hour(await folder.usage.hours(record, span))
        if json:
            show_json({**view(usage), "hours": by_hours})
        elif hours:
            _show_hours(by_hours)
        else:
            _show_one(usage)

    in_folder(work, data=data)


def _show_one(usage: DeviceUsage) -> None:
    used = total(usage.rows)
    first, last = (iso(at * HOUR_MS)[:16].replace("T", " ") for at in (usage.span.since, usage.span.until))
    typer.echo(f"device {usage.device.id} ({usage.device.name or 'no name'}), {first} to {last} UTC")
    rows = [(name, *_counts(found)) for name, found in by_purpose(usage.rows).items()]
    if not rows:
        typer.echo("it used nothing")
        return
    columns = ("FOR", "UP", "DOWN", "BYTES", "DATAGRAMS UP", "DOWN", "PUBLISHES", "DATA")
    show_table(columns, [*rows, ("all", *_counts(used))], empty="")
    https = compared(used)
    typer.echo(
        f"the same {used['publishes']} publishes, each by a new HTTPS connection: {https['bytes']} bytes,"
        f" {https['times']} times as many; over one that is kept open {https['kept_open_bytes']} bytes,"
        f" {https['kept_open_times']} times"
    )


def _show_all(found: list[DeviceUsage]) -> None:
    rows = []
    for usage in found:
        used = total(usage.rows)
        https = compared(used)
        row = (usage.device.id, usage.device.name, used["publishes"], used["data_bytes"], used["up_bytes"])
        rows.append((*row, used["down_bytes"], used["bytes"], https["bytes"], https["times"]))
    columns = ("DEVICE", "NAME", "PUBLISHES", "DATA", "UP", "DOWN", "BYTES", "BY HTTPS", "TIMES")
    show_table(columns, rows, empty="no device used anything in this time")


def _show_hours(hours: list[dict[str, Any]]) -> None:
    rows = [(each["hour"][:16].replace("T", " "), *_counts(each["total"])) for each in hours]
    columns = ("HOUR (UTC)", "UP", "DOWN", "BYTES", "DATAGRAMS UP", "DOWN", "PUBLISHES", "DATA")
    show_table(columns, rows, empty="it used nothing")


def _counts(sums: dict[str, int]) -> tuple[int, ...]:
    names = ("up_bytes", "down_bytes", "bytes", "up_datagrams", "down_datagrams", "publishes", "data_bytes")
    return tuple(sums[name] for name in names)
