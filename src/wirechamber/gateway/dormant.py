"""Sessions that the store has and this process has not opened yet.

After a restart every one of them is known by its connection id and opened when something comes for it, or at once if
its device waits for events.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import structlog

from wirechamber.clock import Clock
from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor, EventLog, Scope
from wirechamber.gateway.accounting import BLOCK, Accounting
from wirechamber.gateway.conversation import Conversation
from wirechamber.gateway.datagrams import parse_way
from wirechamber.gateway.faults import Faults
from wirechamber.gateway.link import Link
from wirechamber.gateway.mids import Mids
from wirechamber.gateway.outbox import Outboxes
from wirechamber.gateway.roster import Roster
from wirechamber.gateway.slices import slices
from wirechamber.gateway.udp import Udp
from wirechamber.gateway.udplink import UdpLink
from wirechamber.model import links
from wirechamber.model.links import Checkpoint, LinkRecord, Reservation
from wirechamber.observe.logs import Seldom
from wirechamber.protocols.dtls import Session, SessionState
from wirechamber.store.base import Store

_seldom = Seldom(structlog.get_logger("wirechamber.gateway"))

# Sessions that are fetched from the store in one go.
WAKE_BATCH = 500
PAGE = 1_000
# Sessions that are opened in one turn of the loop.
SLICE = 64
RETRY_S = 0.5


class Dormant:
    """Knows them, and opens them.

    Args:
        close: Ends a link of which nothing is known any more.
        drop: Ends a session that can't be opened, for good.
    """

    def __init__(
        self,
        *,
        store: Store,
        log: EventLog,
        clock: Clock,
        udp: Udp,
        accounting: Accounting,
        roster: Roster,
        outboxes: Outboxes,
        conversation: Conversation,
        faults: Faults,
        close: Callable[[Link, str], None],
        drop: Callable[[UdpLink, str], None],
    ) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._udp = udp
        self._accounting = accounting
        self._roster = roster
        self._outboxes = outboxes
        self._conversation = conversation
        self._faults = faults
        self._close = close
        self._drop = drop
        self._waking: dict[UdpLink, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        # Up to where every device of the last process had had its events, unless the store says otherwise.
        self._since = log.tail.newest

    @property
    def waking(self) -> bool:
        """Whether some are being opened."""
        return bool(self._waking)

    def wake(self, link: UdpLink) -> None:
        """The session is needed: `UdpLink.open` is called, or it is closed."""
        if link not in self._waking:
            self._waking[link] = asyncio.get_running_loop().create_future()
            self._wake.set()

    async def awake(self, link: Link) -> None:
        """Returns when the link can send, or is closed."""
        if isinstance(link, UdpLink) and link.session is None and not link.closed:
            self.wake(link)
            await self._waking[link]

    async def run(self) -> None:
        """Opens sessions for ever."""
        while True:
            await self._wake.wait()
            batch = list(itertools.islice(self._waking, WAKE_BATCH))
            if not batch:
                self._wake.clear()
                continue
            try:
                await self._open(batch)
            except CloudError as problem:
                _seldom.warning("sessions_held", why=problem.description, sessions=len(batch))
                await asyncio.sleep(RETRY_S)
                continue
            for link in batch:
                waiter = self._waking.pop(link)
                if not waiter.done():
                    waiter.set_result(None)

    async def _open(self, dormant: Sequence[UdpLink]) -> None:
        """Fetches sessions, and reserves a new block of numbers for each before it may send."""
        sessions = await self._store.sessions.several([link.id for link in dormant])
        for link in dormant:
            session = sessions.get(link.id)
            if link.device is None and session is not None and session.device is not None:
                link.device = await self._store.devices.get(session.device)
        told = await self._store.links.several([link.device.id for link in dormant if link.device is not None])
        found: list[tuple[UdpLink, links.Session, SessionState]] = []
        async for some in slices(dormant, SLICE):
            for link in some:
                record = sessions.get(link.id)
                if link.closed or link.session is not None:
                    continue
                if link.device is None or link.id not in sessions:
                    self._close(link, "nothing is known of it any more")
                elif record is None:
                    self._drop(link, "its keys can't be read")
                elif link.device.id in told and told[link.device.id].damaged:
                    self._drop(link, "what it told can't be read")
                else:
                    try:
                        found.append((link, record, msgspec.msgpack.decode(record.state, type=SessionState)))
                    except (msgspec.MsgspecError, ValueError):
                        self._drop(link, "its keys are of another form")
        reservations = [Reservation(link.id, record.send_limit + BLOCK) for link, record, _ in found]
        await self._store.sessions.account([], reservations, None)
        async for opened in slices(found, SLICE):
            for link, record, state in opened:
                device = link.device
                if link.closed or link.session is not None or device is None:
                    continue
                try:
                    made = Session(state, record.send_limit, record.send_limit + BLOCK, record.top)
                    link.mids = Mids.from_bytes(record.mids)
                except (KeyError, ValueError, TypeError):
                    self._drop(link, "its keys are of another form")
                    continue
                self._faults.guard(link, "session", partial(self._begin, link, made, told.get(device.id)))

    def _begin(self, link: UdpLink, session: Session, told: LinkRecord | None) -> None:
        if told is not None:
            self._recall(link, told)
        link.open(session)

    def _recall(self, link: UdpLink, told: LinkRecord) -> None:
        """What the device said before, and will not say again."""
        greeting = told.greeting
        if greeting is not None:
            self._conversation.recall(link, greeting)
        assert link.device is not None
        link.subscriptions = told.subscriptions
        link.behind = self._position(told.resume_from) if told.resume_from else self._since
        self._outboxes.join(link, link.device.owner, told.subscriptions)
        if link.online:
            self._conversation.endpoint(link)
            self._outboxes.back(link)
            if told.keep_alive is not None and told.keep_alive.queue:
                # Whatever opened the session is looked at after this.
                self._roster.slept(link)

    def _position(self, text: str) -> Cursor:
        """A position that was stored; what is none of the log's stands for where all were."""
        try:
            return self._log.parse(text)
        except CloudError:
            return self._since

    async def start(self) -> None:
        """Takes up what the last process left."""
        await self._roster.begin()
        sessions = self._store.sessions
        cursor = await sessions.cursor()
        newest = self._log.tail.newest
        # A position that can't be read: the log tells, from its beginning.
        self._since = self._log.origin
        self._since = self._roster.since = newest if cursor is None else self._position(cursor)
        if cursor is not None:
            await self._catch_up(self._since)
        # The next start begins there as well, until all devices that were online are looked after again.
        self._accounting.cursor = self._outboxes.noted = self._since
        online = {record.device: record for record in await self._store.links.online()}
        devices = {device.id: device for device in (await self._store.devices.changes(0)).changed}
        now = self._clock.monotonic()
        for known in await sessions.known():
            link = UdpLink(self._udp, known.id, known.cid, deviceos=known.deviceos)
            link.adopt(parse_way(known.address))
            link.stored = True
            self._udp.bind(link)
            device = devices.get(known.device or "")
            if device is None or known.device is None:
                continue
            link.device = device
            self._roster.put(known.device, link)
            link.heard = now
            if known.device in online:
                record = online[known.device]
                self._roster.restored(link, record.keep_alive)
                if record.keep_alive is not None and record.last_heard is not None:
                    # It is pinged when it expects that, as far as anybody knows.
                    silent = (self._clock.now() - record.last_heard) / 1000
                    link.heard = now - min(max(silent, 0.0), record.keep_alive.ping or 0.0)
                if record.subscriptions:
                    self.wake(link)
                elif record.keep_alive is not None and record.keep_alive.queue:
                    self._roster.slept(link)
        for device_id, record in online.items():
            if self._roster.get(device_id) is None:
                # Its connection ended with the last process.
                device = devices.get(device_id)
                if device is not None:
                    self._roster.gone(device, record.resume_from)

    async def _catch_up(self, cursor: Cursor) -> None:
        """Brings the receive state of sessions up to the events that they brought (DESIGN, section 3)."""
        news: dict[str, list[tuple[int, int]]] = {}
        position = cursor
        while True:
            page = await self._log.read(Scope(), position, PAGE)
            for entry in page.entries:
                event = entry.event
                if event.session is not None and event.record is not None:
                    news.setdefault(event.session, []).append((event.record, event.message or 0))
            position = page.after
            if not page.more:
                break
        async for some in slices(news.items(), WAKE_BATCH):
            sessions = await self._store.sessions.several([session for session, _ in some])
            checkpoints: list[Checkpoint] = []
            for session, seen in some:
                record = sessions.get(session)
                if record is not None:
                    mids = Mids.from_bytes(record.mids)
                    for _, message_id in seen:
                        mids.add(message_id)
                    top = max(record.top, *(number for number, _ in seen))
                    checkpoints.append(Checkpoint(session, top, mids.to_bytes(), record.address))
            await self._store.sessions.account(checkpoints, [], None)
