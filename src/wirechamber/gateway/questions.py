"""What this cloud asks of a device, and the answers: the gateway's side of the switchboard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from wirechamber.clock import Clock
from wirechamber.errors import BadInput, DeviceUnreachable
from wirechamber.gateway.link import Link
from wirechamber.gateway.roster import Roster
from wirechamber.model.generations import ROOM_FOR_ANSWER
from wirechamber.protocols.coap.exchange import Busy, TooLong
from wirechamber.protocols.coap.message import Code, Message, Type, code_text
from wirechamber.protocols.deviceos.requests import (
    function_call,
    read_function_result,
    read_variable,
    signal,
    variable_request,
)
from wirechamber.services.functions import check_argument
from wirechamber.switchboard.base import (
    CallFunction,
    Describe,
    Described,
    Leave,
    NotThere,
    Offline,
    Ping,
    Question,
    ReadVariable,
    Signal,
    Value,
)

# cloud-api.md, section 3: a device that is believed to be online gets this long.
ANSWER_S = 30.0
PING_S = 15.0
# One that did not answer the last time gets so long, as often as it is asked, until it says something.
DOUBTFUL_S = 5.0
# A device describes itself at once when it has connected; 5.9 has taken 2.2 s.
DESCRIBE_S = 10.0
# So long is waited for that before it is asked for something that it has told before.
SETTLED_S = 3.0
# Questions that wait for the next word of a device that sleeps.
MAX_WAITING = 16


class Asked:
    """A question that was put to a device."""

    __slots__ = ("future", "question")

    def __init__(self, question: Question, future: asyncio.Future[Value]) -> None:
        self.question = question
        self.future = future


class Unheard(DeviceUnreachable):
    """The link ended before the device acknowledged the question: it never had it, as far as anybody can tell."""


class Questions:
    """Puts questions to devices.

    Args:
        ready: Makes a link that this process only knows to exist ready to send; raises Offline if that can't be.
        flush: Sends what a link's exchanges have to send.
        discard: Ends a device's session, so that it comes back with a new one.
        silent: Called with a link that left a question unanswered and said nothing else meanwhile.
        measure: Asks a device for its metrics; whether they were stored.
    """

    def __init__(
        self,
        roster: Roster,
        clock: Clock,
        *,
        ready: Callable[[Link], Awaitable[None]],
        flush: Callable[[Link], None],
        discard: Callable[[Link], None],
        silent: Callable[[Link], None],
        measure: Callable[[Link, float], Awaitable[bool]],
    ) -> None:
        self._roster = roster
        self._clock = clock
        self._ready = ready
        self._flush = flush
        self._discard = discard
        self._silent = silent
        self._measure = measure
        # By device, which may have another link when it is back.
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    async def ask(self, device: str, question: Question) -> Value:
        """As `Holder.ask`."""
        asked_of = self._roster.get(device)
        try:
            return await self._ask(device, question)
        except Unheard:
            # It has begun a new session, and was asked in the old one before that was known.
            link = self._roster.get(device)
            if link is None or link is asked_of or not link.online:
                raise
        return await self._ask(device, question)

    async def _ask(self, device: str, question: Question) -> Value:
        link = self._roster.get(device)
        if link is None or not (link.online or isinstance(question, Leave) or self._worth_a_try(link)):
            raise Offline("the device is offline", error="timed out")
        if isinstance(question, Leave):
            self._discard(link)
            return True
        within = PING_S if isinstance(question, Ping) else ANSWER_S
        if not link.online:
            within = DOUBTFUL_S
        if link.asleep:
            link = await self._next_word(device, within)
        if isinstance(question, Described):
            await _described(link, DESCRIBE_S)
            return True
        if isinstance(question, CallFunction | ReadVariable):
            # Firmware may connect before its application has registered anything, and answers no call until then.
            await _described(link, SETTLED_S)
        await self._ready(link)
        endpoint = link.endpoint
        if endpoint is None or link.closed:
            raise Offline("the device is offline", error="timed out")
        if isinstance(question, Describe):
            return await self._measured(link, within)
        _check(question, link)
        asked = Asked(question, asyncio.get_running_loop().create_future())
        try:
            message = _message(question, endpoint.next_token(), link.next_id())
            answered = None if isinstance(question, Ping) else within
            endpoint.send(message, asked, self._clock.monotonic(), answered, room=link.room(ROOM_FOR_ANSWER))
        except TooLong as problem:
            raise BadInput(
                f"this device takes {problem.room} bytes in one message, and the call would have {problem.size}"
            ) from None
        except Busy:
            raise DeviceUnreachable("the device has too much to answer already", error="timed out") from None
        since = self._clock.monotonic()
        self._flush(link)
        try:
            async with asyncio.timeout(within):
                return await asked.future
        except TimeoutError:
            if link.heard <= since and not link.asleep:
                self._silent(link)
            raise DeviceUnreachable("the device did not answer in time", error="timed out") from None
        finally:
            if message.token:
                endpoint.release(message.token, self._clock.monotonic())

    def _worth_a_try(self, link: Link) -> bool:
        """Whether a device that left a question unanswered may be there all the same: it would not have been expected
        to say something yet."""
        return link.doubtful and self._clock.monotonic() - link.heard < link.idle_limit

    async def _measured(self, link: Link, within: float) -> bool:
        since = self._clock.monotonic()
        try:
            if await self._measure(link, within):
                return True
        except TimeoutError:
            if link.heard <= since and not link.asleep:
                self._silent(link)
            raise DeviceUnreachable("the device did not answer in time", error="timed out") from None
        raise DeviceUnreachable("the device told no metrics that can be read", error="timed out")

    async def _next_word(self, device: str, within: float) -> Link:
        """Waits until a device that sleeps says something, as long as whoever asks would wait for the answer."""
        waiting = self._waiting.setdefault(device, [])
        if len(waiting) >= MAX_WAITING:
            raise DeviceUnreachable("the device sleeps, and enough waits for its next word", error="timed out")
        word: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(word)
        try:
            async with asyncio.timeout(within):
                await word
        except TimeoutError:
            raise DeviceUnreachable(
                "the device is in queue mode: it listens only when it has said something, and it has not yet; "
                "`expected_by` of the device tells when it says something at the latest",
                error="timed out",
            ) from None
        finally:
            waiting.remove(word)
            if not waiting:
                self._waiting.pop(device, None)
        link = self._roster.get(device)
        if link is None or not link.online:
            raise Offline("the device is offline", error="timed out")
        return link

    # --- what comes back ---

    def heard(self, link: Link) -> None:
        """A device that was away, or slept, said something."""
        device = link.device
        for word in self._waiting.get("" if device is None else device.id, ()):
            if not word.done():
                word.set_result(None)

    def answered(self, asked: Asked, message: Message) -> None:
        """A device answered."""
        if asked.future.done():
            return
        try:
            asked.future.set_result(_value(asked.question, message))
        except NotThere as problem:
            asked.future.set_exception(problem)
        except ValueError as problem:
            asked.future.set_exception(DeviceUnreachable(f"the device's answer can't be read: {problem}"))

    def acknowledged(self, asked: Asked) -> None:
        """It has arrived, and that was all that was asked."""
        if not asked.future.done():
            asked.future.set_result(True)

    def rejected(self, asked: Asked) -> None:
        """The device sent RST: to a ping that is the answer (RFC 7252, section 4.3)."""
        if asked.future.done():
            return
        if isinstance(asked.question, Ping):
            asked.future.set_result(True)
        else:
            asked.future.set_exception(DeviceUnreachable("the device can't make anything of it", error="timed out"))

    def unanswered(self, asked: Asked, *, unheard: bool = False) -> None:
        """The device did not answer in time, or is gone.

        Args:
            unheard: It is gone, and had not acknowledged the question.
        """
        if not asked.future.done():
            text = "the device did not answer in time"
            asked.future.set_exception(Unheard(text, error="timed out") if unheard else TimeoutError())


async def _described(link: Link, within: float) -> None:
    """Returns when the device has described itself since it connected, or has had the time for it."""
    describing = link.describing
    if describing is None:
        return
    try:
        async with asyncio.timeout(within):
            await asyncio.shield(describing)
    except TimeoutError:
        # It relies on what it told before: nobody waits for it a second time.
        if link.describing is describing:
            link.describing = None


def _check(question: Question, link: Link) -> None:
    """Whether the device takes so long an argument; the registry may not know yet what it told."""
    if isinstance(question, CallFunction):
        check_argument(question.argument, link.takes)


def _message(question: Question, token: bytes, id: int) -> Message:
    match question:
        case CallFunction(name, argument):
            return function_call(name, argument, id, token)
        case ReadVariable(name):
            return variable_request(name, id, token)
        case Signal(on):
            return signal(on, id, token)
        case _:
            return Message(Type.CON, Code.EMPTY, id)


def _value(question: Question, message: Message) -> Value:
    """The answer's value.

    Raises:
        NotThere: The device has no such thing.
        ValueError: The answer makes no sense.
    """
    if message.code == Code.NOT_FOUND:
        raise NotThere("the device has no such function or variable")
    if message.code >> 5 != 2:
        raise ValueError(f"code {code_text(message.code)}")
    match question:
        case CallFunction():
            return read_function_result(message)
        case ReadVariable(type=kind):
            return read_variable(message, kind)
        case _:
            return True
