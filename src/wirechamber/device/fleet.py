"""Many devices at once: to see what a cloud bears, or to have something to look at."""

from __future__ import annotations

import asyncio
import math
import random
import resource
from collections import Counter
from collections.abc import Callable, Sequence

from wirechamber.device.client import Device
from wirechamber.device.errors import DeviceError, NotAcknowledged, NotConnected, Refused
from wirechamber.device.wire import Traffic

# Devices that connect at a time; a cloud bears more handshakes, one core of ours does not.
AT_ONCE = 64
# Bounds of the classes that answer times are counted in: 100 µs and up, each 5 % above the one before.
_FIRST_S = 0.0001
_STEP = math.log(1.05)
_CLASSES = 300
# Files of this process that are not sockets of devices.
_OTHER_FILES = 64


class Latencies:
    """Times, counted in classes of 5 %: small, however many there are."""

    def __init__(self) -> None:
        self._counts = [0] * _CLASSES
        self.count = 0

    def add(self, seconds: float) -> None:
        """Counts one."""
        at = int(math.log(max(seconds, _FIRST_S) / _FIRST_S) / _STEP)
        self._counts[min(at, _CLASSES - 1)] += 1
        self.count += 1

    def quantile(self, share: float) -> float | None:
        """The time, in seconds, that this share of all stayed below; None when there are none."""
        wanted = share * self.count
        seen = 0
        for at, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return _FIRST_S * math.exp(_STEP * (at + 1))
        return None


class Fleet:
    """Devices that connect and publish at a steady rate.

    Args:
        rate: Events per second of each device; 0: none.
        name: Of the events.
        data: What event `n` of device `number` says.
        subscribe: Prefixes that each device subscribes to.
        acknowledged: Called with the number of the device and the data, once an event is.
        at_once: How many devices connect at a time.

    Attributes:
        connected: Devices that are connected now.
        published, acknowledged, unanswered: Events so far; `unanswered` ones may be stored or not.
        refused: Events that the cloud said no to.
        refusals: How often it gave each reason.
        received: Events that came to devices.
        latencies: From publishing to the acknowledgement.
        ready: What all devices had used when the last of them was connected for the first time.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        *,
        rate: float,
        name: str,
        data: Callable[[int, int], str],
        subscribe: Sequence[str] = (),
        acknowledged: Callable[[int, str], None] | None = None,
        at_once: int = AT_ONCE,
    ) -> None:
        self.devices = devices
        self._at_once = at_once
        self._rate = rate
        self._name = name
        self._data = data
        self._subscribe = subscribe
        self._told = acknowledged
        self._stop = asyncio.Event()
        self.published = self.acknowledged = self.unanswered = self.refused = self.received = 0
        self.refusals: Counter[str] = Counter()
        self.latencies = Latencies()
        self.ready: Traffic | None = None

    @property
    def connected(self) -> int:
        """Devices that are connected now."""
        return sum(device.connected for device in self.devices)

    @property
    def handshakes(self) -> int:
        """Handshakes of all devices."""
        return sum(device.handshakes for device in self.devices)

    @property
    def traffic(self) -> Traffic:
        """Of all devices."""
        total = Traffic()
        for device in self.devices:
            total = total.plus(device.traffic)
        return total

    def bytes_per_event(self) -> float | None:
        """What an acknowledged event took, everything included but the beginning; None before there is one."""
        if self.ready is None or not self.acknowledged:
            return None
        return self.traffic.since(self.ready).total / self.acknowledged

    async def open(self) -> None:
        """Connects all devices.

        Raises:
            DeviceError: One of them is not allowed.
        """
        gate = asyncio.Semaphore(self._at_once)
        async with asyncio.TaskGroup() as group:
            for device in self.devices:
                group.create_task(self._open(device, gate))
        self.ready = self.traffic

    async def run(self, duration: float | None = None) -> None:
        """Publishes for `duration` seconds, or until `stop`; returns when every event was answered or given up."""
        async with asyncio.TaskGroup() as group:
            if duration is not None:
                asyncio.get_running_loop().call_later(duration, self._stop.set)
            if self._rate:
                for number, device in enumerate(self.devices):
                    group.create_task(self._publish(number, device))
            await self._stop.wait()

    def stop(self) -> None:
        """Publishes nothing more."""
        self._stop.set()

    async def stopped(self) -> None:
        """Returns once `stop` was called, or the time is over."""
        await self._stop.wait()

    async def close(self) -> None:
        """Closes all devices."""
        await asyncio.gather(*(device.close() for device in self.devices), return_exceptions=True)

    async def _open(self, device: Device, gate: asyncio.Semaphore) -> None:
        async with gate:
            for prefix in self._subscribe:
                await device.subscribe(prefix, self._came, binary=True)
            while True:
                try:
                    await device.open()
                    await device.settle()
                    return
                except NotConnected:
                    await device.close()

    def _came(self, name: str, data: object) -> None:
        self.received += 1

    async def _publish(self, number: int, device: Device) -> None:
        loop = asyncio.get_running_loop()
        pause = 1.0 / self._rate
        due = loop.time() + random.random() * pause  # noqa: S311
        count = 0
        while await self._waited(due):
            data = self._data(number, count)
            count += 1
            began = loop.time()
            self.published += 1
            try:
                await device.publish(self._name, data)
            except Refused as problem:
                self.refused += 1
                self.refusals[problem.reason] += 1
                due = max(due, loop.time() + (problem.seconds or 1))
            except (NotAcknowledged, NotConnected):
                self.unanswered += 1
            else:
                self.acknowledged += 1
                self.latencies.add(loop.time() - began)
                if self._told is not None:
                    self._told(number, data)
            # What could not be published in time is left out rather than made up for in a burst.
            due += pause * max(1, math.ceil((loop.time() - due) / pause))

    async def _waited(self, until: float) -> bool:
        """Waits; False when it is over."""
        try:
            async with asyncio.timeout_at(until):
                await self._stop.wait()
        except TimeoutError:
            return True
        return False


def allow_sockets(count: int) -> None:
    """Lets this process open a socket for each device.

    Raises:
        DeviceError: The system does not let it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise DeviceError(f"{count} devices need {needed} open files, and the system allows {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
