"""A long record of deliveries: tidying, reading and deleting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial

from bench import ground
from bench.harness import Client, NoAnswer, Size, Wirechamber, wirechamber
from bench.scale.curves import Point, Sizes
from bench.scale.measuring import SETTINGS, cost, idle, probing, write_request
from bench.webhooks import hook
from wirechamber.cli.folder import Folder, in_folder
from wirechamber.model.deliveries import Settlement
from wirechamber.model.times import day
from wirechamber.store.base import Retention

SIZES: Sizes = {"full": (10_000, 100_000, 1_000_000), "quick": (50, 100, 200)}
NOWHERE = 9
TIMEOUT_S = 120.0
DAY_MS = 86_400_000
# A device that was never heard of in any delivery.
UNHEARD = "f" * 24


def run(size: Size) -> Iterator[Point]:
    with wirechamber(**SETTINGS) as server:
        for count in SIZES[size]:
            integration = hook(server, NOWHERE, event="temperature")
            other = hook(server, NOWHERE, event="other")
            with server.stopped() as folder:
                ground.attempts(folder, server.owner, integration, count)
                spent, longest = in_folder(partial(_tidy, other), data=folder)
            yield Point("attempts_tidy", count, spent * 1000)
            yield Point("attempts_tidy_hold", count, longest * 1000)
            client = Client(server)
            path = f"/v1/integrations/{integration}/logs?device={UNHEARD}"
            spent = cost(server, lambda path=path, client=client: client.request("GET", path), 3)  # type: ignore[misc]
            yield Point("attempts_page", count, spent * 1000)
            yield from _delete(server, client, integration, other, count)
            client.close()


async def _tidy(other: str, opened: Folder) -> tuple[float, float]:
    """CPU seconds of tidying with nothing to do, and the longest that another's write waited meanwhile."""
    now = ground.now_ms()
    retention = Retention(
        bodies_of_newest=10_000_000,
        bodies_after=now - DAY_MS,
        attempts_after=now - 30 * DAY_MS,
        counters_after=day(now) - 30,
    )
    deliveries = opened.store.deliveries
    longest, over = 0.0, False

    async def others() -> None:
        nonlocal longest
        while not over:
            began = time.perf_counter()
            await deliveries.settle(Settlement(remember=((other, "bench", 1),)))
            longest = max(longest, time.perf_counter() - began)
            await asyncio.sleep(0.001)

    task = asyncio.create_task(others())
    spent = time.process_time()
    await deliveries.tidy(retention)
    spent = time.process_time() - spent
    over = True
    await task
    return spent, longest


def _delete(server: Wirechamber, client: Client, integration: str, other: str, count: int) -> Iterator[Point]:
    """Deletes an integration, while another is saved again and again."""
    body = f'{{"integration_type":"Webhook","event":"other","url":"http://127.0.0.1:{NOWHERE}/in"}}'
    save = write_request(server, "PUT", f"/v1/integrations/{other}", body, server.token)
    with probing(server, save, 0.05) as probe:
        # What the saves take by themselves.
        share = idle(server, 1.0) / 100
        with probe.watching() as felt:
            spent, began = server.spent(), time.monotonic()
            client.request("DELETE", f"/v1/integrations/{integration}")
            _gone(server, integration, share)
            spent = server.spent() - spent - share * (time.monotonic() - began)
    yield Point("attempts_delete", count, max(0.0, spent))
    yield Point("attempts_delete_hold", count, felt["longest_ms"])


def _gone(server: Wirechamber, integration: str, share: float) -> None:
    """Waits until no more is done than the saves take: it may go in steps after the answer."""
    deadline = time.monotonic() + TIMEOUT_S
    quiet = 0
    while quiet < 5:
        quiet = quiet + 1 if idle(server, 0.2) / 100 < share + 0.1 else 0
        if time.monotonic() > deadline:
            raise NoAnswer(f"deleting {integration} did not end within {TIMEOUT_S:.0f} s")
