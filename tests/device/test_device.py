"""The device against a real cloud."""

from __future__ import annotations

import asyncio
import re
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.device.conftest import Bench, run
from tests.relay import relay
from tests.sse import stream, take
from wirechamber.device import Device, DeviceError, NotAcknowledged, NotAllowed, NotConnected, Refused, SessionInUse
from wirechamber.protocols.dtls import HANDSHAKE, MOVED, TLS12_CID


class Got:
    """What handlers were called with; waits until there is enough."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._came = asyncio.Event()

    def __call__(self, *arguments: Any) -> None:
        self.items.append(arguments)
        self._came.set()

    async def until(self, count: int) -> list[Any]:
        while len(self.items) < count:
            self._came.clear()
            await self._came.wait()
        return self.items


async def soon(look: Any) -> Any:
    """Asks a coroutine function until the answer is true; the test's own time-out is the deadline."""
    while not (found := await look()):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return found


# --- publishing ---


def test_what_is_published_is_in_the_log_in_the_form_it_was_given(shared_bench: Bench) -> None:
    files = shared_bench.provision()

    async def scenario() -> None:
        async with shared_bench.device(files) as device:
            await device.publish("forms/text", "21.5 °C", ttl=3600)
            await device.publish("forms/structured", {"a": 1, "b": [True, None, "x"]})
            await device.publish("forms/bytes", b"\x00\x01")
            await device.publish("forms/nothing")
            await device.publish("forms/unconfirmed", "sent once", confirm=False)

    client = shared_bench.cloud.client(shared_bench.token)
    with stream(client, "/v1/devices/events/forms") as source:
        run(scenario)
        seen = take(source, 5)
    assert [(each.name, each.data) for each in seen] == [
        ("forms/text", "21.5 °C"),
        ("forms/structured", '{"a":1,"b":[true,null,"x"]}'),
        ("forms/bytes", "data:application/octet-stream;base64,AAE="),
        ("forms/nothing", None),
        ("forms/unconfirmed", "sent once"),
    ]
    assert seen[0].body["ttl"] == 3600
    assert {each.body["coreid"] for each in seen} == {(files / "device_id").read_text().strip()}


def test_a_confirmed_publish_of_20_bytes_takes_174_bytes_on_the_wire(shared_bench: Bench) -> None:
    files = shared_bench.provision()

    async def scenario() -> None:
        async with shared_bench.device(files) as device:
            await device.publish("before", "what comes after the connection is done")
            await device.settle()
            before = device.traffic.copy()
            await device.publish("temp", "t=21.5 h=40.1 p=1013")
            used = device.traffic.since(before)
            assert (used.up_bytes, used.up_datagrams) == (113, 1)
            assert (used.down_bytes, used.down_datagrams) == (61, 1)

    run(scenario)


@pytest.mark.parametrize("options", [(), ("--psk",)])
def test_what_is_not_to_be_confirmed_is_not_answered(shared_bench: Bench, options: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with shared_bench.device(shared_bench.provision(*options)) as device:
            await device.settle()
            before = device.traffic.copy()
            await device.publish("temperature", "x" * 20, confirm=False)
            # A question after it: its answer comes after what would have been the event's.
            used = device.traffic.since(before)
            assert (used.up_datagrams, used.down_datagrams) == (1, 0)
            assert used.total <= 122
            await device.publish("temperature", "y" * 20)
            assert device.traffic.since(before).down_datagrams == 1

    run(scenario)


def test_a_device_that_publishes_too_fast_is_told_so_and_when_to_go_on(bench: Bench) -> None:
    files = bench.provision()

    async def scenario() -> None:
        async with bench.device(files) as device:
            # At once, so that no slow machine lets it publish slowly.
            ends = await asyncio.gather(*(device.publish("fast", "x") for _ in range(40)), return_exceptions=True)
            refused = [each for each in ends if isinstance(each, Refused)]
            assert 0 < len(refused) < 40
            assert ends.count(None) == 40 - len(refused)
            for each in refused:
                assert each.code == "4.29"
                assert each.seconds is not None
                assert 1 <= each.seconds <= 3

    run(scenario)


@pytest.mark.parametrize(
    ("name", "data"),
    [("", "x"), ("x" * 65, "x"), ("né", "x"), ("n", "x" * 1025), ("n", object()), ("n", float("nan"))],
)
def test_what_can_not_be_published_is_an_error_of_the_caller(shared_bench: Bench, name: str, data: Any) -> None:
    files = shared_bench.folder / "none"
    files.mkdir(exist_ok=True)
    (files / "device_id").write_text("0123456789abcdef01234567")

    async def scenario() -> None:
        device = shared_bench.device(files)
        with pytest.raises(ValueError, match=r"."):
            await device.publish(name, data)

    (files / "device_key.der").unlink(missing_ok=True)
    run(scenario)


# --- what the cloud asks ---


def test_functions_and_variables_of_every_type(shared_bench: Bench) -> None:
    files = shared_bench.provision(name="asked")

    async def scenario() -> None:
        device = shared_bench.device(files)

        async def later(argument: str) -> int:
            await asyncio.sleep(0)
            return len(argument)

        def broken(argument: str) -> int:
            raise RuntimeError(argument)

        device.function("negative", lambda argument: -int(argument))
        device.function("later", later)
        device.function("broken", broken)
        device.variable("flag", True)
        device.variable("count", lambda: -7)
        device.variable("temp", lambda: 21.5)
        device.variable("text", lambda: "grün")
        async with device:
            known = await soon(lambda: described(shared_bench, "asked"))
            assert known["functions"] == ["negative", "later", "broken"]
            assert known["variables"] == {"flag": "bool", "count": "int32", "temp": "double", "text": "string"}
            assert known["connected"] is True
            for name, argument, result in (("negative", "5", -5), ("later", "é" * 3, 3), ("broken", "", -1)):
                answer = await shared_bench.call("POST", f"/v1/devices/asked/{name}", json={"arg": argument})
                assert answer["return_value"] == result, name
            for name, value in (("flag", True), ("count", -7), ("temp", 21.5), ("text", "grün")):
                assert (await shared_bench.call("GET", f"/v1/devices/asked/{name}"))["result"] == value

    run(scenario)


async def described(bench: Bench, device: str) -> Any:
    known = await bench.call("GET", f"/v1/devices/{device}")
    return known if known["functions"] else None


def test_many_functions_are_told_in_blocks_and_all_are_known(shared_bench: Bench) -> None:
    files = shared_bench.provision(name="many")
    names = [f"function_with_a_long_name_{number:03}" for number in range(100)]

    async def scenario() -> None:
        device = shared_bench.device(files)
        for name in names:
            device.function(name, lambda argument: 1)
        async with device:
            known = await soon(lambda: described(shared_bench, "many"))
            assert known["functions"] == names

    run(scenario)


def test_signal_ping_and_time(shared_bench: Bench) -> None:
    files = shared_bench.provision(name="signalled")
    got = Got()

    async def scenario() -> None:
        device = shared_bench.device(files)
        device.on_signal(got)
        async with device:
            await shared_bench.call("PUT", "/v1/devices/signalled", json={"signal": "1"})
            await shared_bench.call("PUT", "/v1/devices/signalled", json={"signal": "0"})
            assert await got.until(2) == [(True,), (False,)]
            assert (await shared_bench.call("PUT", "/v1/devices/signalled/ping"))["online"] is True
            assert abs(await device.time() - asyncio.get_running_loop().time()) > 0
            assert device.clock_offset is not None
            assert abs(device.clock_offset) < 2

    run(scenario)


def test_subscriptions_get_what_they_asked_for(shared_bench: Bench) -> None:
    files = shared_bench.provision()
    plain, binary, structured = Got(), Got(), Got()

    async def scenario() -> None:
        async with shared_bench.device(files) as device:
            await device.subscribe("sub/a", plain)
            await device.subscribe("sub/a/", structured, structured=True)
            await device.subscribe("sub/b", binary, binary=True)
            await shared_bench.call("POST", "/v1/devices/events", json={"name": "sub/a/text", "data": "one"})
            await device.publish("sub/a/object", {"two": 2})
            await device.publish("sub/b", b"\x03")
            await binary.until(1)
            await structured.until(2)
            await plain.until(2)

    run(scenario)
    assert plain.items == [("sub/a/text", "one"), ("sub/a/object", '{"two":2}')]
    assert structured.items == [("sub/a/text", "one"), ("sub/a/object", {"two": 2})]
    assert binary.items == [("sub/b", b"\x03")]


# --- sessions ---


def test_the_second_run_makes_no_handshake_and_tells_nothing_twice(shared_bench: Bench, tmp_path: Path) -> None:
    files = shared_bench.provision(name="sleepy")
    file = tmp_path / "session"
    got = Got()

    async def wake(*, ping_first: bool = True) -> list[int]:
        async with relay(shared_bench.address) as between:
            device = shared_bench.device(files, address=between.address, session_file=file, ping_first=ping_first)
            await device.subscribe("sleepy/", got)
            device.function("f", lambda argument: 1)
            async with device:
                await device.settle()
                await device.publish("woke")
                kinds = between.up.counts.kinds
                return [kinds.get(kind, 0) for kind in (HANDSHAKE, MOVED, TLS12_CID)]

    async def scenario() -> None:
        hellos, moved, _ = await wake()
        assert (hellos, moved) == (3, 0)
        # A ping that says where the device is now, and the event.
        assert await wake() == [0, 1, 1]
        assert await wake(ping_first=False) == [0, 1, 0]
        assert (await described(shared_bench, "sleepy"))["functions"] == ["f"]

    run(scenario)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_has_changed_since_the_last_run_is_told_and_nothing_else(shared_bench: Bench, tmp_path: Path) -> None:
    files = shared_bench.provision(name="changed")

    async def scenario() -> None:
        for names in (("a",), ("a", "b")):
            device = shared_bench.device(files, session_file=tmp_path / "session")
            for name in names:
                device.function(name, lambda argument: 1)
            async with device:
                await device.settle()
        assert device.handshakes == 0
        # A ping and a description.
        assert device.traffic.up_datagrams == 2
        assert (await described(shared_bench, "changed"))["functions"] == ["a", "b"]
        device = shared_bench.device(files, session_file=tmp_path / "session", version=2)
        async with device:
            await device.settle()
            # Another version is told by a Hello, in the same session.
            assert device.resumed is False
            assert device.handshakes == 0

    run(scenario)


def test_a_session_is_used_by_one_process_at_a_time(shared_bench: Bench, tmp_path: Path) -> None:
    files = shared_bench.provision()

    async def scenario() -> None:
        async with shared_bench.device(files, session_file=tmp_path / "session"):
            with pytest.raises(SessionInUse):
                await shared_bench.device(files, session_file=tmp_path / "session").open()
        async with shared_bench.device(files, session_file=tmp_path / "session") as again:
            assert again.resumed

    run(scenario)


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff" * 100])
def test_a_session_file_that_is_none_costs_a_handshake(shared_bench: Bench, tmp_path: Path, content: bytes) -> None:
    files = shared_bench.provision()
    (tmp_path / "session").write_bytes(content)

    async def scenario() -> None:
        async with shared_bench.device(files, session_file=tmp_path / "session") as device:
            assert device.handshakes == 1

    run(scenario)


def test_a_session_is_not_used_with_another_key(shared_bench: Bench, tmp_path: Path) -> None:
    async def scenario() -> None:
        for _ in range(2):
            files = shared_bench.provision()
            async with shared_bench.device(files, session_file=tmp_path / "session") as device:
                assert device.handshakes == 1

    run(scenario)


def test_the_servers_restart_and_a_new_address_go_unnoticed(bench: Bench) -> None:
    files = bench.provision(name="steady")

    async def scenario() -> None:
        async with relay(bench.address) as between, bench.device(files, address=between.address) as device:
            device.function("f", lambda argument: 5)
            await device.publish("steady", "before")
            await soon(lambda: described(bench, "steady"))
            await asyncio.to_thread(bench.cloud.kill)
            publishing = asyncio.create_task(device.publish("steady", "while the cloud is down"))
            await asyncio.to_thread(bench.cloud.start)
            await publishing
            between.rebind()
            await device.publish("steady", "from another address")
            answer = await bench.call("POST", "/v1/devices/steady/f", json={"arg": ""})
            assert answer["return_value"] == 5
            assert device.handshakes == 1

    run(scenario)


# --- no ---


def test_an_unknown_device_and_a_wrong_key_are_not_allowed(shared_bench: Bench, tmp_path: Path) -> None:
    known, other = shared_bench.provision(), shared_bench.provision()

    async def scenario() -> None:
        host, port = shared_bench.address
        unknown = Device("0" * 24, key=tmp_path / "made.pem", server_key=shared_bench.server_key, host=host, port=port)
        assert stat.S_IMODE((tmp_path / "made.pem").stat().st_mode) == 0o600
        # Somebody else's id; the right id with another key of the cloud.
        thief = Device(
            (known / "device_id").read_text().strip(), key=other / "device_key.der",
            server_key=shared_bench.server_key, host=host, port=port,
        )  # fmt: skip
        public = unknown.identity.credentials.private_key.public_key()  # type: ignore[union-attr]
        misled = Device(
            (known / "device_id").read_text().strip(), key=known / "device_key.der", server_key=public, host=host,
            port=port,
        )  # fmt: skip
        for device in (unknown, thief, misled):
            with pytest.raises(NotAllowed):
                await device.open()

    run(scenario)


def test_no_cloud_is_told_in_time(shared_bench: Bench) -> None:
    files = shared_bench.provision()

    async def scenario() -> None:
        async with relay(shared_bench.address) as between:
            between.pause()
            with pytest.raises(NotConnected):
                await shared_bench.device(files, address=between.address, connect_timeout=0.2).open()
            between.resume()
            async with shared_bench.device(files, address=between.address) as device:
                between.pause()
                with pytest.raises(NotAcknowledged):
                    await device.publish("lost", timeout=0.2)
                waiting = asyncio.create_task(device.publish("never"))
                await asyncio.sleep(0)
            with pytest.raises(DeviceError, match="closed"):
                await waiting

    run(scenario)


def test_attempts_are_logged_with_what_may_be_wrong(
    shared_bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wirechamber.device.attempts.SILENT_S", 0.05)
    files = shared_bench.provision()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = nobody.getsockname()
        # Of the first one nobody knows anything, the second one's machine says that nobody listens there.
        for closes in (False, True):
            if closes:
                nobody.close()
            caplog.clear()

            async def scenario() -> None:
                with pytest.raises(NotConnected) as problem:
                    await shared_bench.device(files, address=address, connect_timeout=0.3).open()
                assert f"{address[0]} port {address[1]} (UDP)" in str(problem.value)

            run(scenario)
            (told,) = [record.getMessage() for record in caplog.records if "has not answered" in record.getMessage()]
            assert f"{address[0]} port {address[1]} (UDP)" in told
            assert ("nobody listens there" in told) is closes


@pytest.mark.parametrize("host", ["300.1.2.3", "cloud.example.com:5684", "https://cloud.example.com", "a b"])
def test_a_host_that_is_none_is_told_at_once(host: str) -> None:
    with pytest.raises(DeviceError, match=re.escape(host)):
        Device("0" * 24, psk=b"x" * 16, host=host)


def test_a_goodbye_takes_the_device_offline_at_once(shared_bench: Bench) -> None:
    files = shared_bench.provision(name="polite")

    async def scenario() -> None:
        async with shared_bench.device(files, goodbye=True):
            assert (await shared_bench.call("GET", "/v1/devices/polite"))["connected"] is True
        assert (await shared_bench.call("GET", "/v1/devices/polite"))["connected"] is False

    run(scenario)


# --- pre-shared keys ---


def test_a_device_with_a_pre_shared_key_publishes_subscribes_and_resumes(shared_bench: Bench, tmp_path: Path) -> None:
    files = shared_bench.provision("--psk")
    got = Got()

    async def wake() -> Device:
        before = len(got.items)
        async with shared_bench.device(files, session_file=tmp_path / "session") as device:
            await device.subscribe("psk/", got)
            await device.publish("psk/a", "b")
            await device.publish("psk/a", b"c")
            await got.until(before + 1)
            return device

    async def scenario() -> None:
        first = await wake()
        assert first.handshakes == 1
        second = await wake()
        assert second.handshakes == 0

    run(scenario)
    assert got.items[0] == ("psk/a", "b")
