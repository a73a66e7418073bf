"""Structured logs: readable on a terminal, JSON lines otherwise, and never a secret in them."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import MutableMapping
from typing import Any

import structlog

# Texts that `Seldom` tells apart, unless it is told otherwise.
MAX_TEXTS = 256
MASK = "[[SENSITIVE]]"
_SECRET_KEYS = frozenset(
    (
        "authorization",
        "password",
        "token",
        "access_token",
        "refresh_token",
        "secret",
        "secrets",
        "client_secret",
        "cookie",
    )
)
_IN_TEXT = re.compile(r"(?i)(access_token=|bearer )[^\s&\"']+")


class Seldom:
    """Warnings of something that may go on for long: the first at once, then one a while, with how many there were.

    Args:
        every_s: Seconds between two warnings of the same text, about the same.
        texts: How many are told apart; the one that was told first is forgotten.
    """

    def __init__(self, log: Any, every_s: float = 10.0, texts: int = MAX_TEXTS) -> None:
        self._log = log
        self._every_s = every_s
        self._texts = texts
        self._next: dict[tuple[str, str], float] = {}
        self._kept_back: dict[tuple[str, str], int] = {}

    def warning(self, event: str, *, why: str, about: str = "", **more: Any) -> None:
        """Logs it, or counts it for the next time.

        Args:
            about: What it is about: each has a warning of its own.
        """
        now = time.monotonic()
        key = why, about
        if now < self._next.get(key, 0.0):
            self._kept_back[key] = self._kept_back.get(key, 0) + 1
            return
        self._next.pop(key, None)
        if len(self._next) >= self._texts:
            oldest = next(iter(self._next))
            del self._next[oldest]
            self._kept_back.pop(oldest, None)
        self._next[key] = now + self._every_s
        kept_back = self._kept_back.pop(key, 0)
        self._log.warning(event, why=why, **more, **({"times_before": kept_back} if kept_back else {}))


class Sparing:
    """Warnings of what anybody can cause: so many, and how many were left out with the next one.

    Args:
        burst: How many at once.
        rate: How many per second after that.
    """

    def __init__(self, log: Any, burst: float, rate: float) -> None:
        self._log = log
        self._burst = burst
        self._rate = rate
        self._left = burst
        self._at = time.monotonic()
        self._left_out = 0

    def warning(self, event: str, **more: Any) -> None:
        """Logs it, or counts it for the next time."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            self._left_out += 1
            return
        self._left -= 1.0
        left_out, self._left_out = self._left_out, 0
        self._log.warning(event, **more, **({"others_before": left_out} if left_out else {}))


def configure(level: str, style: str) -> None:
    """Sets logging up for this process.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        style: `console`, `json`, or `auto` for console on a terminal.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    readable = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    renderer: structlog.typing.Processor
    if readable:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    # Its access log would hold tokens of the query; requests are counted in the metrics instead.
    logging.getLogger("aiohttp.access").disabled = True


def hide_secrets(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Masks what is secret by its key, and tokens in texts."""
    for key, value in entry.items():
        if key.lower() in _SECRET_KEYS:
            entry[key] = MASK
        elif isinstance(value, str) and ("=" in value or " " in value):
            entry[key] = _IN_TEXT.sub(rf"\1{MASK}", value)
    return entry
