"""The least that a Python program can do to send webhooks: a pycurl multi loop, nothing stored, nothing rendered.

Prints the CPU seconds of one POST.
"""

from __future__ import annotations

import sys
import time

import pycurl

BODY = b'{"reading":"t=%d","device":"0123456789abcdef01234567"}'


def main() -> None:
    port, count, at_a_time = map(int, sys.argv[1:])
    multi = pycurl.CurlMulti()
    free = []
    for _ in range(at_a_time):
        handle = pycurl.Curl()
        handle.setopt(pycurl.URL, f"http://127.0.0.1:{port}/in")
        handle.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Accept:"])
        handle.setopt(pycurl.WRITEFUNCTION, lambda data: None)
        free.append(handle)
    sent = done = 0
    started = time.process_time()
    while done < count:
        while free and sent < count:
            handle = free.pop()
            handle.setopt(pycurl.POSTFIELDS, BODY % time.perf_counter_ns())
            multi.add_handle(handle)
            sent += 1
        while multi.perform()[0] == pycurl.E_CALL_MULTI_PERFORM:
            pass
        while True:
            queued, succeeded, failed = multi.info_read()
            assert not failed, failed
            for handle in succeeded:
                multi.remove_handle(handle)
                free.append(handle)
                done += 1
            if not queued:
                break
        if not free:
            multi.select(1.0)
    print((time.process_time() - started) / count)


main()
