"""What devices say, other than events, and what follows from it.

Every request here comes in only after it is accounted for (`accounting`), so none can be played again; and what a
device never repeats (Hello, Describe, Subscribe) is answered only once the store has it (device-protocol.md, section
11).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import structlog
from msgspec import structs

from wirechamber.clock import SteadyClock
from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor
from wirechamber.gateway import discovery
from wirechamber.gateway.blocks import Blocks
from wirechamber.gateway.descriptions import Descriptions
from wirechamber.gateway.door import Door
from wirechamber.gateway.intake import Arrival
from wirechamber.gateway.keeper import Keeper
from wirechamber.gateway.link import Link
from wirechamber.gateway.meter import Purpose
from wirechamber.gateway.outbox import Outboxes, Sent
from wirechamber.gateway.roster import Roster
from wirechamber.model.devices import Device
from wirechamber.model.generations import takes
from wirechamber.model.links import (
    Greeted,
    Greeting,
    HasHad,
    KeepAlive,
    KeepAliveTold,
    Subscribed,
    Subscription,
    Unsubscribed,
)
from wirechamber.observe.logs import Seldom
from wirechamber.observe.tasks import Tasks
from wirechamber.protocols.coap import blockwise
from wirechamber.protocols.coap.blockwise import More, Receiver, Whole
from wirechamber.protocols.coap.exchange import DEVICE_OS, OVER_TCP, RFC_7252, Endpoint, Request, Timing
from wirechamber.protocols.coap.message import Code, Option, Type, uint
from wirechamber.protocols.deviceos import keepalive
from wirechamber.protocols.deviceos.ledgers import no_ledgers
from wirechamber.protocols.deviceos.messages import (
    Describe,
    Discover,
    Flag,
    Goodbye,
    Hello,
    LedgerRequest,
    Malformed,
    Ping,
    Publish,
    Subscribe,
    TimeRequest,
    Unknown,
    read_request,
)
from wirechamber.protocols.deviceos.requests import server_hello, time_answer
from wirechamber.services.identity import Identity, Refused

_log = structlog.get_logger("wirechamber.gateway")
_seldom = Seldom(_log)

# Device OS has 6: 2 of the system's and 4 of the application's (device-protocol.md, section 12). Others may have more.
MAX_SUBSCRIPTIONS = 32
# Messages towards a device that may be without acknowledgement at a time: its events, and questions beside them.
NSTART = 16
# Greetings whose key is being looked up and stored.
MAX_GREETING = 10_000


class Conversation:
    """Answers devices.

    Args:
        publish: Takes an event that came by the slow way (TCP, or in several blocks).
        close: Called with a link that was refused.
        replaced: Called with a link and the newer one of its device.
        flush: Sends what a link's exchanges have to send.
        welcome: Called with a link of which it is known, and stored, whose it is.
        tell: Takes an event on its way to the log.

    Attributes:
        blocks: Bodies that are not complete yet.
        descriptions: What devices tell of themselves.
        refused: What was not taken, by reason.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        clock: SteadyClock,
        tasks: Tasks,
        keeper: Keeper,
        roster: Roster,
        outboxes: Outboxes,
        dice: Callable[[], float],
        publish: Callable[[Link, Publish, int, int, tuple[Any, ...]], None],
        close: Callable[[Link, str], None],
        replaced: Callable[[Link, Link], None],
        door: Door,
        flush: Callable[[Link, Purpose], None],
        welcome: Callable[[Link], None],
        tell: Callable[[Arrival], object],
    ) -> None:
        self._identity = identity
        self._clock = clock
        self._tasks = tasks
        self._keeper = keeper
        self._roster = roster
        self._outboxes = outboxes
        self._dice = dice
        self._publish = publish
        self._close = close
        self._replaced = replaced
        self._door = door
        self._flush = flush
        self._welcome = welcome
        self._greeting: dict[Link, asyncio.Task[None]] = {}
        # Those that may come in, as soon as that is stored.
        self._admitted: set[Link] = set()
        self.blocks = Blocks()
        self.refused: Counter[str] = Counter()
        self.descriptions = Descriptions(
            clock=clock,
            tasks=tasks,
            keeper=keeper,
            endpoint=self.endpoint,
            flush=flush,
            tell=tell,
            refused=self.refused,
        )

    # --- exchanges ---

    def endpoint(self, link: Link) -> Endpoint:
        """The link's exchanges, made when they are needed first."""
        endpoint = link.endpoint
        if endpoint is None:
            timing: Timing = OVER_TCP if link.reliable else DEVICE_OS if link.deviceos else RFC_7252
            endpoint = link.endpoint = Endpoint(timing, self._dice, NSTART, forgiving=link.deviceos)
        return endpoint

    def requested(self, link: Link, request: Request, sequence: int, size: int, address: tuple[Any, ...]) -> Purpose:
        """A device asks or tells something, for the first time. Returns what it was for."""
        message = request.message
        told = read_request(message)
        if link.device is None:
            if isinstance(told, Hello) and link.deviceos:
                self._hello(link, request, told)
            else:
                # Nothing is known of it yet; it repeats what was not answered.
                self.refused["before_hello"] += 1
                self.endpoint(link).forget(message.id)
            return Purpose.HANDSHAKE
        match told:
            case Ping():
                if link.deviceos:
                    self._reply(link, request)
                else:
                    self.endpoint(link).reject(request, self._now)
                return Purpose.KEEPALIVE
            case Publish():
                if told.block1 is not None:
                    data = self._whole(link, request, (told.name, told.private), told.block1, told.payload)
                    if data is None:
                        return Purpose.OTHER
                    told = structs.replace(told, payload=data, block1=None)
                # Whether it was seen before, and its answer, is a matter of where events are taken.
                self.endpoint(link).forget(message.id)
                self._publish(link, told, sequence, size, address)
                return Purpose.PUBLISH
            case Hello() if link.deviceos:
                self._hello(link, request, told)
            case Describe():
                self._describe(link, request, told)
            case Subscribe():
                self._subscribe(link, request, told)
            case TimeRequest():
                self._time(link, request)
            case Goodbye():
                self._reply(link, request)
                self._flush(link, Purpose.OTHER)
                _log.info("device_left", device=link.device.id, why=told.reasons)
                self._roster.went(link)
            case keepalive.KeepAlive() if not link.reliable:
                self._keep_alive(link, request, told)
            case Discover():
                self._reply(link, request, *discovery.answer(told))
            case LedgerRequest():
                self._reply(link, request, *no_ledgers(told))
            case Malformed(code=code):
                self.refused["malformed"] += 1
                self._reply(link, request, code)
            case Unknown() | Hello() | keepalive.KeepAlive():
                self.refused["unknown"] += 1
                self._reply(link, request, Code.NOT_FOUND)
        return Purpose.OTHER

    @property
    def _now(self) -> float:
        return self._clock.monotonic()

    def _reply(
        self,
        link: Link,
        request: Request,
        code: int = Code.EMPTY,
        payload: bytes = b"",
        options: tuple[tuple[int, bytes], ...] = (),
    ) -> None:
        self.endpoint(link).reply(request, code, payload, options, self._now, id=link.next_id())

    def _kept(self, link: Link, request: Request, code: int = Code.EMPTY) -> Callable[[bool], None]:
        """What answers a request once the store has (or has not) taken what it told."""

        def done(ok: bool) -> None:
            if link.closed:
                return
            # A device that is told of a failure repeats everything when it comes back (device-protocol.md, 7.4).
            self._reply(link, request, code if ok else Code.SERVICE_UNAVAILABLE)
            self._flush(link, Purpose.OTHER)

        return done

    # --- Hello ---

    def _hello(self, link: Link, request: Request, hello: Hello) -> None:
        device_id = hello.device if hello.device is not None else self._told_by_handshake(link)
        if device_id is None or (link.device is not None and link.device.id != device_id):
            self.refused["hello_of_another"] += 1
            _seldom.warning(
                "hello_of_another", why="a device said that it is another one", about=link.host, address=link.host
            )
            link.refuse()
            self._close(link, "its Hello names another device")
            return
        self.greet(link, device_id, hello, request)

    @staticmethod
    def _told_by_handshake(link: Link) -> str | None:
        return link.device.id if link.device is not None else link.claimed_id

    def greet(self, link: Link, device_id: str, hello: Hello | None, request: Request | None) -> None:
        """A device said who it is, by Hello or by the key of its handshake; whether it may come in is found out."""
        if link in self._greeting or link in self._admitted:
            if request is not None:
                # Another Hello before the first is answered: its device repeats it, if it is in earnest.
                self.endpoint(link).forget(request.message.id)
            return
        if len(self._greeting) >= MAX_GREETING:
            self.refused["greetings"] += 1
            if request is not None:
                self.endpoint(link).forget(request.message.id)
            return
        task = self._tasks.spawn(self._greet(link, device_id, hello, request), "device-greeting")
        self._greeting[link] = task
        task.add_done_callback(lambda _: self._greeting.pop(link, None))

    async def _greet(self, link: Link, device_id: str, hello: Hello | None, request: Request | None) -> None:
        try:
            device = await self._identity.admit(device_id, link.public_key)
            behind = await self._roster.left_at(device_id) if link.device is None else None
        except Refused as problem:
            self._door.turned_away(problem, device_id, link.host)
            link.refuse()
            self._close(link, problem.description)
            return
        except CloudError as problem:
            _seldom.warning("device_held", why=problem.description, device=device_id)
            if request is not None:
                self.endpoint(link).forget(request.message.id)
            return
        now = self._clock.now()
        greeting = None if hello is None else _greeting(hello)
        change = Greeted(
            device=device.id,
            at=now,
            address=link.host,
            greeting=greeting,
            session=link.record(device.id, now) if link.device is None else None,
            handshake=link.device is None,
        )
        device = device.greeted(greeting)
        self._admitted.add(link)
        self._keeper.keep(change, lambda ok: self._greeted(link, device, hello, request, ok, behind))

    def _greeted(
        self,
        link: Link,
        device: Device,
        hello: Hello | None,
        request: Request | None,
        ok: bool,
        behind: Cursor | None,
    ) -> None:
        self._admitted.discard(link)
        if link.closed:
            return
        if not ok:
            if request is not None:
                self.endpoint(link).forget(request.message.id)
            return
        link.greeted(device)
        old = self._roster.put(device.id, link)
        if old is not None:
            self._outboxes.broke(old)
            self._replaced(old, link)
        link.behind = behind if old is None or old.behind is None else old.behind
        self._outboxes.leave(link, device.owner)
        link.subscriptions = ()
        link.keep_alive, link.asleep = None, False
        if hello is not None:
            self.recall(link, _greeting(hello))
            if link.describing is None:
                link.describing = asyncio.get_running_loop().create_future()
        self._roster.came(link)
        if request is not None:
            self._reply(link, request)
            if link.reliable:
                self.endpoint(link).send(server_hello(link.next_id()), None, self._now)
        self._flush(link, Purpose.HANDSHAKE)
        if hello is not None and not hello.flags & Flag.DESCRIBES_ITSELF:
            self.descriptions.ask(link)
        self._welcome(link)

    @staticmethod
    def recall(link: Link, greeting: Greeting) -> None:
        """Minds what a device told in its Hello, now or long ago."""
        link.takes = takes(greeting)

    # --- descriptions ---

    def _describe(self, link: Link, request: Request, describe: Describe) -> None:
        assert link.device is not None
        payload: bytes | None = describe.payload
        if describe.block1 is not None:
            payload = self._whole(link, request, describe.kind, describe.block1, describe.payload)
        if payload is None:
            return
        change = self.descriptions.read(link.device, describe.kind, payload)
        if change is None:
            self.refused["description"] += 1
            self._reply(link, request, Code.BAD_REQUEST)
            return
        self.descriptions.keep(link, change, self._kept(link, request))

    def _whole(self, link: Link, request: Request, key: Hashable, block1: bytes, payload: bytes) -> bytes | None:
        """The body that a block completes; None while it does not: then the block is answered."""
        parts = link.parts
        if parts is None:
            parts = link.parts = Receiver()
        taken = parts.take(key, block1, payload, self._now)
        if not parts:
            link.parts = None
        device = link.device
        self.blocks.holds(link, link.id if device is None else device.owner or device.id, parts.held)
        match taken:
            case Whole(body):
                return body
            case More(option):
                # Device OS sends the next block after any acknowledgement (device-protocol.md, section 7.2).
                if link.deviceos:
                    self._reply(link, request)
                else:
                    self._reply(link, request, Code.CONTINUE, b"", (option,))
            case blockwise.Refused(_, code):
                self.refused["blocks"] += 1
                self._reply(link, request, code)
        return None

    # --- subscriptions ---

    def _subscribe(self, link: Link, request: Request, subscribe: Subscribe) -> None:
        device = link.device
        assert device is not None
        wanted = Subscription(
            subscribe.prefix,
            # A device that speaks plain CoAP is told the format of what it gets.
            binary=subscribe.binary or not (link.deviceos or subscribe.cbor),
            cbor=subscribe.cbor,
            device=subscribe.device,
            token=b"" if link.deviceos else request.message.token,
        )
        observe = request.message.uint(Option.OBSERVE)
        if not link.deviceos and observe != 0:
            self._unsubscribe(link, request, wanted, observe)
            return
        if len(_others(link, wanted)) >= MAX_SUBSCRIPTIONS:
            self.refused["subscriptions"] += 1
            self._reply(link, request, Code.FORBIDDEN)
            return

        def done(ok: bool) -> None:
            if ok and not link.closed and link.device is not None:
                self._outboxes.leave(link, link.device.owner)
                link.subscriptions = (*_others(link, wanted), wanted)
                self._outboxes.join(link, link.device.owner, link.subscriptions)
                self._outboxes.settle(link)
            if link.deviceos:
                self._kept(link, request)(ok)
            elif not link.closed:
                options = ((Option.OBSERVE, uint(0)),) if ok else ()
                code = Code.CONTENT if ok else Code.SERVICE_UNAVAILABLE
                self._reply(link, request, code, b"", options)
                self._flush(link, Purpose.OTHER)

        begins = self._outboxes.begins(link)
        if begins is not None:
            self._keeper.keep(HasHad(device.id, begins))
        if not link.deviceos:
            self._keeper.keep(Unsubscribed(device.id, wanted.prefix, wanted.device))
        self._keeper.keep(Subscribed(device.id, wanted), done)

    def _unsubscribe(self, link: Link, request: Request, wanted: Subscription, observe: int | None) -> None:
        """A device that speaks plain CoAP wants no more (RFC 7641, section 3.6), or asked without observing."""
        assert link.device is not None
        if observe is None:
            # There is no state to be shown, only events to come.
            self._reply(link, request, Code.BAD_REQUEST, b"add Observe: 0 to get events as they come")
            return
        self.forget_subscription(link, wanted)
        self._keeper.keep(Unsubscribed(link.device.id, wanted.prefix), self._kept(link, request, Code.CONTENT))

    def unwanted(self, link: Link, sent: Sent) -> bool:
        """An observer rejected what it was sent: it wants no more of it (RFC 7641, section 3.6).

        Returns:
            Whether that is so of all. One that has asked again meanwhile, with another token, rejects the old one.
        """
        if link.device is None:
            return True
        ended = [wanted for wanted in sent.wanted if wanted in link.subscriptions]
        for wanted in ended:
            self.forget_subscription(link, wanted)
            self._keeper.keep(Unsubscribed(link.device.id, wanted.prefix))
        asked_again = {_about(link, each) for each in link.subscriptions}
        return not any(_about(link, wanted) in asked_again for wanted in sent.wanted)

    def forget_subscription(self, link: Link, wanted: Subscription) -> None:
        """The device gets nothing more under this prefix."""
        assert link.device is not None
        self._outboxes.leave(link, link.device.owner)
        link.subscriptions = tuple(each for each in link.subscriptions if each.prefix != wanted.prefix)
        self._outboxes.join(link, link.device.owner, link.subscriptions)

    # --- the rest ---

    def _keep_alive(self, link: Link, request: Request, told: keepalive.KeepAlive) -> None:
        assert link.device is not None
        keep_alive = KeepAlive(told.lifetime, told.queue, told.ping)

        def done(ok: bool) -> None:
            if ok and not link.closed:
                self._roster.kept_alive(link, keep_alive)
            self._kept(link, request, Code.CHANGED)(ok)

        self._keeper.keep(KeepAliveTold(link.device.id, keep_alive), done)

    def _time(self, link: Link, request: Request) -> None:
        seconds = self._clock.now() // 1000
        if request.message.type is Type.CON:
            self._reply(link, request, Code.CONTENT, time_answer(request.message, seconds).payload)
        else:
            self._reply(link, request, Code.CONTENT, (seconds & 0xFFFFFFFF).to_bytes(4, "big"))
        self._flush(link, Purpose.OTHER)


def _others(link: Link, wanted: Subscription) -> tuple[Subscription, ...]:
    """What the device wants beside this, which replaces what it wanted of the same.

    Device OS has handlers of one prefix for text, binary and structured data; an observer's later word replaces the
    earlier one (RFC 7641, section 3.1).
    """
    return tuple(each for each in link.subscriptions if _about(link, each) != _about(link, wanted))


def _about(link: Link, subscription: Subscription) -> tuple[object, ...]:
    about = subscription.prefix, subscription.device
    return (*about, subscription.binary, subscription.cbor) if link.deviceos else about


def _greeting(hello: Hello) -> Greeting:
    return Greeting(
        platform=hello.platform,
        product=hello.product,
        product_version=hello.product_version,
        flags=int(hello.flags),
        system_version=hello.system_version,
        max_message=hello.max_message,
        max_binary=hello.max_binary,
        ota_chunk=hello.chunk_size,
    )
