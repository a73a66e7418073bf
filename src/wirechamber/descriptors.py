"""How many files and connections this process may have open, and how many of them streams may take."""

from __future__ import annotations

import resource
from contextlib import suppress

# More is of no use, and some containers allow a thousand million.
ENOUGH = 262_144
# Kept free of streams: databases, 256 outgoing requests, 512 connections kept for the next one, and API requests.
RESERVED = 1_024


def raise_limit() -> None:
    """Allows as many as the system lets this process have: the usual 1,024 is what one busy address takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def for_streams() -> int:
    """How many streams may be open, so that everything else still has room."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = ENOUGH if soft == resource.RLIM_INFINITY else soft
    return limit - min(RESERVED, limit // 2)


def for_requests() -> int:
    """How many connections that are no streams may be open beside as many streams as there may be."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = ENOUGH if soft == resource.RLIM_INFINITY else soft
    return min(RESERVED, limit // 2) // 8
