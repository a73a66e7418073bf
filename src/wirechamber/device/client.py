"""The device for programs: `Core`, a socket and a timer."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast, get_type_hints

from wirechamber.device.about import PLATFORM, About, identity
from wirechamber.device.attempts import Attempts
from wirechamber.device.core import Core, Phase
from wirechamber.device.data import check_name, from_payload, to_payload, wants
from wirechamber.device.errors import DeviceError, NotAcknowledged, NotAllowed, NotConnected
from wirechamber.device.events import (
    Connected,
    Disconnected,
    EventCame,
    FunctionCalled,
    Left,
    Published,
    Signalled,
    Subscribed,
    TimeTold,
    VariableWanted,
)
from wirechamber.device.keepalive import bounds_of, check_lifetime
from wirechamber.device.keys import PrivateKey, PublicKey, key_file, read_key, read_psk, read_server_key
from wirechamber.device.session_file import SessionFile, StoredSession, Wanted
from wirechamber.device.wire import Traffic, Wire
from wirechamber.hosts import check_host
from wirechamber.protocols.coap.exchange import Busy
from wirechamber.protocols.deviceos.describe import Application
from wirechamber.protocols.deviceos.messages import DEFAULT_TTL

_log = logging.getLogger("wirechamber.device")

PORT = 5684
MAX_PORT = 65_535
# As long as a message is repeated (device-protocol.md, section 6), and a little more.
TIMEOUT_S = 95.0
GOODBYE_S = 5.0
MAX_TTL = 16_777_215
MAX_NAME = 64

EventHandler = Callable[[str, Any], Any]
FunctionHandler = Callable[[str], Any]

_TYPES: dict[type, str] = {bool: "bool", int: "int32", float: "double", str: "string"}
_INT32 = range(-(1 << 31), 1 << 31)


class Device:
    """A device that is connected to its cloud while it is open: `async with Device(…) as device`.

    Args:
        id: 24 hex digits.
        key: The device's private key: a file that is made on first use, the key's bytes, or the key.
        psk: Or a key that the cloud has, too: bytes, or a file with hex digits. Such a device publishes and subscribes;
            it has no functions and variables.
        server_key: The cloud's public key, as `wirechamber server key` writes it; a file or bytes.
        host, port: Where the cloud is; by default as `server_key` says, if it does.
        session_file: Where the session is kept from one run to the next, so that only the first pays for a handshake.
            It holds keys: mode 0600. One process uses it at a time.
        product, version, platform: What the cloud is told.
        keepalive: How the way through a NAT is kept open for what the cloud sends: None learns how long the NAT
            remembers, between 25 seconds and 23 minutes, or between two given bounds. A number of seconds: after so
            much silence a ping is sent; 0: never. A device without subscriptions, functions, variables and a signal
            handler learns nothing and does not ping; what waits for it, if anything does, comes with its next word.
        lifetime: The device says something at least every so many seconds, and the cloud shows by when it is expected;
            None: a day, for a device that does not ping.
        ping_first: A resumed session is tried by a ping before anything else. Without, the first publish tries it: one
            exchange less for a device that wakes, publishes and sleeps.
        goodbye: Tells the cloud when the device closes, so that it is shown offline at once: one exchange more.
        connect_timeout: Seconds that opening may take; 0: opening does not wait.

    Attributes:
        traffic: What went over the wire so far.
        clock_offset: Seconds by which the cloud's clock is ahead of this machine's, give or take half of one; None
            until it was told.
        resumed: The connection goes on with what the cloud knew already; None while there is no connection.
        handshakes: How many were made since the device was opened.
    """

    def __init__(
        self,
        id: str,
        *,
        key: Path | str | bytes | PrivateKey | None = None,
        psk: Path | str | bytes | None = None,
        server_key: Path | str | bytes | PublicKey | None = None,
        host: str | None = None,
        port: int | None = None,
        session_file: Path | str | None = None,
        platform: int = PLATFORM,
        product: int | None = None,
        version: int | None = None,
        keepalive: float | tuple[float, float] | None = None,
        lifetime: float | None = None,
        ping_first: bool = True,
        goodbye: bool = False,
        connect_timeout: float = TIMEOUT_S,
    ) -> None:
        public, told_host, told_port = _server(server_key)
        self._host = host or told_host
        self._port = port if port is not None else told_port or PORT
        if not self._host:
            raise DeviceError("host is needed: the cloud's key does not say where it is")
        try:
            self._host = check_host(self._host)
        except ValueError as problem:
            raise DeviceError(str(problem)) from None
        if not 0 < self._port <= MAX_PORT:
            raise DeviceError(f"a port is a number from 1 to {MAX_PORT}, not {self._port}")
        self._attempts = Attempts(self._host, self._port)
        self.identity = identity(id, _private(key), public, None if psk is None else read_psk(psk))
        self.traffic = Traffic()
        self.clock_offset: float | None = None
        self.resumed: bool | None = None
        self.handshakes = 0
        self._about = About(platform, product, version)
        self._manner = bounds_of(keepalive)
        self._lifetime = check_lifetime(lifetime)
        self._ping_first = ping_first
        self._goodbye = goodbye
        self._connect_timeout = connect_timeout
        self._session_path = None if session_file is None else Path(session_file)
        self._session_file: SessionFile | None = None
        self._core: Core | None = None
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None
        self._online = asyncio.Event()
        self._down = asyncio.Event()
        self._left = asyncio.Event()
        self._wait = 0.0
        self._failure: DeviceError | None = None
        self._broken: DeviceError | None = None
        self._waiting: set[asyncio.Future[Any]] = set()
        self._handlers: list[tuple[Wanted, EventHandler]] = []
        self._functions: dict[str, FunctionHandler] = {}
        self._variables: dict[str, tuple[str, Callable[[], Any]]] = {}
        self._signal: Callable[[bool], Any] | None = None
        self._subscribing: dict[Wanted, list[asyncio.Future[None]]] = {}
        self._asking: list[asyncio.Future[int]] = []
        self._settling: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # --- open and close ---

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connects.

        Raises:
            NotConnected: The cloud was not reached in time. The device is closed again.
            NotAllowed: The cloud refuses it, or has another key.
            SessionInUse: Another process uses the session file.
        """
        stored = None
        self.handshakes = 0
        self._failure = self._broken = None
        if self._session_path is not None:
            self._session_file = SessionFile(self._session_path)
            stored = self._session_file.load(self.identity.fingerprint)
        loop = asyncio.get_running_loop()
        self._core = Core(
            self.identity, self._about, self._keep, dice=random.random, stored=stored, manner=self._manner,
            lifetime=self._lifetime, ping_first=self._ping_first, started=loop.time(),
        )  # fmt: skip
        for wanted, _ in self._handlers:
            self._core.subscribe(wanted, loop.time())
        if self._functions or self._variables:
            self._core.offer(self._application(), loop.time())
        if self._signal is not None:
            self._core.listen(loop.time())
        self._task = loop.create_task(self._run(), name=f"device {self.identity.id}")
        if self._connect_timeout:
            try:
                await self._connected(self._connect_timeout)
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """Ends the connection; the session stays in its file."""
        core = self._core
        if core is None:
            return
        if self._goodbye and core.phase is Phase.ONLINE:
            try:
                self._do(core.leave)
                async with asyncio.timeout(GOODBYE_S):
                    await self._left.wait()
            except (TimeoutError, DeviceError):
                _log.debug("goodbye was not acknowledged", extra={"device": self.identity.id})
        tasks = [*self._tasks, *([] if self._task is None else [self._task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hang_up()
        self._fail(NotConnected("the device was closed"))
        self._online.clear()
        self._core = None
        try:
            core.close()
        finally:
            if self._session_file is not None:
                self._session_file.close()
                self._session_file = None

    async def run(self) -> None:
        """Stays connected, for a program that does nothing but answer. Ends by being cancelled.

        Raises:
            DeviceError: It can't go on, such as when the session can't be kept any more.
        """
        assert self._task is not None, "the device is not open"
        await asyncio.shield(self._task)

    async def settle(self) -> None:
        """Returns when the cloud was told everything and has answered all: nothing is lost by closing now.

        Raises:
            NotConnected: The device was closed meanwhile.
        """
        core = self._core
        if core is not None and not core.settled:
            self._settling.append(waiting := self._future())
            await waiting

    @property
    def connected(self) -> bool:
        """Whether the cloud has answered, and there is no sign that it is gone."""
        return self._online.is_set()

    # --- what a device does ---

    async def publish(
        self, name: str, data: Any = None, *, ttl: int = DEFAULT_TTL, confirm: bool = True, timeout: float = TIMEOUT_S
    ) -> None:
        """Publishes an event; returns when the cloud has stored it.

        Args:
            name: 1 to 64 printable ASCII characters.
            data: Text, bytes, or anything that JSON can say; at most 1,024 bytes.
            ttl: For how long the event is of use to devices that subscribed to it, seconds.
            confirm: False: it is sent once, and nobody knows what becomes of it.
            timeout: Seconds to wait for a connection and for the answer.

        Raises:
            NotConnected: There is no connection; it was not sent.
            NotAcknowledged: It was sent, and nothing came back: it may be stored or not.
            Refused: The cloud says no: `code` 4.29 and `seconds` when the device publishes too fast.
            ValueError: The name or the data can't be published.
        """
        check_name(name)
        if not 0 <= ttl <= MAX_TTL:
            raise ValueError(f"a time to live has 0 to {MAX_TTL} seconds")
        payload, content_format = to_payload(data)
        core = await self._connected(timeout)
        answer = self._future() if confirm else None
        try:
            self._do(lambda now: core.publish(answer, name, payload, content_format, ttl, confirm, now))
        except Busy:
            raise NotConnected("too many messages are under way; it was not sent") from None
        if answer is not None:
            await self._answered(answer, timeout)

    async def subscribe(
        self, prefix: str, handler: EventHandler, *, binary: bool = False, structured: bool = False
    ) -> None:
        """Calls `handler(name, data)` for each event of the owner's whose name begins with `prefix`.

        The cloud keeps events for a device that is away for as long as their time to live lasts. Called before the
        device is open, it only notes the wish.

        Args:
            handler: A function or a coroutine function; data is text.
            binary: It gets data that is not text, too, as bytes.
            structured: It gets data as Python's values: what JSON says, other text as text.

        Raises:
            NotAcknowledged, Refused: The cloud did not take it; it is tried again with the next connection.
        """
        wanted = Wanted(check_name(prefix), binary, structured)
        self._handlers.append((wanted, handler))
        core = self._core
        if core is None:
            return
        done = self._future()
        self._subscribing.setdefault(wanted, []).append(done)
        self._do(lambda now: core.subscribe(wanted, now))
        await self._answered(done, TIMEOUT_S)

    def function(self, name: str, handler: FunctionHandler) -> None:
        """Lets the cloud call `handler(argument)`, a function or a coroutine function that returns an int of 32 bits.

        Raises:
            ValueError: The name is none.
        """
        self._functions[_name(name)] = handler
        self._offer()

    def variable(self, name: str, getter: Any, *, type: type | None = None) -> None:
        """Lets the cloud read a value.

        Args:
            getter: A function, a coroutine function, or just a value.
            type: bool, int (32 bits), float or str. By default as the getter is annotated, or as its value is now.

        Raises:
            ValueError: The name or the type is none.
        """
        made = getter if callable(getter) else lambda: getter
        kind = type or _type_of(getter)
        if kind not in _TYPES:
            raise ValueError("a variable is a bool, an int, a float or a str; say which by type=")
        self._variables[_name(name)] = (_TYPES[kind], made)
        self._offer()

    def on_signal(self, handler: Callable[[bool], Any]) -> None:
        """Calls `handler(on)` when somebody wants the device to show itself."""
        self._signal = handler
        if self._core is not None:
            self._do(self._core.listen)

    async def time(self, timeout: float = TIMEOUT_S) -> int:
        """Asks the cloud for the time, seconds since 1970; for a machine without a clock of its own.

        Raises:
            NotConnected, NotAcknowledged: It did not tell.
        """
        core = await self._connected(timeout)
        answer = self._future()
        self._asking.append(answer)
        self._do(core.ask_time)
        return int(await self._answered(answer, timeout))

    # --- the connection ---

    async def _run(self) -> None:
        core = self._core
        assert core is not None
        try:
            while True:
                try:
                    wire = await self._dial()
                except OSError as problem:
                    self._attempts.no_way(problem)
                    await asyncio.sleep(1.0 + random.random())  # noqa: S311
                    continue
                self._attempts.begins(wire)
                self._down.clear()
                where = wire.where
                self._do(lambda now: core.connect(now, where))  # noqa: B023
                await self._down.wait()
                self._hang_up()
                if self._broken is not None:
                    raise self._broken
                await asyncio.sleep(self._wait)
        except DeviceError as problem:
            self._fail(problem)
            self._failure = problem
            self._online.set()
            raise

    async def _dial(self) -> Wire:
        loop = asyncio.get_running_loop()
        host = cast(str, self._host)
        _, wire = await loop.create_datagram_endpoint(
            lambda: Wire(self._receive, self.traffic), remote_addr=(host, self._port)
        )
        self._wire = wire
        return wire

    def _hang_up(self) -> None:
        self._attempts.ends()
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def _connected(self, timeout: float) -> Core:
        if not self._online.is_set():
            try:
                async with asyncio.timeout(timeout):
                    await self._online.wait()
            except TimeoutError:
                raise NotConnected(f"{self._attempts.there} does not answer: {self._attempts.hint}") from None
        if self._failure is not None:
            raise self._failure
        if self._core is None:
            raise NotConnected("the device is not open")
        return self._core

    def _receive(self, datagram: bytes) -> None:
        core = self._core
        if core is not None:
            self._guarded(lambda now: core.receive(datagram, now))

    def _do(self, work: Callable[[float], None]) -> None:
        """Lets the core work and does what it wants: once something has happened, and when its time comes."""
        core = self._core
        if core is None:
            return
        loop = asyncio.get_running_loop()
        work(loop.time())
        wire = self._wire
        for datagram in core.datagrams():
            if wire is not None:
                wire.send(datagram)
        for event in core.events():
            self._happened(core, event)
        if self._settling and core.settled:
            for waiting in self._settling:
                _settle(waiting, None)
            self._settling.clear()
        due = core.deadline()
        if due != self._due or self._timer is None:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = None if due is None else loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._core is not None:
            self._guarded(self._core.tick)

    def _guarded(self, work: Callable[[float], None]) -> None:
        """As `_do`, called by the loop: what goes wrong is told by the device's task."""
        try:
            self._do(work)
        except DeviceError as problem:
            self._broken = problem
            self._down.set()

    def _keep(self, stored: StoredSession | None) -> None:
        if self._session_file is not None:
            self._session_file.save(stored)

    # --- what happens ---

    def _happened(self, core: Core, event: Any) -> None:
        match event:
            case Connected(resumed):
                self.resumed = resumed
                self.handshakes = core.handshakes
                self._failure = None
                self._attempts.answered()
                self._online.set()
            case Disconnected():
                self._disconnected(event)
            case Published(answer, problem):
                _settle(answer, problem)
            case Subscribed(wanted, problem):
                for waiting in self._subscribing.pop(wanted, ()):
                    _settle(waiting, problem)
            case TimeTold(seconds):
                self._time_told(seconds)
            case EventCame(name, payload, content_format):
                self._deliver(name, payload, content_format)
            case FunctionCalled(name, argument, token):
                self._start(self._call(core, name, argument, token))
            case VariableWanted(name, token):
                self._start(self._read(core, name, token))
            case Signalled(on):
                if self._signal is not None:
                    self._start(self._handle(self._signal, on))
            case Left():
                self._left.set()

    def _disconnected(self, event: Disconnected) -> None:
        self._attempts.failed(event.why, event.wait)
        self._online.clear()
        self.resumed = None
        self._wait = event.wait
        if event.refused:
            # Whoever waits is told; the device itself tries again, for an operator may register it meanwhile.
            self._failure = NotAllowed(f"the cloud and this device do not agree: {event.why}")
            self._online.set()
            self._online.clear()
        self._down.set()

    def _time_told(self, seconds: int | None) -> None:
        if seconds is not None:
            # It tells whole seconds: half of one has passed, in the mean.
            self.clock_offset = seconds + 0.5 - time.time()
        for answer in self._asking:
            if answer.done():
                continue
            if seconds is None:
                answer.set_exception(NotAcknowledged("the cloud did not tell the time"))
            else:
                answer.set_result(seconds)
        self._asking.clear()

    def _deliver(self, name: str, payload: bytes, content_format: int | None) -> None:
        data: Any = None
        for wanted, handler in self._handlers:
            if name.startswith(wanted.prefix) and wants(
                content_format, binary=wanted.binary, structured=wanted.structured
            ):
                data = from_payload(payload, content_format) if data is None else data
                self._start(self._handle(handler, name, data))

    async def _call(self, core: Core, name: str, argument: str, token: bytes) -> None:
        result = await self._handle(self._functions[name], argument)
        # As in Device OS, -1 says that something is wrong.
        number = int(result) if isinstance(result, int) and result in _INT32 else 0 if result is None else -1
        self._do(lambda now: core.answer_function(token, number, now))

    async def _read(self, core: Core, name: str, token: bytes) -> None:
        known = self._variables.get(name)
        value = None if known is None else await self._handle(known[1])
        if isinstance(value, BaseException):
            value = None
        try:
            self._do(lambda now: core.answer_variable(name, token, value, now))
        except (ValueError, TypeError, OverflowError):
            _log.exception("the variable %s has a value that is none of its type", name)
            self._do(lambda now: core.answer_variable(name, token, None, now))

    async def _handle(self, handler: Callable[..., Any], *arguments: Any) -> Any:
        try:
            result = handler(*arguments)
            return await result if inspect.isawaitable(result) else result
        except Exception as problem:
            _log.exception("a handler of the device failed")
            return problem

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _future(self) -> asyncio.Future[Any]:
        """For an answer that is waited for."""
        made: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(made)
        made.add_done_callback(self._waiting.discard)
        return made

    async def _answered(self, answer: asyncio.Future[Any], timeout: float) -> Any:
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise NotAcknowledged(f"the cloud did not answer within {timeout:g} s") from None

    def _fail(self, problem: DeviceError) -> None:
        """Nobody needs to wait any longer."""
        for answer in list(self._waiting):
            _settle(answer, problem)
        self._subscribing.clear()
        self._asking.clear()
        self._settling.clear()

    def _offer(self) -> None:
        core = self._core
        if core is not None:
            self._do(lambda now: core.offer(self._application(), now))

    def _application(self) -> Application:
        return Application(tuple(self._functions), {name: kind for name, (kind, _) in self._variables.items()})


def _settle(answer: asyncio.Future[None] | None, problem: DeviceError | None) -> None:
    if answer is None or answer.done():
        return
    if problem is None:
        answer.set_result(None)
    else:
        answer.set_exception(problem)


def _private(key: Path | str | bytes | PrivateKey | None) -> PrivateKey | None:
    if key is None or isinstance(key, PrivateKey):
        return key
    return read_key(key) if isinstance(key, bytes) else key_file(Path(key))


def _server(key: Path | str | bytes | PublicKey | None) -> tuple[PublicKey | None, str | None, int | None]:
    if key is None or isinstance(key, PublicKey):
        return key, None, None
    read = read_server_key(key)
    return read.key, read.host, read.port


def _name(name: str) -> str:
    if not 0 < len(name.encode()) <= MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} bytes")
    return name


def _type_of(getter: Any) -> Any:
    if not callable(getter):
        return type(getter)
    try:
        annotated = get_type_hints(getter).get("return")
    except (NameError, TypeError):
        annotated = None
    if annotated is None and not inspect.iscoroutinefunction(getter):
        return type(getter())
    return annotated
