"""Many devices in one process, as fast as they can be: what the device link is measured with."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives.asymmetric import ec

from wirechamber.protocols.coap.message import write_message
from wirechamber.protocols.deviceos.messages import Flag, Hello, Publish, write_hello, write_publish
from wirechamber.protocols.dtls import APPLICATION_DATA, ClientHandshake, Established, Failed, PublicKeys, Session

# What comes no more is lost.
LOST_S = 3.0


class Fleet:
    """Devices, each on a socket that it has to itself as long as something is under way.

    Args:
        sockets: How many devices can be busy at a time.
    """

    def __init__(self, port: int, server_key: ec.EllipticCurvePublicKey, sockets: int) -> None:
        # One key for all: making keys is not what is measured.
        self.port = port
        self._credentials = PublicKeys(ec.generate_private_key(ec.SECP256R1()), server_key)
        self.sessions: list[Session] = []
        self._message_ids: list[int] = []
        self._sockets: list[socket.socket] = []
        self._poller = select.poll()
        self._index: dict[int, int] = {}
        for index in range(sockets):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.connect(("127.0.0.1", port))
            made.setblocking(False)
            self._sockets.append(made)
            self._poller.register(made, select.POLLIN)
            self._index[made.fileno()] = index

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def handshakes(self, count: int) -> None:
        """So many new devices make a full handshake."""
        todo = iter(range(count))
        running: dict[int, ClientHandshake] = {}

        def begin(index: int) -> None:
            if next(todo, None) is not None:
                running[index] = ClientHandshake(self._credentials, time.monotonic())
                self._flush(index, running[index])
            else:
                running.pop(index, None)

        def arrived(index: int, datagram: bytes) -> None:
            handshake = running.get(index)
            if handshake is None:
                return
            handshake.receive(datagram, time.monotonic())
            self._flush(index, handshake)
            for event in handshake.events():
                if isinstance(event, Established):
                    self.sessions.append(event.session)
                    self._message_ids.append(0)
                    begin(index)
                elif isinstance(event, Failed):
                    raise SystemExit(f"a handshake failed: {event.why}")

        def tick() -> None:
            for index, handshake in running.items():
                handshake.tick(time.monotonic())
                self._flush(index, handshake)

        for index in range(len(self._sockets)):
            begin(index)
        self._until(lambda: not running, arrived, tick)

    def hello(self) -> None:
        """Every device says Hello and waits for the answer."""
        todo = iter(range(len(self.sessions)))
        running: dict[int, int] = {}

        def begin(index: int) -> None:
            number = next(todo, None)
            if number is None:
                running.pop(index, None)
                return
            running[index] = number
            self._send(index, number, write_message(write_hello(a_hello(number), self._next_id(number))))

        def arrived(index: int, datagram: bytes) -> None:
            number = running.get(index)
            if number is not None and self.sessions[number].unprotect(datagram) is not None:
                begin(index)

        for index in range(len(self._sockets)):
            begin(index)
        self._until(lambda: not running, arrived)

    def publish(self, seconds: float, data: bytes = b"x" * 20, rate: float = float("inf")) -> int:
        """As many devices as there are sockets publish, again as soon as each has its answer.

        Args:
            rate: Events per second at most, all together.

        Returns:
            How many events were acknowledged.
        """
        started = time.monotonic()
        until = started + seconds
        idle = deque(range(min(len(self._sockets), len(self.sessions))))
        busy: set[int] = set()
        acknowledged = sent = 0

        def send() -> None:
            nonlocal sent
            now = time.monotonic()
            while idle and now < until and sent < (now - started) * rate:
                index = idle.popleft()
                busy.add(index)
                self._event(index, data)
                sent += 1

        def arrived(index: int, datagram: bytes) -> None:
            nonlocal acknowledged
            if self.sessions[index].unprotect(datagram) is not None:
                acknowledged += 1
                busy.discard(index)
                idle.append(index)

        def over() -> bool:
            send()
            now = time.monotonic()
            return now > until and (not busy or now > until + LOST_S)

        self._until(over, arrived, wait_ms=1 if rate < float("inf") else 20)
        return acknowledged

    def publish_one(self, seconds: float = 30.0) -> bool:
        """The first device publishes, again every 50 ms, until it has an answer; whether it got one."""
        until = time.monotonic() + seconds
        answered = False

        def arrived(index: int, datagram: bytes) -> None:
            nonlocal answered
            answered = answered or (index == 0 and self.sessions[0].unprotect(datagram) is not None)

        while not answered and time.monotonic() < until:
            with contextlib.suppress(ConnectionRefusedError):
                self._event(0, b"x" * 20)
            pause = time.monotonic() + 0.05
            self._until(lambda: answered or time.monotonic() > pause, arrived)  # noqa: B023
        return answered

    # --- inside ---

    def _event(self, index: int, data: bytes) -> None:
        event = Publish("bench/temperature", data, None, 60, confirmable=True, message_id=self._next_id(index))
        self._send(index, index, write_message(write_publish(event)))

    def _next_id(self, number: int) -> int:
        self._message_ids[number] = (self._message_ids[number] + 1) & 0xFFFF
        return self._message_ids[number]

    def _send(self, index: int, number: int, message: bytes) -> None:
        self._sockets[index].send(self.sessions[number].protect(APPLICATION_DATA, message))

    def _flush(self, index: int, handshake: ClientHandshake) -> None:
        for datagram in handshake.datagrams(time.monotonic()):
            self._sockets[index].send(datagram)

    def _until(
        self,
        over: Callable[[], bool],
        arrived: Callable[[int, bytes], None],
        tick: Callable[[], None] = lambda: None,
        wait_ms: int = 20,
    ) -> None:
        while not over():
            ready = self._poller.poll(wait_ms)
            for descriptor, _ in ready:
                index = self._index[descriptor]
                for datagram in self._datagrams(index):
                    arrived(index, datagram)
            if not ready:
                tick()

    def _datagrams(self, index: int) -> Iterator[bytes]:
        sock = self._sockets[index]
        while True:
            try:
                yield sock.recv(4096)
            except (BlockingIOError, ConnectionRefusedError):
                return


def device_id(number: int) -> str:
    """Of the device of this number."""
    return hashlib.sha256(f"device {number}".encode()).hexdigest()[:24]


def a_hello(number: int) -> Hello:
    """As the virtual device of 6.2 says it."""
    return Hello(3, None, Flag(0x36), 3, device_id(number), 6200, 1152, 10 << 20, 512)
