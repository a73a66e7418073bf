"""What is the same for every target that is reached by HTTP: where it is, and what its answers mean."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from wirechamber.integrations.base import Outcome, Refused, Response, TryLater

# Not the target's last word: it is busy, or it may have been a matter of time.
RETRIED = frozenset((408, 425, 429))


def outcome_by_status(response: Response, host: str, now: int) -> Outcome | None:
    """What a status other than 2xx means; None for a success.

    Args:
        host: As the error's text names it.
        now: Milliseconds since 1970, for a Retry-After that is a date.
    """
    status = response.status
    if 200 <= status < 300:
        return None
    why = f"error status {status} from {host}"
    if status in RETRIED or status >= 500:
        return TryLater(why, retry_after(response.header("Retry-After"), now))
    return Refused(why)


def retry_after(value: str | None, now: int) -> float | None:
    """The seconds that a Retry-After header asks for (RFC 9110, section 10.2.3); None when it says nothing usable."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, moment.timestamp() - now / 1000)
    except (ValueError, TypeError, OverflowError):
        return None


def clock_apart(response: Response, now: int) -> float:
    """How many seconds the target's clock is ahead of ours, by its Date header; 0.0 when it says nothing usable.

    Args:
        now: Milliseconds since 1970, when the plan began: the answer may have taken some seconds.
    """
    date = response.header("Date")
    try:
        return 0.0 if date is None else parsedate_to_datetime(date).timestamp() - now / 1000
    except (ValueError, TypeError, OverflowError):
        return 0.0


def clock_words(apart: float) -> str:
    """What is wrong with our clock, and what to do."""
    seconds = abs(apart)
    size, unit = next(
        (
            (int(seconds / each), name)
            for each, name in ((86_400, "day"), (3600, "hour"), (60, "minute"))
            if seconds >= each
        ),
        (int(seconds), "second"),
    )
    where = f"{size} {unit}{'s' if size != 1 else ''} {'behind' if apart > 0 else 'ahead of'}"
    return f"the clock of this server is {where} the service's; set it right, best by NTP"


def host_and_port(url: str) -> tuple[str, str]:
    """The host of a URL, and `host:port` as lanes are named."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return host, f"{host}:{parts.port or (80 if parts.scheme == 'http' else 443)}"
