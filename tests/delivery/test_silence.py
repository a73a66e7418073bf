"""Connections that were kept open and went silent: what went out on them goes out again on a new one."""

from __future__ import annotations

import asyncio

from tests.delivery.test_outbound import LOOPBACK, read_request, serving
from tests.standins import h2
from wirechamber.clock import SystemClock
from wirechamber.delivery.guard import Guard
from wirechamber.delivery.outbound import Outbound
from wirechamber.integrations.base import NoResponse, Request, Response

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TIMEOUT_S = 60.0


class Forgetful:
    """A target whose connections answer so many requests, and then nothing any more, without being closed.

    Args:
        each: Requests that each connection answers.
        patient: From this connection on, they answer all.
    """

    def __init__(self, each: int, patient: int = 1_000) -> None:
        self.each = each
        self.patient = patient
        self.connections = 0
        self.bodies: list[bytes] = []

    def answers(self, connection: int, number: int) -> bool:
        return connection >= self.patient or number < self.each

    async def http1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        number = 0
        while True:
            _, body = await read_request(reader)
            self.bodies.append(body)
            if self.answers(connection, number):
                writer.write(OK)
            number += 1

    async def http2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        await h2.begin(reader, writer)
        number = 0
        while True:
            stream = await h2.request(reader, writer)
            if self.answers(connection, number):
                writer.write(h2.headers(stream) + h2.frame(h2.DATA, stream, b"ok", h2.END_STREAM))
            number += 1


def test_a_silent_connection_costs_a_moment_and_the_request_goes_out_again() -> None:
    async def scenario() -> None:
        target = Forgetful(1)
        async with serving(target.http1) as port:
            outbound = Outbound(Guard(LOOPBACK), clock=SystemClock(), timeout_s=TIMEOUT_S, silence_s=0.2)
            for number in range(3):
                request = Request("POST", f"http://127.0.0.1:{port}/", (), b"%d" % number)
                done = await outbound.exchange(request)
                assert isinstance(done.reply, Response), done.reply
                assert done.duration_ms < TIMEOUT_S * 1000 / 2
            assert target.bodies == [b"0", b"1", b"1", b"2", b"2"]
            assert outbound.counted["sent_again"] == 2
            await outbound.close(0.1)

    asyncio.run(scenario())


def test_after_one_was_silent_no_other_old_one_is_used() -> None:
    async def scenario() -> None:
        target = Forgetful(1, patient=6)
        async with serving(target.http1) as port:
            outbound = Outbound(Guard(LOOPBACK), clock=SystemClock(), timeout_s=TIMEOUT_S, silence_s=1.2)
            request = Request("POST", f"http://127.0.0.1:{port}/", (), b"")
            # Five connections are kept, and all of them have gone silent.
            await asyncio.gather(*(outbound.exchange(request) for _ in range(5)))
            assert target.connections == 5
            for _ in range(5):
                assert isinstance((await outbound.exchange(request)).reply, Response)
            assert outbound.counted["sent_again"] == 1
            await outbound.close(0.1)

    asyncio.run(scenario())


def test_the_same_over_http_2() -> None:
    async def scenario() -> None:
        target = Forgetful(1, patient=2)
        async with serving(target.http2, h2.tls()) as port:
            outbound = Outbound(Guard(LOOPBACK), clock=SystemClock(), timeout_s=TIMEOUT_S, silence_s=1.2)
            request = Request("GET", f"https://127.0.0.1:{port}/", verify_tls=False)
            for _ in range(4):
                assert isinstance((await outbound.exchange(request)).reply, Response)
            assert outbound.counted["sent_again"] == 1
            assert target.connections == 2
            await outbound.close(0.1)

    asyncio.run(scenario())


def test_a_target_that_takes_its_time_is_not_asked_twice() -> None:
    """It was seen to be slow, on a connection that was new."""

    async def scenario() -> None:
        asked: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                _, body = await read_request(reader)
                asked.append(body)
                await asyncio.sleep(0.4)
                writer.write(OK)

        async with serving(serve) as port:
            outbound = Outbound(Guard(LOOPBACK), clock=SystemClock(), timeout_s=TIMEOUT_S, silence_s=0.3)
            for number in range(3):
                request = Request("POST", f"http://127.0.0.1:{port}/", (), b"%d" % number)
                assert isinstance((await outbound.exchange(request)).reply, Response)
            assert asked == [b"0", b"1", b"2"]
            await outbound.close(0.1)

    asyncio.run(scenario())


def test_one_that_stays_silent_ends_with_its_time_out() -> None:
    async def scenario() -> None:
        target = Forgetful(1, patient=1_000)
        target.answers = lambda connection, number: connection == 1 and number == 0  # type: ignore[method-assign]
        async with serving(target.http1) as port:
            outbound = Outbound(Guard(LOOPBACK), clock=SystemClock(), timeout_s=1.0, silence_s=0.2)
            request = Request("POST", f"http://127.0.0.1:{port}/", (), b"x")
            assert isinstance((await outbound.exchange(request)).reply, Response)
            last = await outbound.exchange(request)
            assert last.reply == NoResponse("ESOCKETTIMEDOUT")
            assert last.duration_ms < 10_000
            # The handle is as before: a third one has its whole time.
            target.answers = lambda connection, number: True  # type: ignore[method-assign]
            assert isinstance((await outbound.exchange(request)).reply, Response)
            await outbound.close(0.1)

    asyncio.run(scenario())
