"""`wirechamber demo`: the main job on a fresh cloud, every step shown as it really happens.

A client of the cloud's public interfaces: it logs in, makes a webhook and reads the stream over HTTP, and publishes as
a device over DTLS, whose bytes are counted at its socket. The webhook's target is a small server on this machine.
Nothing is printed that was not seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from msgspec import structs
from rich.console import Console

from wirechamber.app import Cloud, running, until_stopped
from wirechamber.clock import SystemClock
from wirechamber.descriptors import raise_limit
from wirechamber.device import Device, DeviceError, Traffic
from wirechamber.device.keys import key_file, spki
from wirechamber.errors import Unavailable
from wirechamber.services.access import Access
from wirechamber.services.devices import Devices
from wirechamber.services.identity import Identity
from wirechamber.services.serverkeys import ServerKeys
from wirechamber.services.usage import by_https, by_kept_https
from wirechamber.settings import Settings

USER = "demo"
PASSWORD_FILE = "demo-password"  # noqa: S105
# The simulated device: its key and its session, mode 0600.
KEY_FILE = "demo-device.pem"
SESSION_FILE = "demo-device.session"
DEVICE_NAME = "demo-kitchen"
PLATFORM = 3
EVENT = "temperature/kitchen"
READINGS = (21.5, 22.0, 38.5)
# The whole of the steps; a cloud on a slow machine needs a few seconds.
STEP_TIMEOUT_S = 30.0


class DemoFailed(Exception):
    """A step did not happen in time."""


async def run(settings: Settings, *, exit_after: bool) -> int:
    """Runs the demo.

    Args:
        exit_after: End after the steps instead of staying up.

    Returns:
        The exit status: 0 when every step happened.
    """
    out = Console(highlight=False, soft_wrap=True)
    async with _target() as target:
        address = structs.replace(settings, outbound_allow=(*settings.outbound_allow, "127.0.0.1/32"))
        async with running(address) as cloud:
            password = await first_user(cloud.access, settings.data_folder)
            out.print(f"Wirechamber runs at [bold]{cloud.base_url}[/bold], data in {settings.data_folder}")
            device = await _device(cloud, settings)
            try:
                async with asyncio.timeout(STEP_TIMEOUT_S):
                    await _steps(cloud.base_url, password, target, device, out)
                if exit_after:
                    return 0
                _how_to_go_on(cloud, settings, password, out)
                await until_stopped(cloud)
            except (DemoFailed, DeviceError, TimeoutError, aiohttp.ClientError) as problem:
                out.print(f"[red]the demo stopped:[/red] {problem or 'a step took too long'}")
                return 1
            finally:
                await device.close()
    return 0


async def _device(cloud: Cloud, settings: Settings) -> Device:
    """The demo's device, known to the cloud; its id follows from its key. Not connected yet.

    Raises:
        Unavailable: Devices can't connect.
    """
    if not cloud.gateway.port:
        raise Unavailable(
            f"the demo's device can't connect: UDP port {settings.udp_port} is another program's; end that, or set "
            "WIRECHAMBER_UDP_PORT (0 takes a free one)"
        )
    folder, clock = settings.data_folder, SystemClock()
    key = key_file(folder / KEY_FILE)
    public = spki(key.public_key())
    device_id = hashlib.sha256(public).hexdigest()[:24]
    user = await cloud.access.named(USER)
    if await cloud.store.devices.get(device_id) is None:
        await Devices(cloud.store, clock).add(device_id, user.id, name=DEVICE_NAME, platform=PLATFORM)
    await Identity(cloud.store, clock, settings).set_key(device_id, public)
    everywhere = settings.udp_host in ("", "0.0.0.0", "::")  # noqa: S104
    return Device(
        device_id,
        key=key,
        server_key=ServerKeys(folder).public(tcp=False),
        host="127.0.0.1" if everywhere else settings.udp_host,
        port=cloud.gateway.port,
        session_file=folder / SESSION_FILE,
        goodbye=True,
    )


async def first_user(access: Access, folder: Path) -> str:
    """The demo user's password: made on the first start, kept in the data folder (mode 0600), used again later."""
    file = folder / PASSWORD_FILE
    if not file.exists():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_urlsafe(12) + "\n")
    password = file.read_text().strip()
    await access.ensure_user(USER, password)
    return password


class Target:
    """Where the demo's webhook goes: keeps what it got and answers what a weather service might."""

    def __init__(self) -> None:
        self.url = ""
        self.got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def handle(self, request: web.Request) -> web.Response:
        """Takes one webhook."""
        body = await request.text()
        self.got.put_nowait({"method": request.method, "path": request.path_qs, "body": body})
        reading = json.loads(body)["celsius"]
        return web.json_response({"advice": "open a window" if float(reading) > 30 else "all is well"})


@asynccontextmanager
async def _target() -> AsyncIterator[Target]:
    target = Target()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", target.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    target.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield target
    finally:
        await runner.cleanup()


async def _steps(base_url: str, password: str, target: Target, device: Device, out: Console) -> None:
    async with aiohttp.ClientSession(base_url=base_url) as client:
        token = await _login(client, password)
        client.headers["Authorization"] = f"Bearer {token}"
        out.print(f"  logged in as [bold]{USER}[/bold] (POST /oauth/token)")
        hook = await _webhook(client, target)
        out.print(f"  webhook {hook['id']}: events [bold]temperature…[/bold] go to {hook['url']}")
        async with client.get("/v1/devices/events") as stream:
            out.print(
                f"  stream open (GET /v1/devices/events), position {stream.headers['Wirechamber-Stream-Start']} on"
            )
            answers: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
            await _connect(device, answers, out)
            events = _read(stream)
            used = Traffic()
            data_bytes = 0
            for reading in READINGS:
                data = json.dumps({"celsius": reading})
                data_bytes += len(data)
                used = used.plus(await _publish(device, data, out))
                await _show(events, target, out)
                await _arrival(device, answers, out)
        https, kept = by_https(len(READINGS), data_bytes), by_kept_https(len(READINGS), data_bytes)
        out.print(
            f"\n  {len(READINGS)} publishes took {used.total:,} bytes; as many new HTTPS connections would have taken "
            f"{https:,}: [bold]{https / used.total:.0f} times[/bold] as much; over one that is kept open {kept:,}, "
            f"{kept / used.total:.1f} times"
        )
        await _log(client, hook["id"], out)


async def _connect(device: Device, answers: asyncio.Queue[tuple[str, Any]], out: Console) -> None:
    """Connects the device, and lets it subscribe to the answers to its events."""
    await device.subscribe(f"hook-response/{EVENT}", lambda name, data: answers.put_nowait((name, data)))
    await device.open()
    await device.settle()
    how = "a handshake, and all it tells" if device.handshakes else "by its session of the last run: no handshake"
    named = f"device {device.identity.id} ([bold]{DEVICE_NAME}[/bold])"
    out.print(f"  {named} connected over DTLS, {how}: {_bytes(device.traffic)}")


def _bytes(used: Traffic) -> str:
    datagrams = used.up_datagrams + used.down_datagrams
    return f"{used.up_bytes:,} bytes up, {used.down_bytes:,} down, {datagrams} datagrams"


async def _login(client: aiohttp.ClientSession, password: str) -> str:
    form = {"grant_type": "password", "username": USER, "password": password, "expires_in": "3600"}
    auth = aiohttp.BasicAuth("particle", "particle")
    async with client.post("/oauth/token", data=form, auth=auth) as answer:
        body = await answer.json()
        if answer.status != 200:
            raise DemoFailed(f"login: {body['error_description']}; is {PASSWORD_FILE} of another data folder?")
        return str(body["access_token"])


async def _webhook(client: aiohttp.ClientSession, target: Target) -> dict[str, Any]:
    async with client.get("/v1/integrations") as answer:
        for old in await answer.json():
            if old["name"] == "demo":
                async with client.delete(f"/v1/integrations/{old['id']}"):
                    pass
    hook = {
        "integration_type": "Webhook",
        "name": "demo",
        "event": "temperature",
        "url": target.url + "/{{{PARTICLE_EVENT_NAME}}}",
        "json": '{"celsius": {{celsius}}, "at": "{{PARTICLE_PUBLISHED_AT}}"}',
        "noDefaults": True,
        "responseTemplate": "{{advice}}",
    }
    async with client.post("/v1/integrations", json=hook) as answer:
        body = await answer.json()
        if answer.status != 201:
            raise DemoFailed(f"webhook: {body['error_description']}")
        return dict(body)


async def _publish(device: Device, data: str, out: Console) -> Traffic:
    before = device.traffic.copy()
    await device.publish(EVENT, data)
    used = device.traffic.since(before)
    out.print(f"\n  the device published [bold]{EVENT}[/bold] {data}: acknowledged, so stored")
    https = by_https(1, len(data))
    out.print(f"    on the wire    {_bytes(used)}; a new HTTPS connection would have taken {https:,} bytes")
    return used


async def _arrival(device: Device, answers: asyncio.Queue[tuple[str, Any]], out: Console) -> None:
    """Waits for the answer at the device."""
    name, data = await answers.get()
    # Its acknowledgement is not part of what the next publish takes.
    await device.settle()
    out.print(f"    at the device  {name} data [green]{data}[/green]")


async def _show(events: AsyncIterator[dict[str, str]], target: Target, out: Console) -> None:
    async for event in events:
        data = json.loads(event["data"])
        name, position = event["event"], event["id"]
        if name.startswith("hook-response/"):
            out.print(f"    answer event   position {position}: [bold]{name}[/bold] data [green]{data['data']}[/green]")
            return
        if name.startswith("hook-error/"):
            raise DemoFailed(f"the webhook failed: {data['data']}")
        if name.startswith("hook-sent/"):
            request = await target.got.get()
            out.print(f"    request sent   {request['method']} {target.url}{request['path']} body {request['body']}")
            out.print(f"    target took it position {position}: {name}")
        else:
            out.print(f"    event stored   position {position}: {name} data {data['data']}, seen on the stream")
    raise DemoFailed("the stream ended")


async def _log(client: aiohttp.ClientSession, hook: str, out: Console) -> None:
    async with client.get(f"/v1/integrations/{hook}") as answer:
        entries = (await answer.json())["integration"]["logs"]
    if not entries:
        raise DemoFailed("the webhook's log is empty")
    out.print(f"\n  the webhook's log has {len(entries)} entries; the newest: status {entries[0]['status']}")


async def _read(stream: aiohttp.ClientResponse) -> AsyncIterator[dict[str, str]]:
    fields: dict[str, str] = {}
    async for raw in stream.content:
        line = raw.decode().rstrip("\n")
        if line and not line.startswith(":"):
            key, _, value = line.partition(": ")
            fields[key] = value
        elif not line and fields:
            yield fields
            fields = {}


def _how_to_go_on(cloud: Cloud, settings: Settings, password: str, out: Console) -> None:
    shown = password if sys.stdout.isatty() else f"(in {settings.data_folder / PASSWORD_FILE})"
    out.print(f"""
[bold]All steps happened. The cloud stays up; Ctrl-C stops it.[/bold]

  base URL    {cloud.base_url}
  user        {USER}
  password    {shown}
  API         {cloud.base_url}/docs

  particle-cli:
    particle config wirechamber
    particle config set apiUrl {cloud.base_url}
    particle login --username {USER}
    particle subscribe
    particle publish temperature/kitchen '{{"celsius": 19}}'

  wirechamber's own commands (in another terminal):
    export WIRECHAMBER_URL={cloud.base_url} WIRECHAMBER_DATA={settings.data_folder.resolve()}
    export WIRECHAMBER_TOKEN=$(.venv/bin/wirechamber token create --user {USER})
    .venv/bin/wirechamber subscribe &
    .venv/bin/wirechamber publish temperature/kitchen '{{"celsius": 19}}'
    .venv/bin/wirechamber integration list
    .venv/bin/wirechamber usage
    .venv/bin/wirechamber device simulate --count 100 --owner {USER} --port {cloud.gateway.port}
""")


def main(settings: Settings, *, exit_after: bool) -> int:
    """Runs the demo in an event loop of its own."""
    raise_limit()
    with suppress(KeyboardInterrupt):
        return asyncio.run(run(settings, exit_after=exit_after))
    return 0
