"""Many devices in one process, as fast as they can be: what the device link is measured with."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from cryptography.hazmat.primitives.asymmetric import ec

from bench.harness import NoAnswer
from wirechamber.protocols.coap.message import ack, write_message
from wirechamber.protocols.deviceos.messages import (
    Flag,
    Hello,
    Publish,
    Subscribe,
    write_hello,
    write_publish,
    write_subscribe,
)
from wirechamber.protocols.dtls import APPLICATION_DATA, ClientHandshake, Established, Failed, PublicKeys, Session

# Devices that are under way at a time, as many as a fleet that comes on in turn: each says Hello right after its
# handshake, as real ones do.
AT_ONCE = 64
# What was not answered is sent again after this.
REPEAT_S = 2.0
# When nothing at all was answered for so long, nothing more comes.
SILENCE_S = 20.0
# Types of messages (RFC 7252, section 3).
CON, ACK, RST = 0, 2, 3
# The code of an event to a device; the cloud also asks, by GET.
POST = 2


class Fleet:
    """Devices by number, from 0 on.

    Args:
        sockets: Each device has the socket of its number; with fewer sockets than devices, those that share one are not
            under way at the same time, and are sent nothing unasked.
        key: All have the same one, because making keys is not what is measured; a new one when it is None.

    Attributes:
        came: How many events each device was sent.
    """

    def __init__(
        self,
        port: int,
        server_key: ec.EllipticCurvePublicKey,
        sockets: int,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        self.port = port
        self._credentials = PublicKeys(key or ec.generate_private_key(ec.SECP256R1()), server_key)
        self.sessions: dict[int, Session] = {}
        self.came: Counter[int] = Counter()
        self._message_ids: Counter[int] = Counter()
        self._sockets: list[socket.socket] = []
        self._poller = select.epoll()
        self._index: dict[int, int] = {}
        for index in range(sockets):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.connect(("127.0.0.1", port))
            made.setblocking(False)
            self._sockets.append(made)
            self._poller.register(made, select.EPOLLIN)
            self._index[made.fileno()] = index

    def close(self) -> None:
        self._poller.close()
        for each in self._sockets:
            each.close()

    # --- what devices do ---

    def connect(self, count: int, spent: Callable[[], float] = time.process_time) -> float:
        """So many more devices make a handshake and say Hello, a few at a time.

        Args:
            spent: The time that is measured.

        Returns:
            What the handshakes alone took of it.
        """
        taken = 0.0
        first = len(self.sessions)
        turn = min(AT_ONCE, len(self._sockets))
        for begin in range(first, first + count, turn):
            numbers = range(begin, min(begin + turn, first + count))
            before = spent()
            self._handshakes(numbers)
            taken += spent() - before
            self.ask(numbers, lambda number, id: write_message(write_hello(a_hello(number), id)), "its Hello")
        return taken

    def subscribe(self, prefix: str, numbers: Iterable[int]) -> None:
        """These devices subscribe."""
        message = Subscribe(prefix)
        self.ask(numbers, lambda _, id: write_message(write_subscribe(message, id)), "its subscription")

    def speak(self, at_once: int = AT_ONCE) -> float:
        """Every device publishes once; returns the seconds until the last was acknowledged."""
        started = time.monotonic()
        self.ask(self.sessions, lambda _, id: _event(b"x" * 20, id), "its event", at_once)
        return time.monotonic() - started

    def publish(self, seconds: float, data: bytes = b"x" * 20, rate: float = float("inf")) -> int:
        """As many devices as there are sockets publish, again as soon as each has its answer.

        Args:
            rate: Events per second at most, all together.

        Returns:
            How many events were acknowledged.
        """
        started = time.monotonic()
        until = started + seconds

        def numbers() -> Iterator[int | None]:
            """Whose turn it is; None: nobody's yet."""
            sent = 0
            turns = min(len(self._sockets), len(self.sessions))
            while (now := time.monotonic()) < until:
                due = sent < (now - started) * rate
                yield sent % turns if due else None
                sent += due

        return self.ask(numbers(), lambda _, id: _event(data, id), "its event", len(self._sockets))

    def publish_one(self, seconds: float = 30.0) -> None:
        """The first device publishes, again every 50 ms, until it has an answer."""
        self.ask((0,), lambda _, id: _event(b"x" * 20, id), "its event", repeat_s=0.05, silence_s=seconds)

    def listen(self, over: Callable[[], bool], silence_s: float = SILENCE_S) -> None:
        """Takes what comes, until it is over. Raises NoAnswer when nothing comes for a while before."""
        last = time.monotonic()
        while not over():
            if any(self._messages({})):
                last = time.monotonic()
            elif time.monotonic() - last > silence_s:
                raise NoAnswer(f"nothing came to the devices for {silence_s:.0f} s")

    def ask(
        self,
        numbers: Iterable[int | None],
        message: Callable[[int, int], bytes],
        what: str,
        at_once: int = AT_ONCE,
        *,
        repeat_s: float = REPEAT_S,
        silence_s: float = SILENCE_S,
    ) -> int:
        """Each of these devices sends a confirmable message and waits for its acknowledgement.

        Args:
            message: Makes it, of the device's number and the message id.

        Returns:
            How many there were.

        Raises:
            NoAnswer: Nothing at all was acknowledged for a while; says of which devices.
        """
        todo = iter(numbers)
        # By socket: the device, its message id, the message, and when it is repeated.
        running: dict[int, tuple[int, int, bytes, float]] = {}
        held: int | None = None
        count = 0
        more = True
        heard = looked = time.monotonic()
        room = min(at_once, len(self._sockets))
        while more or running:
            while more and len(running) < room:
                number = held if held is not None else next(todo, -1)
                held = None
                if number is None:
                    break
                if number < 0:
                    more = False
                    break
                index = number % len(self._sockets)
                if index in running:
                    held = number
                    break
                self._message_ids[number] = id = (self._message_ids[number] + 1) & 0xFFFF
                data = message(number, id)
                running[index] = (number, id, data, time.monotonic() + repeat_s)
                self._send(index, number, data)
            for index, number, kind, id in self._messages(running):
                if kind in (ACK, RST) and index in running and running[index][:2] == (number, id):
                    if kind == RST:
                        raise NoAnswer(f"device {number} was refused {what}")
                    del running[index]
                    count += 1
                    heard = time.monotonic()
            now = time.monotonic()
            if running and now - heard > silence_s:
                lacking = sorted(number for number, *_ in running.values())
                raise NoAnswer(f"{len(lacking)} devices got no answer to {what}: {_few(lacking)}")
            if now > looked + repeat_s / 4:
                looked = now
                for index, (number, id, data, due) in list(running.items()):
                    if now > due:
                        running[index] = (number, id, data, now + repeat_s)
                        self._send(index, number, data)
        return count

    # --- inside ---

    def _handshakes(self, numbers: Iterable[int]) -> None:
        """These devices make a full handshake, all at the same time."""
        running: dict[int, tuple[int, ClientHandshake]] = {}
        for number in numbers:
            index = number % len(self._sockets)
            running[index] = (number, ClientHandshake(self._credentials, time.monotonic()))
            self._flush(index, running[index][1])
        heard = time.monotonic()
        while running:
            ready = self._poller.poll(0.02)
            for descriptor, _ in ready:
                index = self._index[descriptor]
                for datagram in self._datagrams(index):
                    if index not in running:
                        continue
                    number, handshake = running[index]
                    handshake.receive(datagram, time.monotonic())
                    self._flush(index, handshake)
                    for event in handshake.events():
                        if isinstance(event, Established):
                            self.sessions[number] = event.session
                            running.pop(index, None)
                            heard = time.monotonic()
                        elif isinstance(event, Failed):
                            raise NoAnswer(f"the handshake of device {number} failed: {event.why}")
            if not ready:
                for index, (_, handshake) in running.items():
                    handshake.tick(time.monotonic())
                    self._flush(index, handshake)
            if running and time.monotonic() - heard > SILENCE_S:
                lacking = sorted(number for number, _ in running.values())
                raise NoAnswer(f"{len(lacking)} devices got no end of their handshake: {_few(lacking)}")

    def _messages(self, running: Mapping[int, tuple[int, int, bytes, float]]) -> Iterator[tuple[int, int, int, int]]:
        """What came: socket, device, type and id of each message. Confirmable ones are acknowledged.

        Args:
            running: Whose turn it is on which socket, where that is not the device of its number.
        """
        for descriptor, _ in self._poller.poll(0.02):
            index = self._index[descriptor]
            for datagram in self._datagrams(index):
                number = running[index][0] if index in running else index
                session = self.sessions.get(number)
                received = None if session is None else session.unprotect(datagram)
                if received is None:
                    continue
                kind, id = received.data[0] >> 4 & 3, int.from_bytes(received.data[2:4], "big")
                if kind == CON:
                    self.came[number] += received.data[1] == POST
                    self._send(index, number, ack(id))
                yield index, number, kind, id

    def _send(self, index: int, number: int, message: bytes) -> None:
        # The server may be away for a moment, or the socket's buffer full: as if it were lost.
        with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
            self._sockets[index].send(self.sessions[number].protect(APPLICATION_DATA, message))

    def _flush(self, index: int, handshake: ClientHandshake) -> None:
        for datagram in handshake.datagrams(time.monotonic()):
            with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
                self._sockets[index].send(datagram)

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


def _event(data: bytes, id: int) -> bytes:
    return write_message(write_publish(Publish("bench/temperature", data, None, 60, confirmable=True, message_id=id)))


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
