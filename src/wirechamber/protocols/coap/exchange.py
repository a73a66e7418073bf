"""One peer's CoAP exchanges: what is sent again, what was seen before, and which answer belongs to which question
(RFC 7252, sections 4 and 5.2).

`Endpoint` opens no socket and reads no clock. Feed it what arrives (`receive`) and the time (`tick`), send what
`outgoing` gives, and call `tick` again at `deadline`. There is one for each device, and most devices are silent most of
the time: idle, one costs less than 500 bytes, because its tables are made when they are needed and given back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from wirechamber.protocols.coap.message import (
    Code,
    Malformed,
    Message,
    Type,
    ack,
    read_message,
    reset,
    wants_response,
    write_message,
)

# Message ids of a peer that are remembered at a time. Device OS publishes up to 4 events a second (device-protocol.md,
# section 12), which is 988 in an exchange's lifetime. Of a faster peer the oldest are forgotten first.
MAX_SEEN = 1024
# Tables this small are not worth a search for what has expired.
_MIN_SWEEP = 16
# Messages that wait for earlier ones to be acknowledged.
MAX_QUEUED = 128
# RFC 7252, section 4.8.2: for so long a NON may still be rejected.
NON_LIFETIME = 145.0
# How often the clock of a message starts over because its peer was heard (`Endpoint.heard`): one that says other things
# and never acknowledges this one is given up all the same.
MAX_FRESH_STARTS = 8
_TOKENS = 256
_EMPTY_ACK = b"\x60\0"


class Timing(Struct, frozen=True):
    """How patient an endpoint is (RFC 7252, section 4.8). Seconds.

    Attributes:
        ack_timeout: How long the first acknowledgement is waited for, at least.
        random_factor: It is waited up to this many times as long, by chance; then doubled with each repetition.
        max_retransmit: How often a message is sent again before it is given up.
        lifetime: For how long a message id that was seen is taken for the same message (EXCHANGE_LIFETIME).
        in_order: Nothing is lost or overtaken, so that an acknowledgement under an id that says nothing still tells
            something.
    """

    ack_timeout: float = 2.0
    random_factor: float = 1.5
    max_retransmit: int = 4
    lifetime: float = 247.0
    in_order: bool = False


RFC_7252 = Timing()
# device-protocol.md, section 6: as the device itself does. It is as slow to answer as it is patient, since it may be
# behind a modem that has to wake up.
DEVICE_OS = Timing(ack_timeout=4.0, max_retransmit=3)
# Over TCP nothing is sent again (device-protocol.md, section 5.3); an acknowledgement comes soon or never.
OVER_TCP = Timing(ack_timeout=30.0, random_factor=1.0, max_retransmit=0, in_order=True)


class Busy(RuntimeError):
    """More is under way than an endpoint holds; the caller tries again later or gives up."""


class TooLong(ValueError):
    """The peer has no room for a message.

    Attributes:
        size: Of the message, bytes.
        room: What there is.
    """

    def __init__(self, size: int, room: int) -> None:
        super().__init__(f"a message of {size} bytes, where the peer takes {room}")
        self.size = size
        self.room = room


class Request(Struct, frozen=True, gc=False):
    """The peer asks something, for the first time. A CON must be answered soon: `Endpoint.reply`."""

    message: Message


class Answered(Struct, frozen=True):
    """The answer, good or bad, to something that we sent. It is acknowledged already, if it has to be."""

    tag: Any
    message: Message


class Acknowledged(Struct, frozen=True):
    """A CON of ours that asked nothing has arrived."""

    tag: Any


class Rejected(Struct, frozen=True):
    """The peer sent RST: it can't make anything of what we sent, or does not want it any more."""

    tag: Any


class Duplicate(Struct, frozen=True, gc=False):
    """A message that was received before. What it was answered by has been sent again."""

    id: int


class TimedOut(Struct, frozen=True):
    """Something that we sent was not acknowledged, or not answered in time.

    Attributes:
        acknowledged: The peer has received it: it is there, but has no answer. A function that a device does not know
            ends like this (device-protocol.md, Q16).
    """

    tag: Any
    acknowledged: bool


class Expired(TimedOut, frozen=True):
    """Something that we sent was not acknowledged, and is not worth being sent again any more."""

    acknowledged: bool = False


Arrival = Request | Answered | Acknowledged | Rejected | Duplicate | None


class _Sent:
    """A message of ours that waits for something.

    Attributes:
        due: When it is sent again; None once it is acknowledged, or if it never is sent again.
        timeout: How long is waited this time.
        tries: How often it was sent again; -1 before it was sent at all.
        answer_by: When it is too late for the answer; None while no answer is expected.
        expects: An answer is expected.
        keep: More answers may follow the first (RFC 7641).
        con: It counts as outstanding until it is acknowledged.
        until: When it is not sent (again) any more; None: it always is.
        at: When it was sent last.
        starts: How often its clock started over.
    """

    __slots__ = (
        "answer_by", "at", "con", "data", "due", "expects", "id", "keep", "starts", "tag", "timeout", "token", "tries",
        "until",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        token: bytes,
        data: bytes,
        tag: Any,
        answer_by: float | None,
        *,
        con: bool,
        expects: bool,
        keep: bool,
    ) -> None:
        self.id = id
        self.token = token
        self.data = data
        self.tag = tag
        self.answer_by = answer_by
        self.con = con
        self.expects = expects
        self.keep = keep
        self.due: float | None = None
        self.timeout = 0.0
        self.tries = -1
        self.until: float | None = None
        self.at = 0.0
        self.starts = 0


class Endpoint:
    """Our end of the exchanges with one peer.

    Args:
        dice: Gives numbers from 0 to 1 by chance. "A fleet that lost power together comes back together", so the
            randomness of time-outs is not decoration.
        nstart: How many CONs may be without acknowledgement at a time (RFC 7252, section 4.7).
        forgiving: The peer is Device OS, or as particular: nothing is answered by RST, since that would end its session
            (device-protocol.md, Q20), everything is acknowledged (Q23), and a payload marker may stand alone.
        first_token: What `next_token` begins with, modulo 256.
    """

    __slots__ = (
        "_dice", "_flying", "_last_id", "_last_token", "_nstart", "_open", "_out", "_queue", "_replies", "_seen",
        "_sent", "_sweep", "_timing", "_tokens", "forgiving",
    )  # fmt: skip

    def __init__(
        self,
        timing: Timing,
        dice: Callable[[], float],
        nstart: int = 1,
        *,
        forgiving: bool = False,
        first_token: int = 0,
    ) -> None:
        self._timing = timing
        self._dice = dice
        self._nstart = nstart
        self.forgiving = forgiving
        self._last_id = -1
        self._last_token = first_token % _TOKENS - 1
        self._flying = 0
        self._sweep = _MIN_SWEEP
        self._out: list[bytes] | None = None
        # Message ids of the peer, and when they were seen first, oldest first.
        self._seen: dict[int, float] | None = None
        # Those that were not answered yet; what those were answered by that got no empty ACK (b"": nothing at all).
        self._open: set[int] | None = None
        self._replies: dict[int, bytes] | None = None
        # What we sent, by message id, while something may still come; by token, while an answer may.
        self._sent: dict[int, _Sent] | None = None
        self._tokens: dict[bytes, _Sent] | None = None
        self._queue: deque[_Sent] | None = None

    # --- what comes in ---

    def receive(self, data: bytes | Message, now: float) -> Arrival:
        """Takes what the peer sent.

        Args:
            data: A datagram, or a message that was read already.
            now: Seconds, on any clock that does not jump.

        Raises:
            Malformed: It is no CoAP message; `refuse` answers it, if it is to be answered.
        """
        message = data if isinstance(data, Message) else read_message(data, strict=not self.forgiving)
        kind, code = message.type, message.code
        if kind is Type.ACK:
            return self._acknowledged(message, now)
        if kind is Type.RST:
            return self._rejected(message, now) if not code else None
        if code >= 0x40:
            return self._response(message, now)
        if not code and kind is Type.NON:
            # RFC 7252, section 4.3: an empty NON means nothing.
            return None
        if not code:
            # A ping may be answered twice. Most of what idle devices send is pings, so they are not worth remembering.
            return Request(message)
        if self.fresh(message.id, now):
            return Request(message)
        return Duplicate(message.id)

    def fresh(self, id: int, now: float) -> bool:
        """Whether a request with this message id is new; if it is, it counts as seen from now on.

        What an earlier one of this id was answered by is sent again. While that one waits for its answer, nothing is.
        """
        seen = self._seen
        if seen is None:
            seen = self._seen = {}
        at = seen.get(id)
        if at is not None:
            if now - at < self._timing.lifetime:
                self._repeat(id)
                return False
            self.forget(id)
            seen = self._seen if self._seen is not None else {}
            self._seen = seen
        elif len(seen) >= self._sweep:
            self._expire(now)
            seen = self._seen if self._seen is not None else {}
            self._seen = seen
        seen[id] = now
        if self._open is None:
            self._open = {id}
        else:
            self._open.add(id)
        return True

    def remember(self, id: int, reply: bytes, now: float) -> None:
        """Notes what a request was answered by, where the caller sends the answer itself. `b""`: by nothing."""
        if self._open is not None:
            self._open.discard(id)
            if not self._open:
                self._open = None
        if self._seen is None or id not in self._seen:
            self.fresh(id, now)
            self.remember(id, reply, now)
        elif reply[:2] != _EMPTY_ACK or len(reply) != 4:
            # The empty ACK is made anew each time: nearly every request of a device is answered by one.
            if self._replies is None:
                self._replies = {}
            self._replies[id] = reply

    def forget(self, id: int) -> None:
        """Takes a request for unseen: it could not be dealt with, and the peer will repeat it."""
        if self._seen is not None and self._seen.pop(id, None) is not None and not self._seen:
            self._seen = None
        if self._open is not None:
            self._open.discard(id)
        if self._replies is not None:
            self._replies.pop(id, None)

    def _repeat(self, id: int) -> None:
        if self._open is not None and id in self._open:
            return
        reply = self._replies.get(id) if self._replies is not None else None
        if reply is None:
            self._put(ack(id))
        elif reply:
            self._put(reply)

    def _expire(self, now: float) -> None:
        """Forgets message ids that are too old to come again and, if there are too many left, the oldest quarter."""
        seen = self._seen
        if not seen:
            return
        before = now - self._timing.lifetime
        old = [id for id, at in seen.items() if at <= before]
        if len(seen) - len(old) >= MAX_SEEN:
            old = list(seen)[: len(old) + MAX_SEEN // 4]
        if len(old) == len(seen):
            self._seen = self._open = self._replies = None
            self._sweep = _MIN_SWEEP
            return
        for id in old:
            self.forget(id)
        # A table does not shrink by itself.
        self._seen = dict(seen)
        if not self._open:
            self._open = None
        if not self._replies:
            self._replies = None
        self._sweep = min(MAX_SEEN, max(_MIN_SWEEP, 2 * len(self._seen)))

    def _acknowledged(self, message: Message, now: float) -> Arrival:
        sent = self._sent.get(message.id) if self._sent is not None else None
        code = message.code
        if sent is None and self._timing.in_order:
            sent = self._meant(message)
        if sent is None or not sent.con or 0 < code < 0x40:
            return None
        if code and message.token != sent.token:
            # RFC 7252, section 5.3.2: an answer to something else.
            return None
        if not code and sent.expects:
            # The answer follows on its own.
            self._landed(sent, now)
            return None
        self._done(sent, now, last=not (code and sent.keep))
        return Answered(sent.tag, message) if code else Acknowledged(sent.tag)

    def _meant(self, message: Message) -> _Sent | None:
        """What an acknowledgement under an unknown id is for.

        Over TCP, Device OS acknowledges pings, and requests that it answers in the acknowledgement, under a new id of
        its own (6.2.0, on the wire).
        """
        if message.code:
            return self._asked(message.token) if message.token else None
        waiting = self._sent.values() if self._sent is not None else ()
        return next((sent for sent in waiting if sent.con and not sent.data[1]), None)

    def _asked(self, token: bytes) -> _Sent | None:
        """The question with this token. One that waits to be sent can't be meant, but an earlier one with its token."""
        sent = self._tokens.get(token) if self._tokens is not None else None
        return None if sent is None or sent.tries < 0 else sent

    def _rejected(self, message: Message, now: float) -> Arrival:
        sent = self._sent.get(message.id) if self._sent is not None else None
        if sent is None:
            return None
        self._done(sent, now, last=True)
        return Rejected(sent.tag)

    def _response(self, message: Message, now: float) -> Arrival:
        """A response that came on its own."""
        id, con = message.id, message.type is Type.CON
        if not self.fresh(id, now):
            return Duplicate(id)
        sent = self._asked(message.token)
        answer = b""
        if con:
            # RFC 7252, section 4.2: a CON that can't be made sense of is rejected.
            answer = reset(id) if sent is None and not self.forgiving else ack(id)
        self.remember(id, answer, now)
        if answer:
            self._put(answer)
        if sent is None:
            return None
        # RFC 7252, section 5.2.2: the response says, too, that the request has arrived, if its ACK was lost.
        self._done(sent, now, last=not sent.keep)
        return Answered(sent.tag, message)

    # --- what goes out in answer ---

    def reply(
        self,
        request: Request | Message,
        code: int = Code.EMPTY,
        payload: bytes = b"",
        options: tuple[tuple[int, bytes], ...] = (),
        now: float = 0.0,
        *,
        id: int = 0,
    ) -> None:
        """Answers a request: a CON by an acknowledgement with the answer on its back, a NON by a NON, or by nothing.

        Args:
            code: Of the answer; `Code.EMPTY` just acknowledges. The answer of a CON may then follow by `respond`.
            id: The message id of the answer to a NON, as in `send`.
        """
        message = request.message if isinstance(request, Request) else request
        if code and not wants_response(message, code):
            code, payload, options = Code.EMPTY, b"", ()
        if message.type is Type.CON:
            if code:
                data = write_message(Message(Type.ACK, code, message.id, message.token, options, payload))
            else:
                data = ack(message.id)
            if message.code:
                self.remember(message.id, data, now)
            self._put(data)
            return
        # RFC 7252, section 4.3: a repeated NON is ignored.
        self.remember(message.id, b"", now)
        if code:
            self._put(write_message(Message(Type.NON, code, self._take_id(id), message.token, options, payload)))

    def respond(
        self,
        request: Request | Message,
        code: int,
        payload: bytes,
        options: tuple[tuple[int, bytes], ...],
        now: float,
        *,
        id: int = 0,
        tag: Any = None,
    ) -> None:
        """Answers a request that was acknowledged before, by a message of its own; as `send` does, of the same type.

        Raises:
            Busy: Too much is waiting.
        """
        message = request.message if isinstance(request, Request) else request
        if wants_response(message, code):
            kind = Type.CON if message.type is Type.CON else Type.NON
            self.send(Message(kind, code, id, message.token, options, payload), tag, now)

    def refuse(self, problem: Malformed) -> None:
        """Answers a message that could not be read, if it is one that has to be answered."""
        if problem.id is None or problem.type is not Type.CON:
            return
        if self.forgiving:
            self._put(bytes((0x60, Code.BAD_REQUEST)) + problem.id.to_bytes(2, "big"))
        else:
            self._put(reset(problem.id))

    def reject(self, request: Request | Message, now: float) -> None:
        """Answers a request by RST: also how a ping is answered, except one of Device OS (device-protocol.md, 7.6)."""
        message = request.message if isinstance(request, Request) else request
        data = reset(message.id)
        if message.code:
            self.remember(message.id, data, now)
        self._put(data)

    # --- what we ask ---

    def send(
        self,
        message: Message,
        tag: Any,
        now: float,
        answer_within: float | None = None,
        *,
        keep: bool = False,
        until: float | None = None,
        room: int | None = None,
    ) -> int:
        """Sends a message; a CON again and again until it is acknowledged, and not before earlier ones are (NSTART).

        What became of it is told with its tag, once: by `receive` as Answered, Acknowledged or Rejected, or by `tick`
        as TimedOut (Expired, where it is not worth it any more). A NON that expects no answer is told of only if it is
        rejected, and not at all if its tag is None.

        Args:
            message: Its id is used, unless one that is as new or newer has been used before: then the next after
                that. So ids of one endpoint count up, and the caller's may come from any counter that does, such as the
                number of the record that will carry it; none repeats for 65,536 messages.
            tag: Anything; comes back as it is.
            answer_within: Seconds within which an answer must come; None: none is expected, though one is told.
            keep: The first answer is not the last one. More are told until `release`.
            until: From this time on it is not worth being sent (again); None: it always is.
            room: The longest message that the peer takes, bytes; None: that is not known.

        Returns:
            The message id.

        Raises:
            Busy: Too much is waiting.
            TooLong: The message is longer than there is room for.
            ValueError: The token is in use, or the message can't be written.
        """
        expects = answer_within is not None
        if expects and self._tokens is not None and message.token in self._tokens:
            raise ValueError("the token is in use")
        con = message.type is Type.CON
        waits = con and (self._flying >= self._nstart or bool(self._queue))
        if waits and self._queue is not None and len(self._queue) >= MAX_QUEUED:
            raise Busy("too many messages wait")
        id = self._take_id(message.id)
        data = write_message(Message(message.type, message.code, id, message.token, message.options, message.payload))
        if room is not None and len(data) > room:
            raise TooLong(len(data), room)
        if not con and not expects and tag is None:
            self._put(data)
            return id
        answer_by = now + answer_within if answer_within is not None else None if con else now + NON_LIFETIME
        sent = _Sent(id, message.token, data, tag, answer_by, con=con, expects=expects, keep=keep)
        sent.until = until
        if expects:
            if self._tokens is None:
                self._tokens = {}
            self._tokens[message.token] = sent
        if waits:
            if self._queue is None:
                self._queue = deque()
            self._queue.append(sent)
        else:
            self._transmit(sent, now)
        return id

    def next_token(self) -> bytes:
        """A token of one byte, as Device OS wants it (device-protocol.md, Q12), that no question of ours uses.

        Raises:
            Busy: All are in use.
        """
        used = self._tokens or {}
        for _ in range(_TOKENS):
            self._last_token = (self._last_token + 1) % _TOKENS
            token = bytes((self._last_token,))
            if token not in used:
                return token
        raise Busy("all tokens are in use")

    def expect(self, token: bytes, tag: Any) -> None:
        """Answers come to a question that somebody else has asked, until `release`: told with this tag."""
        if self._tokens is None:
            self._tokens = {}
        # No message has a negative id.
        sent = _Sent(-1 - len(self._tokens), token, b"", tag, None, con=True, expects=True, keep=True)
        sent.tries = 0
        self._tokens[token] = sent

    def release(self, token: bytes, now: float) -> None:
        """Waits no more for answers with this token; nothing is told of it any more."""
        sent = self._tokens.get(token) if self._tokens is not None else None
        if sent is None:
            return
        if self._queue is not None and sent in self._queue:
            self._queue.remove(sent)
        self._done(sent, now, last=True)

    def unheard(self) -> list[Any]:
        """The tags of what was sent and not acknowledged, and of what waits to be sent: maybe the peer has it not."""
        waiting = (*(self._sent or {}).values(), *(self._queue or ()))
        return [sent.tag for sent in waiting if sent.con and (sent.due is not None or sent.tries < 0)]

    def abandon(self) -> list[Any]:
        """Gives everything up that was sent and not answered, and what waits to be sent.

        Returns:
            The tags, oldest first.
        """
        given_up: dict[int, _Sent] = {}
        for sent in (
            *(self._sent or {}).values(), *(self._tokens or {}).values(), *(self._queue or ()),
        ):  # fmt: skip
            given_up[sent.id] = sent
        self._sent = self._tokens = self._queue = self._out = None
        self._flying = 0
        return [sent.tag for sent in given_up.values()]

    # --- the wire and the time ---

    def outgoing(self) -> list[bytes]:
        """What is to be sent now, in order; each message once."""
        out = self._out
        if out is None:
            return []
        self._out = None
        return out

    def deadline(self) -> float | None:
        """When `tick` must be called, if nothing happens before; None: never."""
        earliest: float | None = None
        for waiting in (self._sent.values() if self._sent else (), self._queue or ()):
            for sent in waiting:
                for at in (sent.due, sent.answer_by):
                    if at is not None and (earliest is None or at < earliest):
                        earliest = at
        return earliest

    def tick(self, now: float) -> list[TimedOut]:
        """Sends again what is due, and tells what has taken too long, or is not worth it any more."""
        over: list[TimedOut] = []
        for sent in list(self._sent.values()) if self._sent else ():
            if sent.answer_by is not None and sent.answer_by <= now:
                acknowledged = sent.due is None and sent.con
                self._done(sent, now, last=True)
                if sent.expects:
                    over.append(TimedOut(sent.tag, acknowledged))
            elif sent.due is not None and sent.due <= now:
                if sent.until is not None and sent.until <= now:
                    self._done(sent, now, last=True)
                    over.append(Expired(sent.tag))
                elif sent.tries >= self._timing.max_retransmit:
                    self._done(sent, now, last=True)
                    over.append(TimedOut(sent.tag, acknowledged=False))
                else:
                    sent.tries += 1
                    sent.timeout *= 2
                    self._wait(sent, now)
                    self._put(sent.data)
        if self._queue:
            late = [sent for sent in self._queue if sent.answer_by is not None and sent.answer_by <= now]
            for sent in late:
                self._queue.remove(sent)
                self._done(sent, now, last=True)
                over.append(TimedOut(sent.tag, acknowledged=False))
        self._expire(now)
        return over

    @property
    def waits(self) -> bool:
        """Whether anything was sent of which something is still to come."""
        return self._sent is not None

    def heard(self, now: float, *, moved: bool = False) -> bool:
        """The peer said something, so it is there. What it has missed meanwhile need not wait for a clock that was
        slowed down by its silence (RFC 7252, section 4.2, doubles it each time): that starts over.

        Args:
            moved: It is elsewhere now: whatever is not acknowledged went to where it was.

        Returns:
            Whether `deadline` may have come nearer.
        """
        nearer = False
        for sent in self._sent.values() if self._sent else ():
            if sent.due is None or sent.starts >= MAX_FRESH_STARTS or not (sent.tries or moved):
                continue
            # An acknowledgement may be on its way.
            due = now if moved else max(now, sent.at + self._timing.ack_timeout / 4)
            if due < sent.due:
                sent.due, sent.tries, sent.timeout = due, 0, self._timing.ack_timeout / 2
                sent.starts += 1
                nearer = True
        return nearer

    # --- inside ---

    def _put(self, data: bytes) -> None:
        if self._out is None:
            self._out = [data]
        else:
            self._out.append(data)

    def _take_id(self, given: int) -> int:
        last = self._last_id
        if last >= 0 and not 0 < (given - last) & 0xFFFF < 0x8000:
            given = last + 1
        self._last_id = given & 0xFFFF
        return self._last_id

    def _transmit(self, sent: _Sent, now: float) -> None:
        if self._sent is None:
            self._sent = {}
        self._sent[sent.id] = sent
        sent.tries = 0
        if sent.con:
            # RFC 7252, section 4.2: "a random duration between ACK_TIMEOUT and (ACK_TIMEOUT * ACK_RANDOM_FACTOR)".
            timing = self._timing
            sent.timeout = timing.ack_timeout * (1.0 + self._dice() * (timing.random_factor - 1.0))
            self._wait(sent, now)
            self._flying += 1
            if sent.until is not None and sent.until <= now:
                # It waited for too long: the next `tick` tells.
                sent.due = now
                return
        self._put(sent.data)

    def _wait(self, sent: _Sent, now: float) -> None:
        """It is sent now: until when its acknowledgement is waited for."""
        sent.at = now
        sent.due = now + sent.timeout
        if sent.until is not None:
            # Where it would not be sent again, nobody has to wait behind it for long.
            sent.due = min(sent.due, max(sent.until, now + self._timing.ack_timeout))

    def _landed(self, sent: _Sent, now: float) -> None:
        """It has arrived: it is not sent again, and the next may follow."""
        if sent.due is None:
            return
        sent.due = None
        self._flying -= 1
        queue = self._queue
        while queue and self._flying < self._nstart:
            self._transmit(queue.popleft(), now)
        if not queue:
            self._queue = None

    def _done(self, sent: _Sent, now: float, *, last: bool) -> None:
        """Nothing more is expected from it, unless it is not the last answer."""
        self._landed(sent, now)
        if self._sent is not None:
            self._sent.pop(sent.id, None)
        if last:
            if self._tokens is not None and self._tokens.get(sent.token) is sent:
                del self._tokens[sent.token]
        else:
            sent.answer_by = None
        self._shrink()

    def _shrink(self) -> None:
        if not self._sent:
            self._sent = None
        if not self._tokens:
            self._tokens = None
