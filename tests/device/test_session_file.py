"""A session on the disk: whenever its process ends, no record number is used twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.device.conftest import Bench, run
from tests.relay import Relay, relay
from wirechamber.device.errors import BadFile
from wirechamber.device.session_file import SessionFile
from wirechamber.protocols.dtls import MOVED, TLS12_CID

KILLS = 6

PUBLISHER = """
import asyncio, sys
from wirechamber.device import Device
files, server_key, port, session = sys.argv[1:5]
async def main():
    with open(files + "/device_id") as file:
        device_id = file.read().strip()
    async with Device(device_id, key=files + "/device_key.der", server_key=server_key, host="127.0.0.1",
                      port=int(port), session_file=session) as device:
        print("connected", device.handshakes, flush=True)
        for number in range(1000000):
            await device.publish("killed", f"{number}", confirm=number % 3 > 0)
asyncio.run(main())
"""


class Records:
    """Every protected record that passed, by connection id and number."""

    def __init__(self, between: Relay) -> None:
        self.seen: dict[tuple[bytes, bytes], set[bytes]] = {}
        self._pass_on = between.up.carry
        between.up.carry = self._carry  # type: ignore[method-assign]

    def _carry(self, data: bytes, send: object) -> None:
        if data[0] in (TLS12_CID, MOVED):
            # The outer type is not part of what a nonce protects.
            self.seen.setdefault((data[11:19], data[3:11]), set()).add(data[1:])
        self._pass_on(data, send)  # type: ignore[arg-type]


def test_a_device_that_is_killed_at_any_moment_never_uses_a_number_twice(shared_bench: Bench, tmp_path: Path) -> None:
    files = shared_bench.provision()
    session = tmp_path / "session"

    async def scenario() -> None:
        async with relay(shared_bench.address) as between:
            records = Records(between)
            arguments = [str(files), str(shared_bench.server_key), str(between.address[1]), str(session)]
            for kill in range(KILLS):
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", PUBLISHER, *arguments, stdout=subprocess.PIPE, env=os.environ
                )
                assert process.stdout is not None
                said = (await process.stdout.readline()).decode().split()
                # One handshake, by the first of them.
                assert said == ["connected", "1" if kill == 0 else "0"]
                before = len(records.seen)
                # Around the end of a block that was reserved, and in its middle.
                while len(records.seen) < before + 50 + 9 * kill:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                process.send_signal(signal.SIGKILL)
                await process.wait()
            assert len({cid for cid, _ in records.seen}) == 1
            assert len(records.seen) > KILLS * 50
            assert [number for number, bytes_ in records.seen.items() if len(bytes_) > 1] == []

    run(scenario, 110)


def test_a_session_that_can_not_be_kept_is_not_used(shared_bench: Bench, tmp_path: Path) -> None:
    files = shared_bench.provision()
    folder = tmp_path / "folder"
    folder.mkdir()

    async def scenario() -> None:
        async with relay(shared_bench.address) as between:
            records = Records(between)
            device = shared_bench.device(files, address=between.address, session_file=folder / "session")
            # A folder where the new file would be: it can't be written, whoever runs this test.
            (folder / "session.new").mkdir()
            with pytest.raises(BadFile):
                await device.open()
            # The end of the handshake, and nothing under its keys after it.
            assert len(records.seen) <= 1

    run(scenario)
    assert not (folder / "session").exists()


def test_the_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadFile):
        SessionFile(tmp_path / "missing" / "session")
