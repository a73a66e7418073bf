"""The device link: events and handshakes for the server's CPU time, memory of idle sessions, and a restart."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from bench import webhooks
from bench.harness import LOAD_CORE, SERVER_CORE, Result, Wirechamber, cpu_seconds, resident_kb, use_core, wirechamber
from bench.load.devices import Fleet, device_id
from wirechamber.services.serverkeys import ServerKeys

PUBLISHING = 1_000
SECONDS = 6.0
IDLE = 10_000
HOOKED = 100
# Below what one core can deliver, so that nothing piles up.
HOOKED_RATE = 1_500.0
SETTINGS = {"provisioning": "true", "udp_port": "0", "publish_rate": "1000000", "publish_burst": "1000000"}
BARE_ROUNDS = 40_000


def run() -> list[Result]:
    affinity = os.sched_getaffinity(0)
    bare = _on(SERVER_CORE, _bare_events)
    crypto = _on(SERVER_CORE, _bare_handshakes)
    use_core(LOAD_CORE)()
    try:
        return [*_publishing(bare, crypto), _webhooks(), *_idle()]
    finally:
        os.sched_setaffinity(0, affinity)


def _publishing(bare: float, crypto: float) -> list[Result]:
    with wirechamber(**SETTINGS) as server:
        fleet = _fleet(server, PUBLISHING)
        spent = cpu_seconds(server.pid)
        fleet.handshakes(PUBLISHING)
        shaken = PUBLISHING / (cpu_seconds(server.pid) - spent)
        fleet.hello()
        fleet.publish(1.0)
        spent, started = cpu_seconds(server.pid), time.monotonic()
        count = fleet.publish(SECONDS)
        taken = time.monotonic() - started
        spent = cpu_seconds(server.pid) - spent
        fleet.close()
    return [
        Result(
            f"device event stored and acknowledged ({spent / count * 1e6:.1f} µs CPU, {count / taken:,.0f}/s)",
            count / spent,
            "events/CPU s",
            f"receive, decrypt, parse, answer in bare Python: {bare:,.0f}",
            count / spent / bare,
            ">= 40000",
            "figure",
        ),
        Result(
            "full DTLS handshake, raw public keys both ways",
            shaken,
            "handshakes/CPU s",
            f"its crypto alone: {crypto:,.0f}",
            shaken / crypto,
            ">= 1500",
            "figure",
        ),
    ]


def _webhooks() -> Result:
    """As `bench.webhooks`, but the event comes over the device link."""
    with wirechamber(**SETTINGS) as server, webhooks.load() as (loaded, sink):
        fleet = _fleet(server, HOOKED)
        fleet.handshakes(HOOKED)
        fleet.hello()
        for number in range(HOOKED):
            server.request("POST", "/v1/devices", json.dumps({"id": device_id(number)}).encode())
        webhooks.hook(server, sink, event="bench/temperature")
        webhooks.ready(loaded, server)
        data = webhooks.DATA.replace("STAMP", f"t={time.perf_counter_ns()}").encode()
        fleet.publish(1.0, data, rate=HOOKED_RATE)
        before = _delivered(server)
        spent = cpu_seconds(server.pid)
        count = fleet.publish(SECONDS, data, rate=HOOKED_RATE)
        deadline = time.monotonic() + 30
        while _delivered(server) - before < count and time.monotonic() < deadline:
            time.sleep(0.05)
        spent = cpu_seconds(server.pid) - spent
        fleet.close()
        delivered = _delivered(server) - before
        assert delivered >= count, f"{delivered:,.0f} of {count:,} events came to the webhook"
    return Result(
        "device event -> webhook, everything stored", spent / count * 1e6, "µs CPU per event",
        f"at {count / SECONDS:,.0f} events/s", None, "<= 60", "figure",
    )  # fmt: skip


def _idle() -> list[Result]:
    with wirechamber(**SETTINGS) as server:
        before = resident_kb(server.pid)
        fleet = _fleet(server, 200)
        fleet.handshakes(IDLE)
        fleet.hello()
        # What a handshake needs is kept a while for the case that its end was lost.
        time.sleep(50)
        each = (resident_kb(server.pid) - before) / IDLE
        log = Path(server.environment["WIRECHAMBER_DATA"]) / "server.log"
        shaken = _handshakes(server)
        server.process.terminate()
        server.process.wait(15)
        server.environment["WIRECHAMBER_UDP_PORT"] = str(fleet.port)
        started = time.monotonic()
        server.start(log)
        first = fleet.publish_one()
        waited = time.monotonic() - started
        again = _handshakes(server)
        fleet.close()
    assert first, "the first publish after the restart got no answer"
    return [
        Result(f"memory of an idle device session, {IDLE:,} of them", each, "KB", "", None, "<= 8", "figure"),
        Result(
            f"restart with {IDLE:,} sessions until the first publish is acknowledged", waited, "s",
            f"handshakes: {shaken:,.0f} before, {again:,.0f} after", None,
        ),
    ]  # fmt: skip


def _fleet(server: Wirechamber, sockets: int) -> Fleet:
    folder = Path(server.environment["WIRECHAMBER_DATA"])
    found = re.search(r'"udp": (\d+)', (folder / "server.log").read_text())
    assert found is not None
    return Fleet(int(found[1]), ServerKeys(folder).ec().public_key(), sockets)


def _handshakes(server: Wirechamber) -> float:
    return _metric(server, "device_handshakes_total")


def _delivered(server: Wirechamber) -> float:
    return _metric(server, r'deliveries_total\{kind="Webhook",outcome="delivered"\}')


def _metric(server: Wirechamber, name: str) -> float:
    found = re.search(rf"^wirechamber_{name} (\S+)", server.request("GET", "/metrics").decode(), re.M)
    return 0.0 if found is None else float(found[1])


def _on(core: int, work: Callable[[], float]) -> float:
    affinity = os.sched_getaffinity(0)
    use_core(core)()
    try:
        return work()
    finally:
        os.sched_setaffinity(0, affinity)


def _bare_events() -> float:
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
        for _ in range(BARE_ROUNDS // 100):
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
        return BARE_ROUNDS / spent


def _bare_handshakes() -> float:
    """The server's share of public-key operations: one ECDHE key, one agreement, one signature, one check of one."""
    key, peer = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    algorithm = ec.ECDSA(hashes.SHA256())
    signature = peer.sign(b"x" * 300, algorithm)
    started = time.process_time()
    for _ in range(500):
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        ephemeral.exchange(ec.ECDH(), peer.public_key())
        key.sign(b"x" * 133, algorithm)
        peer.public_key().verify(signature, b"x" * 300, algorithm)
    return 500 / (time.process_time() - started)
