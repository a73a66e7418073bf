"""Devices that are connected: memory, idle CPU, and all of them speaking after the server was killed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from bench import ground
from bench.harness import Client, Size, Wirechamber, resident_kb, wirechamber
from bench.link import fleet_of
from bench.load.devices import Fleet
from bench.scale.curves import Point, Sizes
from bench.scale.measuring import SETTINGS, idle, median, probing

# As many as one process may have sockets.
SIZES: Sizes = {"full": (1_000, 5_000, 18_000), "quick": (10, 20, 40)}
# Events that devices publish at a time when all come back.
AT_ONCE = 512
# What a handshake needs is kept a while for the case that its end was lost.
SETTLE_S = {"full": 50.0, "quick": 0.0}
IDLE_S = {"full": 10.0, "quick": 0.5}
QUIET_S = 20.0
STORED_S = 2.5


def run(size: Size) -> Iterator[Point]:
    sizes = SIZES[size]
    with wirechamber(**SETTINGS) as server, fleet_of(server, max(sizes)) as fleet:
        before = resident_kb(server.pid)
        for count in sizes:
            fleet.connect(count - len(fleet.sessions))
            time.sleep(SETTLE_S[size])
            yield Point("sessions_memory", count, (resident_kb(server.pid) - before) / count)
            yield Point("sessions_idle", count, idle(server, IDLE_S[size]))
    # Another server: one that was started anew has another memory.
    with wirechamber(**SETTINGS) as server, fleet_of(server, max(sizes)) as fleet:
        for count in sizes:
            fleet.connect(count - len(fleet.sessions))
            yield from _return(server, fleet, "restart_plain")


def subscribed(size: Size) -> Iterator[Point]:
    """All of them have subscribed to what nobody publishes; the broadcast is another such event."""
    sizes = SIZES[size]
    with wirechamber(**SETTINGS) as server, fleet_of(server, max(sizes)) as fleet:
        with server.stopped() as folder:
            ground.devices(folder, server.owner, range(max(sizes)))
        for count in sizes:
            first = len(fleet.sessions)
            fleet.connect(count - first)
            fleet.subscribe("all/", range(first, count))
            yield from _return(server, fleet, "restart_subscribed")
            yield from _broadcast(server, fleet)
            # Until it is stored who has had it.
            time.sleep(STORED_S)


def _return(server: Wirechamber, fleet: Fleet, curve: str) -> Iterator[Point]:
    count = len(fleet.sessions)
    waits = []

    def once() -> float:
        server.kill()
        server.restart()
        before = server.spent()
        waits.append(fleet.speak(AT_ONCE))
        return (server.spent() - before) / count * 1000

    yield Point(curve, count, median(once))
    yield Point(f"{curve}_last", count, sorted(waits)[len(waits) // 2])


def _broadcast(server: Wirechamber, fleet: Fleet) -> Iterator[Point]:
    count = len(fleet.sessions)
    client = Client(server)
    holds, twice = [], []

    def once() -> float:
        fleet.came = Counter()
        with probing(server) as probe, probe.watching() as felt:
            client.publish("all/now")
            fleet.listen(lambda: len(fleet.came) == count, QUIET_S)
        holds.append(felt["held_ms"])
        twice.append(sum(times > 1 for times in fleet.came.values()))
        return felt["held_ms"]

    yield Point("broadcast_hold", count, median(once))
    yield Point("broadcast_twice", count, max(twice))
    client.close()
