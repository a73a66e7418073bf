"""A device in Python is asked what it measures of itself."""

from __future__ import annotations

from tests.device.conftest import Bench, run


def test_it_tells_its_uptime(shared_bench: Bench) -> None:
    files = shared_bench.provision(name="measuring")

    async def scenario() -> None:
        device = shared_bench.device(files)
        device.function("listens", lambda argument: 1)
        async with device:
            assert await shared_bench.call("POST", "/v1/diagnostics/measuring/update") == {"ok": True}
            last = (await shared_bench.call("GET", "/v1/diagnostics/measuring/last"))["diagnostics"]
            assert last["payload"]["device"]["system"]["uptime"] >= 0

    run(scenario)
