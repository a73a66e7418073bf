"""The device link: events and handshakes for the server's CPU time, memory of idle sessions, and a restart."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from bench import webhooks
from bench.harness import (
    LOAD_CORE,
    SERVER_CORE,
    NoAnswer,
    Result,
    Size,
    Wirechamber,
    cpu_seconds,
    load,
    resident_kb,
    use_core,
    wirechamber,
)
from bench.load.devices import AT_ONCE, Fleet, device_id
from wirechamber.services.serverkeys import ServerKeys

HANDSHAKES = "device_handshakes_total"
DELIVERED = 'deliveries_total{kind="Webhook",outcome="delivered"}'


@dataclass(frozen=True)
class Counts:
    """How many devices: that publish, whose events go to a webhook, that are idle; and for how long each is measured.

    Attributes:
        hooked_rate: Events per second, below what one core can deliver, so that nothing piles up.
        settle_s: What a handshake needs is kept a while for the case that its end was lost.
        bare: Rounds of the counterparts.
    """

    publishing: int
    hooked: int
    hooked_rate: float
    idle: int
    seconds: float
    settle_s: float
    bare: int


COUNTS: dict[Size, Counts] = {
    "full": Counts(1_000, 100, 1_500.0, 10_000, 6.0, 50.0, 40_000),
    "quick": Counts(20, 5, 50.0, 50, 0.5, 0.0, 500),
}
SETTINGS = {"provisioning": "true", "publish_rate": "1000000", "publish_burst": "1000000"}


def run(size: Size) -> Iterator[Result]:
    counts = COUNTS[size]
    affinity = os.sched_getaffinity(0)
    bare = _on(SERVER_CORE, partial(_bare_events, counts.bare))
    crypto = _on(SERVER_CORE, partial(_bare_handshakes, counts.bare // 80))
    use_core(LOAD_CORE)()
    try:
        yield from _publishing(counts, bare, crypto)
        yield _webhooks(counts)
        yield from _idle(counts)
    finally:
        os.sched_setaffinity(0, affinity)


def _publishing(counts: Counts, bare: float, crypto: float) -> Iterator[Result]:
    with wirechamber(**SETTINGS) as server, fleet_of(server, counts.publishing) as fleet:
        shaken = counts.publishing / fleet.connect(counts.publishing, lambda: cpu_seconds(server.pid))
        yield Result(
            "full DTLS handshake, raw public keys both ways",
            shaken,
            "handshakes/CPU s",
            f"its crypto alone: {crypto:,.0f}",
            shaken / crypto,
            ">= 1500",
            "figure",
        )
        fleet.publish(counts.seconds / 6)
        spent, started = cpu_seconds(server.pid), time.monotonic()
        count = fleet.publish(counts.seconds)
        taken = time.monotonic() - started
        spent = cpu_seconds(server.pid) - spent
        yield Result(
            f"device event stored and acknowledged ({spent / count * 1e6:.1f} µs CPU, {count / taken:,.0f}/s)",
            count / spent,
            "events/CPU s",
            f"receive, decrypt, parse, answer in bare Python: {bare:,.0f}",
            count / spent / bare,
            ">= 40000",
            "figure",
        )


def _webhooks(counts: Counts) -> Result:
    """As `bench.webhooks`, but the event comes over the device link."""
    with wirechamber(**SETTINGS) as server, load("webhooks") as loaded, fleet_of(server, counts.hooked) as fleet:
        sink = int(loaded.said("its port"))
        fleet.connect(counts.hooked)
        for number in range(counts.hooked):
            server.request("POST", "/v1/devices", json.dumps({"id": device_id(number)}).encode())
        webhooks.hook(server, sink, event="bench/temperature")
        webhooks.ready(loaded, server)
        data = webhooks.DATA.replace("STAMP", f"t={time.perf_counter_ns()}").encode()
        before = server.metric(DELIVERED)
        _delivered(server, before, fleet.publish(counts.seconds / 6, data, rate=counts.hooked_rate))
        before = server.metric(DELIVERED)
        spent = cpu_seconds(server.pid)
        count = fleet.publish(counts.seconds, data, rate=counts.hooked_rate)
        _delivered(server, before, count)
        spent = cpu_seconds(server.pid) - spent
    return Result(
        "device event -> webhook, everything stored", spent / count * 1e6, "µs CPU per event",
        f"at {count / counts.seconds:,.0f} events/s", None, "<= 60", "figure",
    )  # fmt: skip


def _delivered(server: Wirechamber, before: float, count: int) -> None:
    deadline = time.monotonic() + 30
    while (delivered := server.metric(DELIVERED) - before) < count:
        if time.monotonic() > deadline:
            raise NoAnswer(f"{delivered:,.0f} of {count:,} events came to the webhook")
        time.sleep(0.05)


def _idle(counts: Counts) -> Iterator[Result]:
    with wirechamber(**SETTINGS) as server:
        before = resident_kb(server.pid)
        with fleet_of(server, AT_ONCE) as fleet:
            fleet.connect(counts.idle)
            time.sleep(counts.settle_s)
            each = (resident_kb(server.pid) - before) / counts.idle
            yield Result(
                f"memory of an idle device session, {counts.idle:,} of them", each, "KB", "", None, "<= 8", "figure"
            )
            shaken = server.metric(HANDSHAKES)
            server.stop()
            started = time.monotonic()
            server.restart()
            fleet.publish_one()
            waited = time.monotonic() - started
            yield Result(
                f"restart with {counts.idle:,} sessions until the first publish is acknowledged", waited, "s",
                f"handshakes: {shaken:,.0f} before, {server.metric(HANDSHAKES):,.0f} after", None,
            )  # fmt: skip


@contextmanager
def fleet_of(server: Wirechamber, sockets: int) -> Iterator[Fleet]:
    """Devices of a server, which have not connected yet."""
    fleet = Fleet(server.udp_port, ServerKeys(server.folder).ec().public_key(), sockets)
    try:
        yield fleet
    finally:
        fleet.close()


def _on(core: int, work: Callable[[], float]) -> float:
    affinity = os.sched_getaffinity(0)
    use_core(core)()
    try:
        return work()
    finally:
        os.sched_setaffinity(0, affinity)


def _bare_events(rounds: int) -> float:
    """Datagrams through a socket, one AES-CCM record each way, the least of CoAP: per second of this CPU."""
    ours, theirs = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with ours, theirs:
        ours.bind(("127.0.0.1", 0))
        theirs.bind(("127.0.0.1", 0))
        theirs.connect(ours.getsockname())
        opening, sealing = AESCCM(os.urandom(16), 8), AESCCM(os.urandom(16), 8)
        iv = os.urandom(4)
        message = b"\x40\x02\x00\x01\xb1E\x10bench/temperature\xff" + b"x" * 20
        record = b"\x19\xfe\xfd" + bytes(8) + bytes(10) + opening.encrypt(iv + bytes(8), message, bytes(23))
        spent = 0.0
        for _ in range(rounds // 100):
            for _ in range(100):
                theirs.send(record)
            started = time.process_time()
            for _ in range(100):
                datagram, address = ours.recvfrom(2048)
                plain = opening.decrypt(iv + datagram[3:11], datagram[21:], bytes(23))
                length = plain[6]
                name = plain[7 : 7 + length].decode()
                data = plain[8 + length :]
                assert len(name) + len(data) > 0
                answer = sealing.encrypt(iv + datagram[3:11], b"\x60\0" + plain[2:4], bytes(13))
                ours.sendto(b"\x17\xfe\xfd" + bytes(18) + answer, address)
            spent += time.process_time() - started
            for _ in range(100):
                theirs.recv(2048)
        return rounds / spent


def _bare_handshakes(rounds: int) -> float:
    """The server's share of public-key operations: one ECDHE key, one agreement, one signature, one check of one."""
    key, peer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    algorithm = ec.ECDSA(hashes.SHA256())
    signature = peer.sign(b"x" * 300, algorithm)
    started = time.process_time()
    for _ in range(rounds):
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        ephemeral.exchange(ec.ECDH(), peer.public_key())
        key.sign(b"x" * 133, algorithm)
        peer.public_key().verify(signature, b"x" * 300, algorithm)
    return rounds / (time.process_time() - started)
