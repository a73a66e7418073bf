"""What each generation of firmware takes (docs/firmware.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from wirechamber.model.generations import (
    GENERATIONS,
    PLAIN,
    ROOM_FOR_ACK,
    ROOM_FOR_ANSWER,
    UPTO_0_7,
    UPTO_2,
    UPTO_3,
    UPTO_5,
    UPTO_6_1,
    UPTO_6_2,
    Generation,
    Takes,
    takes,
)
from wirechamber.model.links import Greeting
from wirechamber.protocols.legacy_tcp import wire_length

PAGE = Path(__file__).parents[2] / "docs" / "firmware.md"


@pytest.mark.parametrize(
    ("flags", "version", "generation"),
    [
        (0x01, None, UPTO_0_7), (0x00, None, UPTO_0_7), (0x02, None, UPTO_2), (0x06, None, UPTO_2),
        (0x76, None, UPTO_2), (0xF6, 3003, UPTO_3), (0x36, 3301, UPTO_3), (0x36, 4000, UPTO_5), (0x36, 5900, UPTO_5),
        (0x36, 6100, UPTO_6_1), (0x36, 6200, UPTO_6_2), (0x36, 6299, UPTO_6_2), (0x36, 6300, GENERATIONS[-1]),
        (0x36, 7000, GENERATIONS[-1]), (0x30, 6200, UPTO_6_2),
    ],
)  # fmt: skip
def test_a_hello_tells_the_generation(flags: int, version: int | None, generation: Generation) -> None:
    greeting = Greeting(platform=12, product=12, flags=flags, system_version=version)
    assert takes(greeting).generation is generation


def test_what_says_no_hello_takes_what_the_rfc_says() -> None:
    assert takes(None) == Takes(PLAIN)
    assert takes(None).room(reliable=False, answer=ROOM_FOR_ACK) == 1152


@pytest.mark.parametrize(("told", "buffer"), [(None, 960), (0, 960), (100, 960), (500, 500), (960, 960), (1152, 1152)])
def test_the_size_that_a_device_tells_counts(told: int | None, buffer: int) -> None:
    greeting = Greeting(platform=6, product=6, flags=0xF6, system_version=3003, max_message=told)
    for reliable in (False, True):
        assert takes(greeting).max_message(reliable=reliable) == buffer
    assert takes(greeting).max_argument == (1024 if told == 1152 else 864)


@pytest.mark.parametrize("buffer", [*range(128, 200), 640, 768, 800, 900, 960, 1152])
def test_over_tcp_a_frame_fits_into_the_buffer(buffer: int) -> None:
    took = Takes(UPTO_3, buffer)
    longest = took.room(reliable=True, answer=ROOM_FOR_ACK)
    # A frame's first two bytes are read by themselves; behind it, 16 bytes are set aside.
    assert wire_length(longest) + 16 <= buffer < wire_length(longest + 1) + 16
    answered = took.room(reliable=True, answer=ROOM_FOR_ANSWER)
    assert answered <= longest
    assert buffer - 18 - answered >= ROOM_FOR_ANSWER + 18


def test_the_page_tells_every_generation() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    told = {row[0]: row for row in rows}
    for generation in GENERATIONS:
        took = Takes(generation)
        rooms = [took.room(reliable=reliable, answer=ROOM_FOR_ACK) for reliable in (False, True)]
        row = told[generation.name]
        assert row[2] == " / ".join(f"{room:,}" for room in rooms)
        assert row[3] == " / ".join(f"{min(1024, room - 29):,}" for room in rooms)
        assert row[4].split(" (")[0] == f"{took.max_argument:,}"
