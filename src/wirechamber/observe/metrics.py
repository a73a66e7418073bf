"""Metrics for Prometheus, with names by its conventions.

What is counted on a hot path is a plain number here, and what a part counts itself is read from it; both become
Prometheus metrics only when somebody asks (`render`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from wirechamber.observe import watchdog

# Upper bounds of the buckets of request durations, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class StreamCounts(Protocol):
    """What is counted of event streams."""

    @property
    def open(self) -> int: ...  # noqa: D102
    @property
    def catching_up(self) -> int: ...  # noqa: D102
    @property
    def sent(self) -> int: ...  # noqa: D102
    @property
    def let_go(self) -> int: ...  # noqa: D102


class DeliveryCounts(Protocol):
    """What the delivery side can tell."""

    @property
    def waiting(self) -> int: ...  # noqa: D102
    @property
    def running(self) -> int: ...  # noqa: D102
    @property
    def lag(self) -> int: ...  # noqa: D102
    @property
    def crowded_out(self) -> int: ...  # noqa: D102
    @property
    def outbound(self) -> Mapping[str, int]: ...  # noqa: D102


class LinkCounts(Protocol):
    """What the gateway can tell of devices' links."""

    @property
    def online(self) -> int: ...  # noqa: D102
    @property
    def asleep(self) -> int: ...  # noqa: D102
    @property
    def sessions(self) -> int: ...  # noqa: D102
    @property
    def handshaking(self) -> int: ...  # noqa: D102
    @property
    def handshakes(self) -> int: ...  # noqa: D102
    @property
    def accepted(self) -> int: ...  # noqa: D102
    @property
    def delivered(self) -> int: ...  # noqa: D102

    def refusals(self) -> Mapping[tuple[str, str], int]:
        """What was refused or dropped: by part and reason."""


class LoopCounts(Protocol):
    """What the loop's watchdog measures."""

    lags: list[int]
    late_s: float


class TaskCounts(Protocol):
    """How background tasks ended."""

    restarts: Counter[str]
    errors: Counter[str]


class ClockCounts(Protocol):
    """What the clock tells of itself."""

    steps: int

    @property
    def doubt_s(self) -> float: ...  # noqa: D102


class Metrics(Collector):
    """Everything that is counted in one cloud."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._durations: dict[str, list[float]] = {}
        self._events: Counter[str] = Counter()
        self._deliveries: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[str] = Counter()
        self._too_deep = 0
        self._streams: StreamCounts | None = None
        self._delivery: DeliveryCounts | None = None
        self._links: LinkCounts | None = None
        self._loop: LoopCounts | None = None
        self._tasks: TaskCounts | None = None
        self._clock: ClockCounts | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(namespace="wirechamber", registry=self._registry)
        self._started = time.time()

    # --- what parts report ---

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """An API request was answered; `route` is the pattern, never the path."""
        self._requests[method, route, status] += 1
        durations = self._durations.get(route)
        if durations is None:
            # One number per bucket, the sum, and the count.
            durations = self._durations[route] = [0.0] * (len(BUCKETS) + 2)
        for index, bound in enumerate(BUCKETS):
            if seconds <= bound:
                durations[index] += 1
                break
        durations[-2] += seconds
        durations[-1] += 1

    def event(self, origin: str) -> None:
        """An event was accepted."""
        self._events[origin] += 1

    def delivery(self, kind: str, outcome: str) -> None:
        """An attempt ended: delivered, retried, dead or paused."""
        self._deliveries[kind, outcome] += 1

    def refused(self, reason: str) -> None:
        """Input was refused; reasons are few and fixed, such as the `error` code of the answer."""
        self._refused[reason] += 1

    def depth_exceeded(self) -> None:
        """An event was too deep in a chain of causes to trigger anything."""
        self._too_deep += 1

    def watch_clock(self, clock: ClockCounts) -> None:
        """Reads what the clock recognised."""
        self._clock = clock

    def watch_streams(self, streams: StreamCounts) -> None:
        """Reads the streams' own counts."""
        self._streams = streams

    def watch_delivery(self, delivery: DeliveryCounts) -> None:
        """Reads the delivery side's own counts."""
        self._delivery = delivery

    def watch_links(self, links: LinkCounts) -> None:
        """Reads the gateway's own counts."""
        self._links = links

    def watch_loop(self, loop: LoopCounts, tasks: TaskCounts) -> None:
        """Reads how late the event loop is, and how its tasks ended."""
        self._loop = loop
        self._tasks = tasks

    # --- what Prometheus reads ---

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: names are in `collect`."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        yield _counter("http_requests", "API requests answered.", ("method", "route", "status"), self._requests)
        yield self._histogram()
        events = {(key,): n for key, n in self._events.items()}
        links = self._links
        if links is not None:
            events["device",] = links.accepted
        yield _counter("events", "Events accepted.", ("origin",), events)
        yield _counter("deliveries", "Attempts by what followed.", ("kind", "outcome"), self._deliveries)
        refused = {(key,): n for key, n in self._refused.items()}
        yield _counter("input_refused", "Input that was refused.", ("reason",), refused)
        yield _counter("depth_exceeded", "Events too deep to trigger anything.", (), {(): self._too_deep})
        yield _gauge("start_time_seconds", "When this process started, Unix time.", lambda: self._started)
        if self._loop is not None:
            yield _lags(self._loop)
        if self._tasks is not None:
            restarts = {(name,): n for name, n in self._tasks.restarts.items()}
            yield _counter("part_restarts", "Loops started again after an error.", ("part",), restarts)
            errors = {(name,): n for name, n in self._tasks.errors.items()}
            yield _counter("task_errors", "Short tasks that ended by an error.", ("task",), errors)
        streams, delivery = self._streams, self._delivery
        clock = self._clock
        if clock is not None:
            yield _counter("clock_steps", "Times that the machine's clock was set.", (), {(): clock.steps})
            text = "By how much the clock was set, while that is not believed."
            yield _gauge("clock_doubt_seconds", text, lambda: clock.doubt_s)
        if streams is not None:
            yield _gauge("streams_open", "Event streams open.", lambda: streams.open)
            text = "Event streams that have not come to the newest event yet."
            yield _gauge("streams_catching_up", text, lambda: streams.catching_up)
            yield _counter("stream_events", "Events written to streams.", (), {(): streams.sent})
            yield _counter("streams_let_go", "Streams ended because their reader was slow.", (), {(): streams.let_go})
        if links is not None:
            yield _gauge("devices_online", "Devices that are online.", lambda: links.online)
            yield _gauge("devices_asleep", "Devices that listen after their next word only.", lambda: links.asleep)
            yield _gauge("device_sessions", "Links of devices that are known, online or not.", lambda: links.sessions)
            yield _gauge("device_handshakes_open", "Handshakes under way.", lambda: links.handshaking)
            yield _counter("device_handshakes", "Handshakes completed.", (), {(): links.handshakes})
            yield _counter("device_events", "Events that devices acknowledged.", (), {(): links.delivered})
            refusals = links.refusals()
            yield _counter("device_input_refused", "Input from devices refused.", ("part", "reason"), refusals)
        if delivery is not None:
            yield _gauge("deliveries_waiting", "Deliveries waiting in memory.", lambda: delivery.waiting)
            crowded_out = {(): delivery.crowded_out}
            yield _counter("attempts_crowded_out", "Attempts, or their bodies, removed for a bound.", (), crowded_out)
            yield _gauge("deliveries_running", "Deliveries being attempted.", lambda: delivery.running)
            yield _gauge("dispatch_lag_positions", "Positions that dispatch is behind.", lambda: delivery.lag)
            befell = {(what,): n for what, n in delivery.outbound.items()}
            yield _counter("outbound_incidents", "Outgoing requests that something befell.", ("what",), befell)

    def _histogram(self) -> Metric:
        family = HistogramMetricFamily(
            "wirechamber_http_request_duration_seconds", "Time to answer an API request.", labels=("route",)
        )
        for route, numbers in self._durations.items():
            *buckets, total, count = numbers
            family.add_metric((route,), [*_cumulated(BUCKETS, buckets), ("+Inf", count)], total)
        return family


def _lags(loop: LoopCounts) -> Metric:
    family = HistogramMetricFamily("wirechamber_loop_lag_seconds", "How late the event loop was, at each beat.")
    *within, _ = loop.lags
    family.add_metric((), [*_cumulated(watchdog.BUCKETS, within), ("+Inf", sum(loop.lags))], loop.late_s)
    return family


def _cumulated(bounds: Sequence[float], numbers: Sequence[float]) -> list[tuple[str, float]]:
    return [(str(bound), total) for bound, total in zip(bounds, accumulate(numbers), strict=True)]


def _counter(name: str, text: str, labels: tuple[str, ...], values: object) -> Metric:
    family = CounterMetricFamily(f"wirechamber_{name}", text, labels=labels)
    for key, number in dict(values).items():  # type: ignore[call-overload]
        family.add_metric(tuple(map(str, key)), number)
    return family


def _gauge(name: str, text: str, value: Callable[[], float]) -> Metric:
    return GaugeMetricFamily(f"wirechamber_{name}", text, value=value())
