"""The JavaScript flavour (integrations.md, section 6), bounds, and hostile input."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirechamber.integrations.templates import (
    MAX_DEPTH,
    MAX_SOURCE,
    MAX_STEPS,
    OutputTooLarge,
    Room,
    TemplateError,
    compile,
)

SAMPLE = {
    "a": {"aa": "testing", "ab": 1234},
    "b": "xxx",
    "c": [{"ca": "first", "cb": 123}, {"ca": "second", "cb": 456}],
}
TABLE: list[tuple[str, str, str]] = [
    ("{{{a.aa}}}", "", "testing"),
    ("{{{a.ab}}}", "", "1234"),
    ("{{{c.0.ca}}}", "", "first"),
    ("{{{c.1.cb}}}", "", "456"),
    ("{{#b}}{{{b}}}{{/b}}{{^b}}Missing{{/b}}", "", "xxx"),
    ("{{#z}}{{{z}}}{{/z}}{{^z}}Missing{{/z}}", "", "Missing"),
    ("{{#c}}{{{ca}}}~{{/c}}", "", "first~second~"),
    ("[{{a}}]", '{"a":[123,456,789]}', "[123,456,789]"),
    ("[{{a}}]", '{"a":123}', "[123]"),
    ("[{{a}}]", "{}", "[]"),
    ("{{d}}", '{"d":false}', "false"),
    ("{{d}}", '{"d":true}', "true"),
    ("{{d}}", '{"d":null}', ""),
    ("{{d}}", '{"d":20.00}', "20"),
    ("{{d}}", '{"d":39.7391536}', "39.7391536"),
    ("{{d}}", '{"d":1e21}', "1e+21"),
    ("{{d}}", '{"d":1e20}', "100000000000000000000"),
    ("{{d}}", '{"d":0.00001}', "0.00001"),
    ("{{d}}", '{"d":0.0000001}', "1e-7"),
    ("{{d}}", '{"d":-0.0}', "0"),
    ("{{d}}", '{"d":9007199254740993}', "9007199254740993"),
    ("{{{d}}}", '{"d":{"x":[1,null]}}', '{"x":[1,null]}'),
    ("{{{d}}}", '{"d":[1,[2,null],"x"]}', "1,2,,x"),
    ("{{d}}", """{"d":"<a href='x'>&\\""}""", "&lt;a href=&#39;x&#39;&gt;&amp;&quot;"),
    ("{{&d}}", '{"d":"<&>"}', "<&>"),
    ("{{0}} {{1.x}}", '["first",{"x":"second"}]', "first second"),
    ("{{.}}", '"just text"', "just text"),
    ("{{#d}}shown{{/d}}", '{"d":0}', ""),
    ("{{#d}}shown{{/d}}", '{"d":""}', ""),
    ("{{#d}}shown{{/d}}", '{"d":{}}', "shown"),
    ("{{#a}}{{b}}{{aa}}{{/a}}", '{"a":{"aa":"in "},"b":"out "}', "out in "),
    ("{{> anything}}x", "{}", "x"),
    ("{{=<% %>=}}<% b %>{{b}}", '{"b":1}', "1{{b}}"),
    ("{{d}}", '{"d":"{{e}}","e":"no"}', "{{e}}"),
    ("{{s.upper}}{{s.__class__}}{{l.append}}", '{"s":"text","l":[1]}', ""),
]


@pytest.mark.parametrize(("template", "data", "expected"), TABLE)
def test_a_sample_of_the_reference(template: str, data: str, expected: str) -> None:
    assert compile(template).render(msgspec.json.decode(data) if data else SAMPLE) == expected


def test_the_last_frame_wins_at_any_depth() -> None:
    over = {"PARTICLE_DEVICE_ID": "real"}
    data = {"PARTICLE_DEVICE_ID": "spoofed", "c": [{"PARTICLE_DEVICE_ID": "spoofed too"}]}
    template = compile("{{PARTICLE_DEVICE_ID}} {{#c}}{{PARTICLE_DEVICE_ID}}{{/c}}")
    assert template.render(data, over) == "real real"


@pytest.mark.parametrize(
    ("source", "line", "column"),
    [
        ("{{", 1, 1),
        ("ok {{name", 1, 4),
        ("one\ntwo {{#a}}", 2, 5),
        ("a\nb\n  {{/a}}", 3, 3),
        ("{{#a}}\n{{/b}}", 2, 1),
        ("{{{a}}", 1, 1),
        ("{{}}", 1, 1),
        ("{{=x=}}", 1, 1),
        ("x" * (MAX_SOURCE + 1), 1, 1),
    ],
)
def test_a_malformed_template_is_refused_with_line_and_column(source: str, line: int, column: int) -> None:
    with pytest.raises(TemplateError) as refused:
        compile(source)
    assert (refused.value.line, refused.value.column) == (line, column)
    assert f"line {line}, column {column}" in refused.value.description


def test_nesting_is_bounded() -> None:
    compile("{{#a}}" * MAX_DEPTH + "{{/a}}" * MAX_DEPTH)
    with pytest.raises(TemplateError, match="nested"):
        compile("{{#a}}" * (MAX_DEPTH + 1) + "{{/a}}" * (MAX_DEPTH + 1))


def test_output_is_bounded() -> None:
    with pytest.raises(OutputTooLarge):
        compile("{{a}}" * 1000).render({"a": "x" * 2000})
    with pytest.raises(OutputTooLarge):
        compile("{{a}}").render({"a": "xxx"}, room=Room(2))


def test_loops_that_print_nothing_end_too() -> None:
    source = "{{#a}}" * 8 + "{{/a}}" * 8
    with pytest.raises(OutputTooLarge, match="steps"):
        compile(source).render({"a": list(range(1, 30))})


def test_a_partial_that_includes_itself_ends() -> None:
    with pytest.raises(OutputTooLarge):
        compile("{{>p}}", partials=lambda name: "x{{>p}}").render({})


HOSTILE = [
    "{{" * 50_000,
    "{{#a}}" * 20_000,
    "{{!}}\n" * 20_000,
    "{{a}}" * 20_000,
    "  {{!x}}" * 12_000,
    "{{!" + "x" * 100_000,
    "{{=<% %>=}}<%={{ }}=%>" * 4_000,
    "{{#a}}{{/a}}" * 8_000,
    "\n" * 50_000 + "{{#a}}" * 60,
    "{{{" + "}}" * 50_000,
]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("source", HOSTILE, ids=range(len(HOSTILE)))
def test_the_steps_of_a_hostile_template_grow_with_its_size_only(source: str, size: int) -> None:
    part = source[: len(source) * size // 4]
    try:
        template = compile(part)
    except TemplateError:
        return
    room = Room()
    template.render({"a": "x"}, room=room)
    assert MAX_STEPS - room.steps <= len(part) + 10 <= MAX_STEPS


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc") | st.text(max_size=3), inner),
    max_leaves=12,
)
TAGGED = st.lists(
    st.sampled_from(["{{a}}", "{{{b}}}", "{{#a}}", "{{/a}}", "{{^b}}", "{{/b}}", "{{.}}", "{{a.b}}", "{{!c}}", "\n",
                     " ", "{{", "}}", "{{=<% %>=}}", "<%a%>", "{{>p}}", "{{&c}}", "text", "\r\n"]),
    max_size=20,
).map("".join)  # fmt: skip


@given(source=TAGGED | st.text(max_size=60), data=JSON)
def test_any_template_with_any_data_renders_or_is_refused(source: str, data: Any) -> None:
    with contextlib.suppress(TemplateError, OutputTooLarge):
        assert isinstance(compile(source).render(data), str)


@given(st.text().filter(lambda text: "{{" not in text))
def test_text_without_tags_renders_to_itself(text: str) -> None:
    template = compile(text)
    assert template.constant
    assert template.render({"a": 1}) == text


@given(st.text())
def test_escaping_leaves_none_of_the_five_characters_and_can_be_undone(text: str) -> None:
    import html

    shown = compile("{{a}}").render({"a": text})
    assert not set(shown) & set("<>\"'")
    assert html.unescape(shown) == html.unescape(html.escape(text))


@pytest.mark.parametrize("tag", ["{{>*name}}", "{{> *name }}", "a\n {{>*a.b}}\n"])
def test_dynamic_names_are_refused_as_that(tag: str) -> None:
    with pytest.raises(TemplateError, match=r"dynamic names .* are not supported"):
        compile(tag)


@pytest.mark.parametrize("tag", ["{{<parent}}{{$block}}x{{/block}}{{/parent}}", "{{<*parent}}{{/*parent}}"])
def test_inheritance_is_refused_as_that(tag: str) -> None:
    with pytest.raises(TemplateError, match=r"inheritance, .* is not supported"):
        compile(tag)
