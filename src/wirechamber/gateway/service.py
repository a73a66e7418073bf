"""The gateway: everything between the sockets that devices speak to and the log, the store and the switchboard."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from wirechamber.clock import SteadyClock
from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor, EventLog
from wirechamber.gateway import conversation as talk
from wirechamber.gateway import descriptions
from wirechamber.gateway.accounting import Accounting
from wirechamber.gateway.admission import Admission
from wirechamber.gateway.books import Books
from wirechamber.gateway.datagrams import Way
from wirechamber.gateway.door import Door
from wirechamber.gateway.dormant import Dormant
from wirechamber.gateway.faults import Faults
from wirechamber.gateway.intake import Intake
from wirechamber.gateway.keepalive import KeepAlives, Pinged
from wirechamber.gateway.keeper import Keeper
from wirechamber.gateway.link import Link
from wirechamber.gateway.meter import Meter, Purpose
from wirechamber.gateway.notices import Notices
from wirechamber.gateway.outbox import Outboxes, Sent
from wirechamber.gateway.publications import Publications
from wirechamber.gateway.questions import Asked, Questions
from wirechamber.gateway.roster import Roster
from wirechamber.gateway.slices import slices
from wirechamber.gateway.tcp import Tcp
from wirechamber.gateway.timers import Timers
from wirechamber.gateway.udp import Udp
from wirechamber.gateway.udplink import UdpLink
from wirechamber.gateway.undelivered import Unsent
from wirechamber.observe.logs import Seldom
from wirechamber.observe.tasks import Tasks
from wirechamber.protocols.coap.exchange import Acknowledged, Answered, Expired, Rejected, Request
from wirechamber.protocols.coap.message import Malformed
from wirechamber.protocols.deviceos.messages import read_publish
from wirechamber.protocols.deviceos.system_events import CLAIMED
from wirechamber.protocols.dtls import Listener
from wirechamber.services.identity import Identity
from wirechamber.settings import Settings
from wirechamber.shares import Shares, neighbours_of, network_of
from wirechamber.store.base import Store

_log = structlog.get_logger("wirechamber.gateway")
_seldom = Seldom(_log)

# How often handshakes are looked at; their timers are seconds long.
HANDSHAKES_EVERY_S = 0.25
# How often it is looked at whether devices are still there.
LOOK_EVERY_S = 1.0
# How often it is written down what devices have had: what they acknowledged in the last second, they may get again
# after a crash.
NOTE_EVERY_S = 0.5
# What is under way gets so long to reach the disk when the process is told to stop.
STOP_S = 2.0
# A device says Hello in the first moment; one that does not, is none.
HELLO_S = 90.0
MAX_UNNAMED = 4096
# Messages that wait until it is stored whose link they came by, or where it leads now, by number and bytes: that takes
# some milliseconds.
MAX_HELD = 8
MAX_HELD_BYTES = 8192
# Devices that are named as having been seen at an address.
DEVICES_TOLD = 4
# Codes of responses begin here (RFC 7252, section 3).
FIRST_RESPONSE = b"\x40"

# A message as it came: its bytes, number, size on the wire, and the way.
Early = tuple[bytes, int, int, Way]


class Gateway:
    """Holds the links of all devices that speak to this process.

    Attributes:
        udp: The sessions over UDP.
        tcp: The connections over TCP; None where there is no key for them.
        roster: Links by device.
    """

    def __init__(
        self,
        *,
        store: Store,
        log: EventLog,
        identity: Identity,
        server_key: ec.EllipticCurvePrivateKey,
        clock: SteadyClock,
        settings: Settings,
        ready: Callable[[], Any],
        tcp_key: rsa.RSAPrivateKey | None = None,
        tasks: Tasks,
    ) -> None:
        self._store = store
        self._log = log
        self._identity = identity
        self._clock = clock
        self.faults = Faults()
        self.meter = Meter()
        self.door = Door(clock, self._devices_at)
        self.admission = Admission(identity, self.door, self._start)
        # During handshakes, for `udp` and `tcp`.
        self.find_psk = self.admission.find_psk
        self.other_psk = self.admission.other_psk
        self.admit = self.admission.admit
        self.keeper = Keeper(store.links, clock, self.faults)
        self.intake = Intake(log, clock, self.faults, ready, self._refresh)
        self.notices = Notices(clock, self._endpoint)
        self.outboxes = Outboxes(log, clock, tasks, self.faults, self._notify)
        self.accounting = Accounting(store.sessions, clock, self.faults, self._settled)
        self.roster = Roster(
            store, clock, self.keeper, self.outboxes, tell=self.intake.add, discard=self._discard, faults=self.faults
        )
        self.publications = Publications(
            intake=self.intake,
            meter=self.meter,
            clock=clock,
            rate=settings.publish_rate,
            burst=settings.publish_burst,
            max_bytes=settings.max_event_bytes,
            claim=self._claim,
            tell=self._tell,
            heard=self._heard,
        )
        self.conversation = talk.Conversation(
            identity=identity,
            clock=clock,
            tasks=tasks,
            keeper=self.keeper,
            roster=self.roster,
            outboxes=self.outboxes,
            dice=random.random,
            publish=self.publications.take,
            close=self.close,
            replaced=self._replaced,
            door=self.door,
            flush=self.flush,
            welcome=self._welcome,
            tell=self.intake.add,
        )
        self.questions = Questions(
            self.roster,
            clock,
            ready=self._ready,
            flush=lambda link: self.flush(link, Purpose.OTHER),
            discard=self._discard,
            silent=self._silent,
            measure=self.conversation.descriptions.measure,
        )
        self.udp = Udp(
            Listener(server_key, self._new_cid, psk=True),
            self,
            self.accounting,
            self.meter,
            clock,
            self.faults,
            self.door,
        )
        self.tcp = None if tcp_key is None else Tcp(tcp_key, self, self.meter, clock, self.faults)
        self.timers = Timers(clock, self.faults, self._due)
        self.dormant = Dormant(
            store=store,
            log=log,
            clock=clock,
            udp=self.udp,
            accounting=self.accounting,
            roster=self.roster,
            outboxes=self.outboxes,
            conversation=self.conversation,
            faults=self.faults,
            close=self.close,
            drop=self._drop,
        )
        self.keep_alives = KeepAlives(
            clock,
            self.roster,
            endpoint=self.conversation.endpoint,
            flush=lambda link: self.flush(link, Purpose.KEEPALIVE),
            wake=self._open,
            forget=self._forget,
        )
        self.books = Books(store, clock, self.meter, self.roster, self.publications)
        self.write_down = self.books.write
        # Links whose handshake is done and which have not said yet who they are.
        self._unnamed: dict[Link, float] = {}
        self._unnamed_places: Shares[Link] = Shares(MAX_UNNAMED)
        # What came meanwhile from those of them whose handshake told who they are, and from those who are just back.
        self._held: dict[Link, list[Early]] = {}
        self._tasks = tasks
        self._working: set[asyncio.Task[Any]] = set()
        self.refused: Counter[str] = Counter()

    def _new_cid(self) -> bytes:
        return self.udp.new_cid()

    # --- what arrives ---

    def received(self, link: Link, data: bytes, sequence: int, size: int, address: Way) -> None:
        """A device sent a message.

        Args:
            sequence: Its record's number: higher for what was sent later.
            size: Bytes on the wire.
        """
        device = link.device
        if device is None:
            if link.psk_identity is not None:
                # It need not say Hello.
                self._hold(link, (data, sequence, size, address))
                # Not the first time, if the store was away.
                self._greet_by_psk(link)
                return
        elif link.online:
            publish = read_publish(data)
            if publish is not None:
                self.publications.take(link, publish, sequence, size, address)
                return
        else:
            # Whoever is back may be elsewhere now. Until that can't be played again, nobody is told, and nothing sent.
            early = data, sequence, size, address
            if self._hold(link, early):
                link.after_accounting(lambda: self._returned(link, early))
            return
        link.after_accounting(lambda: self._accounted(link, data, sequence, size, address))

    def _hold(self, link: Link, early: Early) -> bool:
        """Keeps what a device says until it is known, and stored, whose link this is, or where it is now."""
        held = self._held.setdefault(link, [])
        fits = len(held) < MAX_HELD and sum(len(each[0]) for each in held) + len(early[0]) <= MAX_HELD_BYTES
        if fits:
            held.append(early)
        else:
            self.refused["held"] += 1
        return fits

    def _returned(self, link: Link, early: Early) -> None:
        """A device is back: this message of it, and those that came before, are accounted for."""
        self._heard(link, link.moved(early[1], early[3]))
        held = self._held.pop(link, [])
        accounted = held.index(early) + 1 if early in held else 0
        if not link.online:
            self._back(link)
        for data, sequence, size, address in held[:accounted]:
            publish = read_publish(data)
            if publish is not None:
                self.publications.take(link, publish, sequence, size, address)
            else:
                self._accounted(link, data, sequence, size, address)
        for each in held[accounted:]:
            self.received(link, *each)

    def _welcome(self, link: Link) -> None:
        self._named(link)
        self.questions.heard(link)
        for early in self._held.pop(link, ()):
            self.received(link, *early)

    async def _ready(self, link: Link) -> None:
        """Makes a link able to ask: one that only published since a restart has no exchanges yet."""
        await self.dormant.awake(link)
        if link.device is not None and not link.closed:
            self.conversation.endpoint(link)

    def _accounted(self, link: Link, data: bytes, sequence: int, size: int, address: Way) -> None:
        moved = link.moved(sequence, address)
        if link.device is None and data[1:2] >= FIRST_RESPONSE:
            # Nobody was asked anything yet, and strangers leave nothing behind in the exchanges.
            self.refused["before_hello"] += 1
            return
        endpoint = self.conversation.endpoint(link)
        purpose = Purpose.ANSWER
        try:
            arrival = endpoint.receive(data, self._clock.monotonic())
        except Malformed as problem:
            self.refused["coap"] += 1
            if link.reliable:
                # Frames have no MAC: nobody gets to try what else the change of a frame does.
                self.ended(link, "it sent a message without sense")
                return
            endpoint.refuse(problem)
            arrival, purpose = None, Purpose.OTHER
        match arrival:
            case Request():
                purpose = self.conversation.requested(link, arrival, sequence, size, address)
                if purpose is Purpose.PUBLISH:
                    # Counted where events are taken.
                    size = 0
            case Answered(tag, message):
                self._answered(link, tag, message)
            case Acknowledged(tag):
                self._acknowledged(link, tag)
            case Rejected(tag):
                self._rejected(link, tag)
            case _:
                purpose = Purpose.OTHER
        if link.device is None:
            if size:
                link.count_handshake(size, 1, 0, 0)
        elif size:
            self.meter.up(link.device.id, purpose, size)
        if endpoint.waits:
            endpoint.heard(self._clock.monotonic(), moved=moved)
        self.flush(link, purpose)

    def _heard(self, link: Link, moved: bool) -> None:
        endpoint = link.endpoint
        if endpoint is not None and endpoint.heard(self._clock.monotonic(), moved=moved):
            self.timers.watch(link, endpoint.deadline())

    def _answered(self, link: Link, tag: object, message: Any) -> None:
        if isinstance(tag, Asked):
            self.questions.answered(tag, message)
        elif isinstance(tag, descriptions.Asked):
            self.conversation.descriptions.answered(link, tag, message)

    def _acknowledged(self, link: Link, tag: object) -> None:
        if isinstance(tag, Sent):
            self.outboxes.acknowledged(link, tag)
        elif isinstance(tag, Asked):
            self.questions.acknowledged(tag)

    def _rejected(self, link: Link, tag: object) -> None:
        if isinstance(tag, Sent):
            if link.deviceos or self.conversation.unwanted(link, tag):
                self.outboxes.acknowledged(link, tag)
            else:
                self.outboxes.rejected(link, tag)
        elif isinstance(tag, Asked):
            self.questions.rejected(tag)
        elif isinstance(tag, descriptions.Asked):
            tag.ends(False)

    def _timed_out(self, link: Link, tag: object) -> None:
        if isinstance(tag, Asked):
            self.questions.unanswered(tag)
        elif isinstance(tag, Sent) and link.reliable:
            self.ended(link, "it acknowledges nothing")
        elif isinstance(tag, Sent | Pinged):
            # It acknowledges nothing, so it is not there; it gets the rest when it is back.
            if isinstance(tag, Sent):
                self.outboxes.unanswered(link, tag)
            if not self._sleeps(link):
                self._went(link)

    # --- what goes out ---

    def flush(self, link: Link, purpose: Purpose = Purpose.OTHER) -> None:
        """Sends what a link's exchanges have to send."""
        endpoint = link.endpoint
        if endpoint is None or link.closed:
            return
        for data in endpoint.outgoing():
            link.send(data, purpose)
        self.timers.watch(link, endpoint.deadline())

    def _due(self, link: Link, now: float) -> None:
        endpoint = link.endpoint
        if endpoint is not None:
            for over in endpoint.tick(now):
                if isinstance(over, Expired):
                    self.outboxes.expire(link, over.tag)
                else:
                    self._timed_out(link, over.tag)
            self.flush(link, Purpose.ANSWER)

    def _endpoint(self, link: Link) -> Any:
        return self.conversation.endpoint(link)

    def _notify(self, link: Link, event: Any, wanted: Any, sent: Sent) -> Unsent | None:
        unsent = self.notices.send(link, event, wanted, sent)
        if unsent is None or unsent.partly:
            self.flush(link, Purpose.ANSWER)
        return unsent

    def _tell(self, link: Link, name: str, data: bytes) -> None:
        self.notices.tell(link, name, data)
        self.flush(link, Purpose.ANSWER)

    # --- sessions: the handler of `udp` and `tcp` ---

    def established(self, link: Link) -> None:
        """A handshake is done."""
        # Anybody has a key with which to get this far: whoever has most of these gives way.
        out = self._unnamed_places.add(network_of(link.host), link, neighbours_of(link.host))
        if out is not None:
            self.refused["unnamed"] += 1
            _seldom.warning("links_unnamed", why="too many have not said who they are", network=network_of(out.host))
            self.close(out, "too many have not said who they are")
        self._unnamed[link] = self._clock.monotonic()
        if link.psk_identity is not None:
            self._greet_by_psk(link)

    def _greet_by_psk(self, link: Link) -> None:
        link.claimed_id = (link.psk_identity or b"").decode("ascii", "replace").lower()
        self.conversation.greet(link, link.claimed_id, None, None)

    def ended(self, link: Link, why: str) -> None:
        """The device ended its session."""
        self.outboxes.broke(link)
        if link.device is not None and not link.reliable:
            self.books.gone.append(link.id)
        self.close(link, why)

    def linked(self, device: str) -> Link | None:
        """The link that a device has, if it has one."""
        return self.roster.get(device)

    def wake(self, link: UdpLink) -> None:
        """Something came for a session that is in the store only."""
        self.dormant.wake(link)

    def awake(self, link: Link) -> None:
        """A device that slept has said something, and it is known from where."""
        self.roster.woke(link)
        self.questions.heard(link)

    def close(self, link: Link, why: str) -> None:
        """The link is no more; its device may have another one already."""
        if link.closed:
            return
        device = link.device
        _log.debug("link_closed", why=why, device=None if device is None else device.id)
        self._went(link)
        self.outboxes.leave(link, None if device is None else device.owner)
        if device is not None:
            self.roster.remove(device.id, link)
        self._named(link)
        self._held.pop(link, None)
        self.conversation.blocks.forget(link)
        link.close()

    def _replaced(self, old: Link, new: Link) -> None:
        """A device has begun a new session."""
        self.door.replaced(old, new)
        if isinstance(old, UdpLink):
            self.udp.watch(old, new)
        self.close(old, "its device has begun a new session")

    def _devices_at(self, host: str) -> list[str]:
        there = (link.device.id for link in self.roster if link.device is not None and link.host == host)
        return list(itertools.islice(there, DEVICES_TOLD))

    def _named(self, link: Link) -> None:
        if self._unnamed.pop(link, None) is not None:
            self._unnamed_places.discard(link)

    def _drop(self, link: UdpLink, why: str) -> None:
        """Ends a session that can't be opened; its device makes a new handshake by itself."""
        device = link.device
        self.refused["session_unreadable"] += 1
        _seldom.warning("session_dropped", why=why, device=None if device is None else device.id)
        self.books.gone.append(link.id)
        self.close(link, why)

    def _discard(self, link: Link) -> None:
        """Ends a session, so that the device comes back with a new one."""
        if isinstance(link, UdpLink) and link.session is None:
            # Its keys are in the store only; nobody will use them again.
            self.books.gone.append(link.id)
            self.close(link, "its keys are not good any more")
            return
        link.discard()
        self.ended(link, "its keys are not good any more")

    # --- presence ---

    def _back(self, link: Link) -> None:
        link.doubtful = False
        self.roster.came(link)
        self.outboxes.back(link)

    def _open(self, link: Link) -> None:
        if isinstance(link, UdpLink):
            self.dormant.wake(link)

    def _went(self, link: Link) -> None:
        self.roster.went(link)
        self._forget(link)

    def _silent(self, link: Link) -> None:
        """It left a question unanswered: nobody counts on it until it says something."""
        if link.online and link.device is not None and not self._sleeps(link):
            _log.info("device_silent", device=link.device.id, why="it did not answer, and is offline until it is heard")
            link.doubtful = True
            self._went(link)

    def _sleeps(self, link: Link) -> bool:
        """Whether a device that does not answer is in queue mode: it sleeps, then, sooner than it was thought to."""
        if link.keep_alive is None or not link.keep_alive.queue:
            return False
        self._forget(link)
        self.roster.slept(link)
        return True

    def _forget(self, link: Link) -> None:
        """What a link was sent and has not acknowledged is not sent again."""
        if link.endpoint is not None:
            unheard = link.endpoint.unheard()
            for tag in link.endpoint.abandon():
                if isinstance(tag, Asked):
                    self.questions.unanswered(tag, unheard=tag in unheard)
                elif isinstance(tag, descriptions.Asked):
                    tag.ends(False)

    async def _refresh(self) -> None:
        await self.roster.refresh()

    def _claim(self, link: Link, code: str) -> None:
        assert link.device is not None
        self._start(self._redeem(link, link.device.id, code))

    async def _redeem(self, link: Link, device: str, code: str) -> None:
        try:
            claimed = await self._identity.redeem(device, code)
            await self.roster.refresh()
        except CloudError as problem:
            _seldom.warning("claim_held", why=problem.description, device=device)
            return
        if claimed is None:
            _seldom.warning("claim_code_refused", why="there is no such code, or no longer", device=device)
        # Either way the device need not send the code again (device-protocol.md, section 10.1).
        self._tell(link, CLAIMED, b"")

    # --- what is done at intervals ---

    async def _look_after_handshakes(self) -> None:
        while True:
            await self.udp.tick()
            if self.tcp is not None:
                await self.tcp.tick()
            await asyncio.sleep(HANDSHAKES_EVERY_S)

    async def _look_after_links(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = self._clock.monotonic()
            async for links in slices(self.roster):
                for link in links:
                    silent = now - link.heard
                    if link.online and silent > link.idle_limit:
                        self.faults.guard(link, "presence", partial(self._went, link))
                    elif link.online and link.keep_alive is not None:
                        self.faults.guard(link, "keep-alive", partial(self.keep_alives.look, link, silent))
            async for unnamed in slices(self._unnamed.items()):
                for link, since in unnamed:
                    self.faults.guard(link, "presence", partial(self._look_after_unnamed, link, now - since))
            try:
                await self.roster.refresh()
            except CloudError as problem:
                _seldom.warning("registry_held", why=problem.description)

    def _look_after_unnamed(self, link: Link, for_s: float) -> None:
        if link.device is not None:
            self._named(link)
        elif for_s > HELLO_S and not link.closed:
            self.refused["no_hello"] += 1
            self.close(link, "it never said who it is")

    async def _note_forever(self) -> None:
        while True:
            await asyncio.sleep(NOTE_EVERY_S)
            await self._note()

    async def _note(self) -> None:
        # Before a device of the last process is fetched from the store, it is not known what it has had.
        await self.outboxes.note(self.keeper, all_known=not self.dormant.waking, then=self.accounting.soon)

    def _settled(self) -> Cursor:
        """Up to here a restart need not read the log: what devices sent is accounted for, what they must get noted."""
        return min(self.intake.settled, self.outboxes.noted, key=self._log.order)

    # --- life ---

    async def start(self) -> None:
        """Takes up what the last process left."""
        await self.dormant.start()

    def _start(self, work: Any) -> None:
        task = self._tasks.spawn(work, "device-link")
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    @property
    def port(self) -> int:
        """The UDP port that devices reach; 0 while it is somebody else's."""
        return self.udp.port

    @property
    def tcp_port(self) -> int:
        """The TCP port that devices reach; 0 when there is none, or while it is somebody else's."""
        return 0 if self.tcp is None else self.tcp.port

    # --- what is counted ---

    @property
    def online(self) -> int:
        """Devices that are online."""
        return self.roster.online

    @property
    def asleep(self) -> int:
        """Devices in queue mode that are online, and have what is for them wait."""
        return self.roster.asleep

    @property
    def sessions(self) -> int:
        """Devices whose links are known, online or not."""
        return len(self.roster)

    @property
    def handshaking(self) -> int:
        """Handshakes under way."""
        return self.udp.handshakes + (0 if self.tcp is None else self.tcp.handshakes)

    @property
    def handshakes(self) -> int:
        """Handshakes that were completed."""
        return self.udp.handshakes_done + (0 if self.tcp is None else self.tcp.handshakes_done)

    @property
    def accepted(self) -> int:
        """Events of devices that were stored."""
        return self.publications.accepted

    @property
    def delivered(self) -> int:
        """Events that devices acknowledged."""
        return self.outboxes.delivered

    def refusals(self) -> dict[tuple[str, str], int]:
        """What was refused or dropped: by part and reason."""
        waiting = self.intake.batches.dropped + self.keeper.batches.dropped
        parts: dict[str, Mapping[str, int]] = {
            "udp": self.udp.refused,
            "tcp": Counter() if self.tcp is None else self.tcp.refused,
            "messages": self.refused
            + self.conversation.refused
            + self.door.refused
            + Counter(blocks_forgotten=self.conversation.blocks.forgotten),
            "events": self.publications.refused,
            "to_devices": {**self.outboxes.undelivered.counts, "expired": self.outboxes.expired},
            "store": Counter(waiting=waiting),
            "faults": self.faults.counted,
        }
        return {(part, reason): count for part, counts in parts.items() for reason, count in counts.items()}

    def parts(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs all the time, by name."""
        return {
            "device events": self.intake.batches.run(),
            "device news": self.keeper.batches.run(),
            "session state": self.accounting.run(),
            "sessions": self.dormant.run(),
            "handshakes": self._look_after_handshakes(),
            "links": self._look_after_links(),
            "progress": self._note_forever(),
            "traffic": self.books.run(),
        }

    async def stop(self) -> None:
        """Writes down what there is; devices notice nothing."""
        self.udp.close()
        if self.tcp is not None:
            self.tcp.close_port()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self.intake.batches.done()
                await self._note()
                await self.keeper.batches.done()
        if self.tcp is not None:
            # After the last acknowledgement: over TCP, devices send nothing twice.
            self.tcp.close()
        self.outboxes.close()
        self.timers.close()
        for task in self._working:
            task.cancel()
        await self.accounting.write()
        await self.write_down()
