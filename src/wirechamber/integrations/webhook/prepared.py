"""A webhook's configuration with its templates compiled: what every delivery would otherwise repeat."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator
from typing import Any

from msgspec import Struct

from wirechamber.integrations.base import MAX_ANSWER_BYTES, MAX_LARGE_ANSWER_BYTES, InvalidConfig
from wirechamber.integrations.templates import (
    MAX_SOURCE,
    Allowance,
    OutputTooLarge,
    Room,
    Template,
    TemplateError,
    compile,
    plain,
)
from wirechamber.integrations.variables import Names
from wirechamber.integrations.webhook.config import WebhookConfig, secret_headers

# Texts and names in a `json` object; each is a template.
MAX_JSON_TEXTS = 2_000
# Everything in a `json` object, numbers too.
MAX_JSON_VALUES = 10_000
# Of the path to a value, as errors name it.
MAX_FIELD_NAME = 200
# Nesting of a `json` object: deeper ones are a mistake, and walking them takes Python's own stack.
MAX_JSON_DEPTH = 32

Pairs = tuple[tuple[Template, Template], ...]


class Scene(Struct, gc=False):
    """What the templates of one request, or of one answer, are rendered with.

    Attributes:
        frames: Where names are looked up, the predefined ones last.
        room: What all of them together may print and do.
    """

    frames: tuple[Any, ...]
    room: Room

    def render(self, template: Template) -> str:
        """The text that the template makes. Raises OutputTooLarge."""
        return template.render(*self.frames, room=self.room)

    def pay(self, steps: int) -> None:
        """Takes steps for work that is done with what was rendered. Raises OutputTooLarge."""
        self.room.steps -= steps
        if self.room.steps < 0:
            raise OutputTooLarge("the request takes more work than is allowed")


class _Object(Struct, frozen=True):
    """An object with tags in it: names and values."""

    pairs: tuple[tuple[Template | str, Any], ...]


class Tree:
    """A JSON value whose text leaves and keys are templates, rendered one by one, so that quotes in data stay data.

    Attributes:
        templates: Those that hold tags.
    """

    __slots__ = ("_allowance", "_field", "_left", "_node", "_texts", "_texts_left", "templates")

    def __init__(self, field: str, value: dict[str, Any] | list[Any], allowance: Allowance) -> None:
        self.templates: list[Template] = []
        self._field = field
        self._allowance = allowance
        self._left = MAX_JSON_VALUES
        self._texts_left = MAX_JSON_TEXTS
        # Characters of the texts that hold no tags.
        self._texts = 0
        self._node = self._compile(field, value, 0)

    def render(self, scene: Scene) -> Any:
        """The value with everything rendered. Raises OutputTooLarge."""
        scene.room.left -= self._texts
        if scene.room.left < 0:
            raise OutputTooLarge("more characters are printed than is allowed")
        return _rendered(self._node, scene)

    def _compile(self, field: str, value: Any, depth: int) -> Any:
        """Templates, objects, tuples for lists; whatever holds no tags as it is."""
        self._left -= 1
        if self._left < 0:
            raise InvalidConfig(self._field, f"may hold at most {MAX_JSON_VALUES} values")
        if depth > MAX_JSON_DEPTH:
            raise InvalidConfig(field, f"is nested more than {MAX_JSON_DEPTH} deep")
        if isinstance(value, str):
            return self._template(field, value)
        if isinstance(value, dict):
            found = self._object(field, value, depth)
            return found if any(_holds_tags(key) or _holds_tags(item) for key, item in found.pairs) else value
        if isinstance(value, list):
            items = tuple(self._compile(field, item, depth + 1) for item in value)
            return items if any(map(_holds_tags, items)) else value
        return value

    def _object(self, field: str, value: dict[str, Any], depth: int) -> _Object:
        return _Object(
            tuple(
                (self._template(field, key), self._compile(f"{field}.{key}"[:MAX_FIELD_NAME], item, depth + 1))
                for key, item in value.items()
            )
        )

    def _template(self, field: str, source: str) -> Template | str:
        self._texts_left -= 1
        if self._texts_left < 0:
            raise InvalidConfig(self._field, f"may hold at most {MAX_JSON_TEXTS} names and texts")
        template = compiled(field, source, self._allowance)
        if template.constant:
            self._texts += len(source)
            return template.render()
        self.templates.append(template)
        return template


class Prepared:
    """Everything compiled.

    Attributes:
        names: What the request's templates name.
        answer_names: What the response template names.
        topic_names: What the topics name.
        says_json: There is a `body`, which is JSON by its headers.
    """

    def __init__(self, config: WebhookConfig) -> None:
        self.config = config
        # All templates together: whoever saves it, and every start, waits for all.
        allowance = Allowance()
        self.url = compiled("url", config.url, allowance)
        self.secret_headers = secret_headers(config)
        self.headers = _pairs("headers", config.headers, allowance, self.secret_headers)
        self.query = _pairs("query", config.query, allowance)
        self.form = _pairs("form", config.form, allowance)
        self.body = _optional("body", config.body, allowance)
        headers = config.headers or {}
        self.says_json = self.body is not None and any(
            name.lower() == "content-type" and _is_json(value) for name, value in headers.items()
        )
        self.json_text = compiled("json", config.json, allowance) if isinstance(config.json, str) else None
        self.json_tree = Tree("json", config.json, allowance) if isinstance(config.json, dict | list) else None
        self.username = self.password = None
        if config.auth is not None:
            self.username = compiled("auth.username", config.auth.username, allowance)
            self.password = secret("auth.password", config.auth.password, allowance)
        self.response_topic = _optional("responseTopic", config.response_topic, allowance)
        self.error_topic = _optional("errorResponseTopic", config.error_response_topic, allowance)
        template = config.response_template
        self.answer_text = compiled("responseTemplate", template, allowance) if isinstance(template, str) else None
        self.answer_tree = Tree("responseTemplate", template, allowance) if isinstance(template, dict | list) else None
        # A data URL has the answer's bytes, whatever they are.
        self.has_answer_template = template is not None and not config.data_url_response_event
        # A part of JSON is none.
        self.answer_bytes = MAX_LARGE_ANSWER_BYTES if self.has_answer_template else MAX_ANSWER_BYTES
        self.names = Names({name for each in self._request_templates() for name in each.names})
        self.topic_names = Names(
            {name for each in (self.response_topic, self.error_topic) if each is not None for name in each.names}
        )
        answers = [self.answer_text] if self.answer_text else self.answer_tree.templates if self.answer_tree else []
        self.answer_names = Names({name for each in answers for name in each.names})
        self.needs_device = any(each.needs_device for each in (self.names, self.answer_names, self.topic_names))
        # Filled when the URL is constant, as most are.
        self.constant_url: tuple[str, str] | None = None

    def _request_templates(self) -> Iterator[Template]:
        yield self.url
        for pairs in (self.headers, self.query, self.form):
            for name, value in pairs or ():
                yield name
                yield value
        yield from (each for each in (self.body, self.json_text, self.username, self.password) if each is not None)
        if self.json_tree is not None:
            yield from self.json_tree.templates


def compiled(field: str, source: str, allowance: Allowance) -> Template:
    """The template of a field.

    Raises:
        InvalidConfig: It is malformed, or holds too much; with line and column.
    """
    try:
        return compile(source, allowance=allowance)
    except TemplateError as problem:
        raise InvalidConfig(field, f"is no valid template: {problem.description}") from None


def secret(field: str, source: str, allowance: Allowance) -> Template:
    """The template of a secret; one that is none is meant as it is, since secrets are made of any characters.

    Raises:
        InvalidConfig: It holds too much.
    """
    try:
        return compile(source, allowance=allowance)
    except TemplateError as problem:
        if len(source) > MAX_SOURCE or allowance.tags < 0 or allowance.parts < 0:
            raise InvalidConfig(field, problem.description) from None
        return plain(source)


def basic(username: str, password: str) -> str:
    """The credentials of HTTP Basic (RFC 7617, section 2; UTF-8 as in section 2.1)."""
    return base64.b64encode(f"{username}:{password}".encode("utf-8", "replace")).decode()


def _optional(field: str, source: str | None, allowance: Allowance) -> Template | None:
    return None if source is None else compiled(field, source, allowance)


def _pairs(
    field: str, texts: dict[str, str] | None, allowance: Allowance, secrets: Collection[str] = ()
) -> Pairs | None:
    if texts is None:
        return None
    found = []
    for name, value in texts.items():
        value_of = secret if name.lower() in secrets else compiled
        found.append((compiled(field, name, allowance), value_of(f"{field}.{name}"[:MAX_FIELD_NAME], value, allowance)))
    return tuple(found)


def _is_json(content_type: str) -> bool:
    """Whether it is one JSON value; lines of them, such as `application/x-ndjson`, are none."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _holds_tags(node: Any) -> bool:
    return isinstance(node, Template | tuple | _Object)


def _rendered(node: Any, scene: Scene) -> Any:
    if isinstance(node, Template):
        return scene.render(node)
    if isinstance(node, _Object):
        return _rendered_object(node, scene)
    if isinstance(node, tuple):
        scene.pay(len(node))
        return [_rendered(item, scene) for item in node]
    return node


def _rendered_object(node: _Object, scene: Scene) -> dict[str, Any]:
    scene.pay(len(node.pairs))
    return {(key if isinstance(key, str) else scene.render(key)): _rendered(item, scene) for key, item in node.pairs}
