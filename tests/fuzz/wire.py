"""What a device sends, made up: whatever the bytes, nothing but the refusals that are meant for it may be raised.

`python -m tests.fuzz.wire FOLDER tests/fuzz/corpus/wire` runs it under Atheris (`pip install atheris`) until it finds
something; new inputs go into the first folder. The committed ones are played by `test_corpus.py`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable

from wirechamber.protocols.coap.blockwise import MAX_TRANSFERS, Fetch, Receiver, Whole
from wirechamber.protocols.coap.exchange import (
    DEVICE_OS,
    MAX_SEEN,
    RFC_7252,
    Acknowledged,
    Answered,
    Busy,
    Endpoint,
    Rejected,
    Request,
)
from wirechamber.protocols.coap.message import Code, Malformed, Message, Option, Type, read_message, write_message
from wirechamber.protocols.coap.observe import Freshness, wish
from wirechamber.protocols.deviceos.cbor import NotCbor, NotJson, cbor_to_json, json_to_cbor
from wirechamber.protocols.deviceos.content import to_content, to_device
from wirechamber.protocols.deviceos.describe import (
    NotADescription,
    read_application,
    read_system,
    write_application,
    write_system,
)
from wirechamber.protocols.deviceos.messages import Publish, read_publish, read_request
from wirechamber.protocols.deviceos.metrics import NotMetrics, read_metrics
from wirechamber.protocols.deviceos.requests import (
    BadAnswer,
    read_from_cloud,
    read_function_result,
    read_time,
    read_variable,
)


def message(data: bytes) -> None:
    """One datagram, through all readers."""
    quick = read_publish(data)
    told_id = None
    found: Message | None
    try:
        found = read_message(data, strict=False)
    except Malformed as problem:
        assert quick is None
        told_id = problem.id
        found = None
    if found is None:
        assert told_id is None or told_id == data[2] << 8 | data[3]
        return
    again = write_message(found)
    assert read_message(again) == found
    told = read_request(found)
    if quick is not None:
        assert told == quick
    if isinstance(told, Publish):
        content = to_content(told.payload, told.content_format)
        for form in to_device(content.data, content.mime, [(True, False), (False, False), (False, True)]):
            assert form.payload is not None
    read_from_cloud(found)
    wish(found)
    Freshness().newer(found, 1.0)
    for read in (read_function_result, read_time):
        try:
            read(found)
        except BadAnswer:
            continue
    for kind in ("bool", "int32", "double", "string"):
        try:
            read_variable(found, kind)
        except BadAnswer:
            continue


def conversation(data: bytes) -> None:
    """An endpoint that sends and answers while it is told anything."""
    forgiving = bool(data[:1] and data[0] & 1)
    end = Endpoint(DEVICE_OS if forgiving else RFC_7252, lambda: 0.5, 2, forgiving=forgiving)
    told: Counter[object] = Counter()
    sent: list[int] = []
    now, at = 0.0, 1
    while at < len(data):
        step, size = data[at] >> 5, data[at] & 31
        chunk = data[at + 1 : at + 1 + size]
        at += 1 + size
        now += size
        try:
            if step == 0:
                kind = Type.CON if size & 1 else Type.NON
                number = end.send(
                    Message(kind, Code.GET, len(sent), end.next_token(), (), chunk),
                    len(sent),
                    now,
                    20.0 if size & 2 else None,
                )
                sent.append(number)
            elif step == 1:
                for over in end.tick(now):
                    told[over.tag] += 1
            elif step == 2 and sent:
                # What answers one of ours, more or less.
                kind = Type.ACK if size & 1 else Type.RST
                _hear(end, bytes((0x40 | kind << 4, 0)) + sent[size % len(sent)].to_bytes(2, "big"), told, now)
            elif step == 3:
                number = int.from_bytes(chunk[:2], "big")
                if end.fresh(number, now):
                    end.remember(number, chunk, now)
                else:
                    end.forget(number)
            elif step == 4:
                end.release(chunk[:1], now)
            else:
                _hear(end, chunk, told, now)
        except Busy:
            pass
        end.outgoing()
    for _ in range(5000):
        deadline = end.deadline()
        if deadline is None:
            break
        now = max(now, deadline)
        for over in end.tick(now):
            told[over.tag] += 1
        end.outgoing()
    assert end.deadline() is None
    assert end._flying == 0
    assert end._seen is None or len(end._seen) <= MAX_SEEN
    assert set(told.values()) <= {1}


def _hear(end: Endpoint, data: bytes, told: Counter[object], now: float) -> None:
    try:
        arrival = end.receive(data, now)
    except Malformed as problem:
        end.refuse(problem)
        return
    match arrival:
        case Request():
            end.reply(arrival, Code.CHANGED if len(data) & 1 else Code.EMPTY, b"", (), now)
        case Answered(tag, _) | Acknowledged(tag) | Rejected(tag):
            told[tag] += 1


def system(data: bytes) -> None:
    """A description of a system."""
    try:
        found = read_system(data)
    except NotADescription:
        return
    if data[:1] != b"{":
        assert read_system(write_system(found)) == found
    json.dumps([found.imei, found.iccid]).encode()


def application(data: bytes) -> None:
    """A description of an application."""
    try:
        found = read_application(data)
    except NotADescription:
        return
    names = read_application(write_application(found))
    assert names.functions == found.functions
    "".join((*found.functions, *found.variables)).encode()


def metrics(data: bytes) -> None:
    """Vital signs."""
    try:
        for metric in read_metrics(data):
            assert metric.name
    except NotMetrics:
        return


def cbor(data: bytes) -> None:
    """Structured data, and JSON text."""
    try:
        text = cbor_to_json(data)
    except NotCbor:
        text = data.decode("utf-8", "replace")
    try:
        back = json_to_cbor(text)
    except NotJson:
        return
    try:
        assert cbor_to_json(json_to_cbor(cbor_to_json(back))) == cbor_to_json(back)
    except NotCbor:
        # JSON may nest one deeper than what it was made from.
        return


def blocks(data: bytes) -> None:
    """Blocks of requests, and of an answer."""
    receiver, fetch = Receiver(limit=200), Fetch(limit=200)
    now, at = 0.0, 0
    while at < len(data):
        head = data[at]
        size = head & 31
        option, payload = data[at + 1 : at + 2 + (head >> 7)], data[at + 3 : at + 3 + size]
        at += 3 + size
        now += size
        for told in (
            receiver.take(head >> 5 & 3, option, payload, now),
            fetch.take(Message(Type.CON, Code.CONTENT, 1, b"", ((Option.BLOCK2, option),), payload)),
        ):
            if isinstance(told, Whole):
                assert len(told.body) <= 200
                fetch = Fetch(limit=200)
    assert len(receiver._transfers) <= MAX_TRANSFERS


TARGETS: tuple[Callable[[bytes], None], ...] = (
    message, conversation, system, application, metrics, cbor, blocks,
)  # fmt: skip


def one(data: bytes) -> None:
    """One input: its first byte says what it is for."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def main() -> None:
    """Runs under Atheris."""
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
