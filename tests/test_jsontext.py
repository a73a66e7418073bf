"""What is wrong with a text that is no JSON: the number or the half character, by name."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cloud import Cloud
from tests.delivery.builders import NOW, an_event
from wirechamber.integrations.base import Context, Refused
from wirechamber.integrations.google_maps.scan import BadScan, read
from wirechamber.integrations.webhook import Webhook
from wirechamber.jsontext import trouble

CASES = [
    ('{"w":{"a":[{"m":"3c:37:86:5d:75:d4","s":1e400}]}}', "the number 1e400 is too large to be read"),
    ('{"w":"1e500","b":[-1e999]}', "the number -1e999 is too large to be read"),
    ('{"w":"\\ud800"}', "\\ud800 is half a character"),
    ('{"w":"\\ud83d\\ude00 \\uDC00 x"}', "\\uDC00 is half a character"),
    ("[" * 3_000, "nested too deeply"),
    ('{"w":', "truncated"),
]


@pytest.mark.parametrize(("text", "why"), CASES)
def test_the_reason_is_told(text: str, why: str) -> None:
    with pytest.raises((msgspec.DecodeError, RecursionError)) as refused:
        msgspec.json.decode(text)
    assert why in trouble(text, refused.value)
    assert why in trouble(text.encode(), refused.value)


@pytest.mark.parametrize(("text", "why"), CASES[2:4])
def test_a_scan_says_it(text: str, why: str) -> None:
    with pytest.raises(BadScan) as refused:
        read(text)
    assert f"it is no JSON: {why}" in str(refused.value)


@pytest.mark.parametrize(("text", "why"), CASES)
def test_a_json_template_and_fields_that_are_texts_of_json_say_it(text: str, why: str) -> None:
    hook = Webhook()
    prepared = hook.prepare(hook.read({"url": "http://x/", "json": text}, {}).config)
    refused = hook.request(an_event(), prepared, Context(NOW, "test"))
    assert isinstance(refused, Refused)
    assert why in refused.why
    with pytest.raises(Exception, match="headers: must be an object of names and values; it is no JSON") as told:
        hook.read({"url": "http://x/", "headers": text}, {})
    assert why in str(told.value)


@pytest.mark.parametrize(("text", "why"), CASES)
def test_the_api_and_the_command_line_say_it(
    live_shared: tuple[Cloud, str], text: str, why: str, tmp_path: Path
) -> None:
    live, token = live_shared
    for path in ("/v1/integrations", "/v1/devices/events"):
        headers = {"Content-Type": "application/json"}
        refused = live.client(token).post(path, content=text.encode(), headers=headers)
        assert refused.status_code == 400
        assert why in refused.text.replace("\\\\", "\\") or "nested too deeply" in refused.text
    (tmp_path / "data.json").write_text(text)
    (tmp_path / "template").write_text("x")
    done = subprocess.run(
        [sys.executable, "-m", "wirechamber", "template", "render", "template", "--data", "data.json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert why in " ".join(done.stderr.split())


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_it_is_it_is_told(data: bytes) -> None:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as problem:
        told = trouble(data, problem)
    else:
        told = "nothing"
    assert told


@pytest.mark.parametrize("unit", ['\\"', '"\\', '"\\"', "\\u", "\\\\", '"1e400\\'])
@pytest.mark.parametrize("begin", ['{"a":1e400,"b":', '{"a":1e400,"b":"', ""])
def test_it_takes_no_time_whatever_the_text(begin: str, unit: str) -> None:
    # 1 s when each quote was looked at as another's begin; now 1 ms.
    text = (begin + unit * 10_000).encode()
    with pytest.raises(Exception) as refused:  # noqa: PT011
        msgspec.json.decode(text)
    before = time.thread_time()
    trouble(text, refused.value)
    assert time.thread_time() - before < 0.3
