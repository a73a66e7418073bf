"""What both sides of a handshake have in common: reading datagrams, following the table, telling failures.

Nothing that arrives raises. A record that can't be read is dropped; a message that can't be right ends the handshake
with an alert and a `Failed` event. What is held for a peer is bounded: fragments (`assembly`), records that came before
their keys, and application data that came before the peer was known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from wirechamber.protocols.dtls.alerts import Alert, AlertLevel, Fatal, read_alert, write_alert
from wirechamber.protocols.dtls.assembly import Assembly, read_fragments
from wirechamber.protocols.dtls.events import Arrived, Established, Event, Failed, Over
from wirechamber.protocols.dtls.keys import KeyBlock, extended_master_secret, key_block, master_secret
from wirechamber.protocols.dtls.messages import HandshakeType, whole
from wirechamber.protocols.dtls.records import ALERT, APPLICATION_DATA, HANDSHAKE, Record, read_records
from wirechamber.protocols.dtls.session import Received, Refusal, Session
from wirechamber.protocols.dtls.states import Path, State
from wirechamber.protocols.dtls.suites import Suite
from wirechamber.protocols.dtls.transmission import Message, Transmission
from wirechamber.protocols.dtls.wire import Malformed

# A peer that stops answering is forgotten; Device OS gives up after 45 s (device-protocol.md, section 3.4).
LIFETIME_S = 60.0
# Records of the new epoch that overtook the messages that its keys are made from.
MAX_EARLY = 8
MAX_EARLY_BYTES = 4096
# Application data that overtook the Finished message; a device's largest message has 1152 bytes.
MAX_HELD = 8
MAX_HELD_BYTES = 4096
# Records that the agreed keys do not open. Some may be somebody else's; a peer with another pre-shared key sends only
# such, once and then again each time that its clock runs out.
MAX_FORGED = 4

_DONE = (State.ESTABLISHED, State.OVER)


class Handshake:
    """One side of one handshake. `ServerHandshake` and `ClientHandshake` add the messages.

    Args:
        transmission: Sends our flights.
        expected: Number of the peer's next message.
        sequence: Number of our next message.
    """

    __slots__ = (
        "_assembly", "_cid_length", "_early", "_early_bytes", "_events", "_forged", "_gives_up", "_held", "_held_bytes",
        "_path", "_sequence", "_session", "_state", "_transcript", "_transmission",
    )  # fmt: skip

    def __init__(self, transmission: Transmission, now: float, *, expected: int, sequence: int) -> None:
        self._transmission = transmission
        # How long the connection id is in records to us; none has one before the ServerHello.
        self._cid_length = 0
        self._assembly = Assembly(expected)
        self._sequence = sequence
        self._transcript = hashlib.sha256()
        self._state = State.HELLO
        self._path: Path = {}
        self._session: Session | None = None
        self._events: list[Event] = []
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._held: list[Received] = []
        self._held_bytes = 0
        self._forged = 0
        self._gives_up = now + LIFETIME_S

    # --- for whoever drives it ---

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    def receive(self, datagram: bytes, now: float) -> None:
        """Takes a datagram of the peer's."""
        with self._failing():
            for record in read_records(datagram, self._cid_length):
                if self._state is State.FAILED:
                    return
                self._record(record, now)
                self._advance(now)

    def datagrams(self, now: float) -> list[bytes]:
        """What is to be sent now; each is given out once."""
        return self._transmission.datagrams()

    def events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When `tick` wants to be called if nothing comes; None: never."""
        if self._state in (State.FAILED, State.OVER):
            return None
        due = self._transmission.due
        return self._gives_up if due is None else min(due, self._gives_up)

    def tick(self, now: float) -> None:
        """Does what is due: sends a flight again, or gives up."""
        if self._state in (State.FAILED, State.OVER):
            return
        if now >= self._gives_up:
            self._end()
            return
        due = self._transmission.due
        if due is not None and now >= due:
            self._transmission.expired(now)

    # --- records ---

    def _record(self, record: Record, now: float) -> None:
        if record.epoch == 0:
            # ChangeCipherSpec says nothing here: see `states`.
            if record.content_type == HANDSHAKE:
                self._fragments(record.content, now, protected=False)
            elif record.content_type == ALERT and self._state not in _DONE:
                self._alert(record.content)
        elif record.epoch == 1:
            if self._session is not None:
                self._open(record.raw, now)
            elif len(self._early) < MAX_EARLY and self._early_bytes + len(record.raw) <= MAX_EARLY_BYTES:
                self._early.append(record.raw)
                self._early_bytes += len(record.raw)

    def _open(self, raw: bytes, now: float) -> None:
        session = self._session
        assert session is not None
        received = session.unprotect(raw)
        if received is None:
            if session.refused is Refusal.TAG and self._state is State.FINISHED:
                self._forged += 1
                if self._forged == 1:
                    self._not_opened()
                if self._forged >= MAX_FORGED:
                    raise Fatal(Alert.BAD_RECORD_MAC, "the peer's keys are others than ours")
        elif received.content_type == HANDSHAKE:
            self._fragments(received.data, now, protected=True)
        elif received.content_type == APPLICATION_DATA:
            if self._state in _DONE:
                self._events.append(Arrived(received))
            elif len(self._held) < MAX_HELD and self._held_bytes + len(received.data) <= MAX_HELD_BYTES:
                self._held.append(received)
                self._held_bytes += len(received.data)
        elif received.content_type == ALERT:
            if self._state in _DONE:
                self._events.append(Arrived(received))
            else:
                self._alert(received.data)

    def _not_opened(self) -> None:
        """The first record that the agreed keys do not open came."""

    def _fragments(self, content: bytes, now: float, *, protected: bool) -> None:
        try:
            fragments = read_fragments(content)
        except Malformed:
            return
        for fragment in fragments:
            # The Finished message is protected and no other is; one that is not as it should be is not the peer's.
            if (fragment.kind == HandshakeType.FINISHED) != protected:
                continue
            if self._state in _DONE and fragment.sequence >= self._assembly.expected:
                # Renegotiation, which is not done (RFC 5746, section 4.5, allows to ignore it).
                continue
            if not self._assembly.add(fragment):
                self._repeated(fragment.kind, fragment.sequence, now)

    def _alert(self, data: bytes) -> None:
        alert = read_alert(data)
        if alert is not None and (alert[0] == AlertLevel.FATAL or alert[1] == Alert.CLOSE_NOTIFY):
            self._transmission.stop()
            self._state = State.FAILED
            self._events.append(Failed(f"the peer said {_name(alert[1])}", alert[1], by_peer=True))

    # --- messages ---

    def _advance(self, now: float) -> None:
        while self._state not in (State.PSK, State.ESTABLISHED, State.OVER, State.FAILED):
            message = self._assembly.next()
            if message is None:
                return
            kind, sequence, body = message
            then = self._path.get((self._state, kind))
            if then is None:
                raise Fatal(Alert.UNEXPECTED_MESSAGE, f"message {kind} while {self._state} is awaited")
            before = self._transcript.digest()
            self._transcript.update(whole(kind, sequence, body))
            self._state = then
            self._handle(kind, body, before, now)

    def _handle(self, kind: int, body: bytes, before: bytes, now: float) -> None:
        """A message that is due.

        Args:
            before: SHA-256 of all messages before it.
        """
        raise NotImplementedError

    def _say(self, kind: HandshakeType, body: bytes, *, protected: bool = False) -> Message:
        """A message of ours, with the next number, as part of what both sides hash."""
        message = Message(kind, self._sequence, body, protected)
        self._sequence += 1
        self._transcript.update(whole(kind, message.sequence, body))
        return message

    def _repeated(self, kind: int, sequence: int, now: float) -> None:
        """A message came that was taken before: the peer may have missed our flight."""
        raise NotImplementedError

    def _keys(
        self, premaster: bytes, client_random: bytes, server_random: bytes, suite: Suite, *, extended: bool
    ) -> tuple[bytes, KeyBlock]:
        master = (
            extended_master_secret(premaster, self._transcript.digest())
            if extended
            else master_secret(premaster, client_random, server_random)
        )
        return master, key_block(master, client_random, server_random, suite)

    def _opened(self, now: float) -> None:
        """There are keys: what came too early is read now."""
        early, self._early = self._early, []
        self._early_bytes = 0
        for raw in early:
            self._open(raw, now)

    def _established(self) -> None:
        session = self._session
        assert session is not None
        self._state = State.ESTABLISHED
        self._events.append(Established(session))
        held, self._held = self._held, []
        self._events += [Arrived(received) for received in held]

    # --- the end ---

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """What goes wrong inside ends the handshake, and tells the peer."""
        try:
            yield
        except Fatal as problem:
            self._fail(problem.alert, problem.why)
        except Malformed as problem:
            self._fail(Alert.DECODE_ERROR, str(problem))

    def _end(self) -> None:
        if self._state is State.ESTABLISHED:
            self._over()
        else:
            self._transmission.stop()
            self._state = State.FAILED
            self._events.append(Failed("the peer did not answer in time", None, by_peer=False))

    def _over(self) -> None:
        self._transmission.stop()
        self._state = State.OVER
        self._events.append(Over())

    def _fail(self, alert: Alert, why: str) -> None:
        self._transmission.stop()
        self._tell(write_alert(AlertLevel.FATAL, alert))
        self._state = State.FAILED
        self._events.append(Failed(why, alert, by_peer=False))

    def _tell(self, alert: bytes) -> None:
        self._transmission.record(ALERT, alert)


def _name(alert: int) -> str:
    try:
        return Alert(alert).name.lower()
    except ValueError:
        return f"alert {alert}"
