"""`kill -9` of a process that writes sessions and what devices told: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.backends import run
from wirechamber.clock import SystemClock
from wirechamber.secrets import Vault
from wirechamber.store.sqlite.store import open_sqlite_store

DEVICES = 20
WRITER = f"""
import asyncio, sys
from pathlib import Path
from tests.contract.links import a_session
from tests.contract.test_store import a_device, a_user
from wirechamber.clock import SystemClock
from wirechamber.model.links import Checkpoint, Greeted, HasHad, Reservation, Subscribed, Subscription
from wirechamber.secrets import Vault
from wirechamber.store.sqlite.store import open_sqlite_store

def tell(*words):
    print(*words, flush=True)

async def account(store, ids):
    for number in range(1, 1_000_000):
        checkpoints = [Checkpoint(id, number, number.to_bytes(4, "big"), f"::1 {{number}}") for id in ids]
        await store.sessions.account(checkpoints, [Reservation(id, number * 1024) for id in ids], f"{{number:08x}}")
        tell("account", number)

async def link(store, device):
    for number in range(1, 1_000_000):
        changes = [Subscribed(device, Subscription(str(number))), HasHad(device, str(number))]
        await store.links.apply(changes)
        tell(device, number)

async def main():
    folder = Path(sys.argv[1])
    async with open_sqlite_store(folder, Vault.open(folder), clock=SystemClock()) as store:
        await store.users.add(a_user("ann"))
        devices = [a_device(number) for number in range({DEVICES})]
        for number, device in enumerate(devices):
            await store.devices.add(device)
            session = a_session(number)
            await store.links.apply([Greeted(device=device.id, at=1, address="", session=session)])
        ids = [f"{{number:032x}}" for number in range({DEVICES})]
        tell("ready", 0)
        await asyncio.gather(account(store, ids), *(link(store, device.id) for device in devices))

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(3))
def test_what_was_acknowledged_is_there(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    told: dict[str, int] = {}
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready 0\n"
        for line in range(dice.randrange(500, 3000)):
            what, number = writer.stdout.readline().split()
            told[what] = int(number)
            if line > 400 and dice.random() < 0.002:
                break
        writer.kill()
        for rest in writer.stdout:
            # Killed while it wrote the line: what came of it is less than was done.
            if rest.endswith("\n"):
                what, number = rest.split()
                told[what] = int(number)
    assert len(told) == DEVICES + 1

    async def look() -> None:
        async with open_sqlite_store(tmp_path, Vault.open(tmp_path), clock=SystemClock()) as store:
            cursor = await store.sessions.cursor()
            assert cursor is not None
            # One that was durable and not told yet may be there.
            number = int(cursor, 16)
            assert number - 1 <= told["account"] <= number
            for session_id in (f"{number:032x}" for number in range(DEVICES)):
                session = await store.sessions.get(session_id)
                assert session is not None
                # All or none.
                assert (session.top, session.send_limit) == (number, number * 1024)
                assert session.mids == number.to_bytes(4, "big")
            for device, had in told.items():
                if device != "account":
                    link = await store.links.get(device)
                    assert link is not None
                    assert {int(each.prefix) for each in link.subscriptions} >= set(range(1, had + 1))
                    assert int(link.resume_from or "0") == len(link.subscriptions)

    run(asyncio.wait_for(look(), 30))
