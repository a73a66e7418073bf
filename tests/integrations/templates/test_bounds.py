"""Whatever template and data are: what it takes is paid before it is done, in steps and in characters."""

from __future__ import annotations

import tracemalloc
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirechamber.integrations.templates import (
    MAX_OUTPUT,
    MAX_PARTS,
    MAX_PATH,
    MAX_STEPS,
    MAX_TAGS,
    MAX_VALUE_DEPTH,
    Allowance,
    OutputTooLarge,
    Room,
    TemplateError,
    compile,
)
from wirechamber.integrations.templates.values import escape, escaped_length, text_of

NUMBERS = list(range(7_990))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{{a}}}" * (MAX_TAGS + 1), f"more than {MAX_TAGS} tags"),
        ("{{!}}" * (MAX_TAGS + 1), f"more than {MAX_TAGS} tags"),
        ("{{=<% %>=}}<%={{ }}=%>" * MAX_TAGS, f"more than {MAX_TAGS} tags"),
        ("{{#a}}{{/a}}" * MAX_TAGS, f"more than {MAX_TAGS} tags"),
        ("{{" + ".".join("a" * (MAX_PATH + 1)) + "}}", f"more than {MAX_PATH} parts"),
        ("{{#" + "a." * 1_000 + "a}}", f"more than {MAX_PATH} parts"),
        (("{{" + ".".join("a" * MAX_PATH) + "}}") * (MAX_PARTS // MAX_PATH + 1), f"more than {MAX_PARTS} parts"),
    ],
)
def test_a_template_that_holds_too_much_is_refused_with_its_place(source: str, why: str) -> None:
    with pytest.raises(TemplateError, match=f"{why}.*line 1, column"):
        compile(source)


def test_templates_of_one_integration_share_what_they_may_hold() -> None:
    allowance = Allowance()
    for _ in range(MAX_TAGS):
        compile("{{a}}", allowance=allowance)
    with pytest.raises(TemplateError, match="tags"):
        compile("{{a}}", allowance=allowance)
    compile("{{a}}")


def test_the_largest_template_there_may_be_can_be_rendered() -> None:
    source = ("{{" + "a." * (MAX_PARTS // MAX_TAGS - 1) + "a}}x") * MAX_TAGS
    assert compile(source).render({}) == "x" * MAX_TAGS


COSTLY: list[tuple[str, str, Any]] = [
    ("a list as text", "{{{a}}}" * MAX_TAGS, {"a": NUMBERS}),
    ("a long text", "{{a}}" * MAX_TAGS, {"a": "x" * 16_000}),
    ("a long text that is escaped", "{{a}}" * MAX_TAGS, {"a": "<" * 16_000}),
    ("a text that gets long by escapes", "{{a}} {{b}}" * 400, {"a": "'" * 300, "b": '"' * 300}),
    ("lists in sections", "{{#a}}" * 10 + "{{{.}}}" + "{{/a}}" * 10, {"a": [NUMBERS] * 9}),
    ("a list in a list", "{{a}}", {"a": [NUMBERS] * 30}),
    ("the same text again and again in a list", "{{a}}", {"a": ["x" * 16_000] * 1_000}),
    ("the same text again and again in an object", "{{a}}", {"a": {"b": ["x" * 16_000] * 1_000}}),
    ("an object's long keys", "{{a}}", {"a": [{"k" * 16_000: 1}] * 1_000}),
    ("many objects", "{{#a}}{{.}}{{/a}}", {"a": [{"b": 1}] * 9_000}),
    ("names that are looked for all the way up", "{{#a}}" * 60 + "{{#l}}{{z}}{{/l}}" + "{{/a}}" * 60,
     {"a": {"x": 1}, "l": NUMBERS}),
    ("a constant text in a section", "{{#a}}" + "x" * 5_000 + "{{/a}}", {"a": NUMBERS}),
    ("nothing, often", "{{#a}}" * 8 + "{{/a}}" * 8, {"a": list(range(1, 30))}),
    ("long numbers", "{{a}}" * 200, {"a": 10**4_200}),
    ("long numbers in an object", "{{a}}", {"a": {str(index): 10**4_000 + index for index in range(60)}}),
    ("numbers with fractions", "{{#a}}{{.}}{{/a}}", {"a": [1.5e-5] * 9_000}),
]  # fmt: skip


@pytest.mark.parametrize(("source", "data"), [case[1:] for case in COSTLY], ids=[case[0] for case in COSTLY])
def test_what_takes_too_much_ends_within_its_bounds(source: str, data: Any) -> None:
    template = compile(source)
    template.body()
    room = Room()
    tracemalloc.start()
    try:
        with pytest.raises(OutputTooLarge):
            template.render(data, room=room)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A character takes a byte here; pieces and the text of them all may be there at once.
    assert peak < 4 * MAX_OUTPUT


@pytest.mark.parametrize("depth", [MAX_VALUE_DEPTH + 1, 450, 900])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_a_value_that_is_nested_too_deeply_is_a_plain_error(depth: int, begin: str, end: str) -> None:
    value = msgspec.json.decode(begin * -(-depth // len(end)) + "1" + end * -(-depth // len(end)))
    with pytest.raises(OutputTooLarge, match=f"nested more than {MAX_VALUE_DEPTH} deep"):
        compile("{{a}}").render({"a": value})


def test_all_numbers_that_an_event_can_hold_are_printed() -> None:
    assert compile("{{a}}").render({"a": NUMBERS}) == ",".join(map(str, NUMBERS))
    assert compile("{{#a}}{{.}},{{/a}}").render({"a": NUMBERS}) == "".join(f"{number}," for number in NUMBERS)


def test_a_number_with_too_many_digits_is_a_plain_error() -> None:
    for value in (10**5_000, [10**5_000], {"b": 10**5_000}):
        with pytest.raises(OutputTooLarge, match="digits"):
            compile("{{a}}").render({"a": value})


def test_what_was_done_is_paid_from_the_room() -> None:
    template, room = compile("{{#a}}{{b}}{{/a}}"), Room()
    template.render({"a": [{"b": "x"}] * 100}, room=room)
    assert room.left == MAX_OUTPUT - 100
    assert 300 <= MAX_STEPS - room.steps <= 400


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=30,
)


def joined(value: Any) -> str:
    """The text of a value, the short way."""
    if isinstance(value, list):
        return ",".join(map(joined, value))
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else text_of(value)


@given(JSON)
def test_a_value_prints_as_it_does_the_short_way(value: Any) -> None:
    assert compile("{{{a}}}{{{a}}}").render({"a": value}) == joined(value) * 2


@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: 1e-6 <= abs(value) < 1e21))
def test_a_number_prints_all_its_digits_and_no_exponent(value: float) -> None:
    text = text_of(value)
    assert "e" not in text
    assert float(text) == value
    assert Decimal(text) == Decimal(repr(value))


@given(st.text(alphabet="&<>\"'x\u00e9", max_size=40))
def test_how_long_an_escaped_text_is_can_be_told_before(text: str) -> None:
    assert escaped_length(text) == len(escape(text))
