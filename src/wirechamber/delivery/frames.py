"""Whether an answer over HTTP/2 came to its end, or its stream was reset by the target with the error "none".

Such a reset is proper once the answer is whole (RFC 9113, section 8.1), and libcurl takes it for the end at any time:
half an answer without a `Content-Length` would be a success. It does tell of each frame when it is asked to trace, so
the frames that end streams are noted here. Where a libcurl can't trace, or says it otherwise, nothing is noted and
everything is as libcurl has it.
"""

from __future__ import annotations

import ctypes
import re
from functools import cache
from typing import Any

import pycurl

# One entry for each stream that ended and whose request has not been collected; far more than can be under way.
MAX_ENDS = 10_000
# The kinds of text that libcurl hands to a debug function; the others are data.
TEXT = 0
_LINE = re.compile(
    rb"\[HTTP/2\] \[(\d+)\] (?:(OPENED)|<- FRAME\[(?:(?:DATA|HEADERS), [^\]]*(eos=1)|(RST_STREAM), [^\]]*error=0\b))"
)


@cache
def traced() -> bool:
    """Asks libcurl to tell of HTTP/2's frames, to those handles that want to hear; whether it does."""
    try:
        library = ctypes.CDLL(getattr(pycurl, "_pycurl", pycurl).__file__)
        return bool(library.curl_global_trace(b"http/2") == 0)
    except (OSError, AttributeError, TypeError):
        return False


class Frames:
    """The ends of streams, by the connection's local port and the stream's number.

    What is said of a stream is said to whichever request happens to move the connection, so it is noted first and
    looked into when libcurl has returned.
    """

    def __init__(self) -> None:
        self._heard: list[tuple[pycurl.Curl, int, bool | None]] = []
        self._whole: dict[tuple[int, int], bool] = {}

    def hear(self, handle: pycurl.Curl, text: bytes) -> int | None:
        """A line of the trace; returns the stream that the handle's own request has opened, if that is what it says."""
        found = _LINE.match(text)
        if found is None:
            return None
        stream = int(found[1])
        opened = found[2] is not None
        self._heard.append((handle, stream, None if opened else found[3] is not None))
        return stream if opened else None

    def settle(self) -> None:
        """Looks into what was heard."""
        for handle, stream, whole in self._heard:
            key = _port(handle), stream
            if whole is None:
                # An earlier connection may have had the same port.
                self._whole.pop(key, None)
            else:
                self._whole.setdefault(key, whole)
        self._heard.clear()
        while len(self._whole) > MAX_ENDS:
            del self._whole[next(iter(self._whole))]

    def broke_off(self, handle: pycurl.Curl, stream: int) -> bool:
        """Whether the stream of a request that libcurl takes for answered was reset before the answer's end."""
        return not self._whole.pop((_port(handle), stream), True)


def _port(handle: Any) -> int:
    return int(handle.getinfo(pycurl.LOCAL_PORT))
