"""Forms say lists and objects by their fields' names; all spellings are one."""

from __future__ import annotations

from typing import Any

import pytest

from wirechamber.api.bodies import form_object, multipart_object


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ([("a[b]", "1"), ("a[c][d]", "2")], {"a": {"b": "1", "c": {"d": "2"}}}),
        ([("a[]", "1"), ("a[]", "2")], {"a": ["1", "2"]}),
        ([("a[0]", "1"), ("a[1]", "2")], {"a": ["1", "2"]}),
        ([("a[b][]", "1"), ("a[b][]", "2"), ("a[c]", "3")], {"a": {"b": ["1", "2"], "c": "3"}}),
        ([("a[0][b]", "1"), ("a[1][b]", "2")], {"a": [{"b": "1"}, {"b": "2"}]}),
        ([("a[][b]", "1"), ("a[][b]", "2")], {"a": [{"b": "1"}, {"b": "2"}]}),
        # Numbers that do not count are names.
        ([("a[1]", "1")], {"a": {"1": "1"}}),
        ([("a[0]", "1"), ("a[x]", "2")], {"a": {"0": "1", "x": "2"}}),
        ([("0", "1")], {"0": "1"}),
        ([("a[", "1"), ("[b]", "2")], {"a[": "1", "[b]": "2"}),
    ],
)
def test_lists_and_objects(fields: list[tuple[str, str]], made: dict[str, Any]) -> None:
    assert form_object("&".join(f"{name}={value}" for name, value in fields).encode()) == made
    parts = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields
    )
    assert multipart_object(f"{parts}--x--\r\n".encode(), "multipart/form-data; boundary=x") == made
