"""A webhook's configuration with its templates compiled: what every delivery would otherwise repeat."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from wirechamber.integrations.base import InvalidConfig
from wirechamber.integrations.templates import Room, Template, TemplateError, compile
from wirechamber.integrations.variables import Names
from wirechamber.integrations.webhook.config import SECRET_HEADERS, WebhookConfig

# Texts and names in a `json` object; each is a template.
MAX_JSON_TEXTS = 2_000
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


class Tree:
    """A JSON value whose text leaves and keys are templates, rendered one by one, so that quotes in data stay data."""

    __slots__ = ("_field", "_node", "templates")

    def __init__(self, field: str, value: Any) -> None:
        self.templates: list[Template] = []
        self._field = field
        self._node = self._compile(field, value, 0)

    def render(self, scene: Scene) -> Any:
        """The value with everything rendered. Raises OutputTooLarge."""
        return _rendered(self._node, scene)

    def _compile(self, field: str, value: Any, depth: int) -> Any:
        if depth > MAX_JSON_DEPTH:
            raise InvalidConfig(field, f"is nested more than {MAX_JSON_DEPTH} deep")
        if isinstance(value, str):
            return self._template(field, value)
        if isinstance(value, dict):
            return [
                (self._template(field, key), self._compile(f"{field}.{key}", item, depth + 1))
                for key, item in value.items()
            ]
        if isinstance(value, list):
            return tuple(self._compile(field, item, depth + 1) for item in value)
        return value

    def _template(self, field: str, source: str) -> Template:
        template = compiled(field, source)
        self.templates.append(template)
        if len(self.templates) > MAX_JSON_TEXTS:
            raise InvalidConfig(self._field, f"may hold at most {MAX_JSON_TEXTS} names and texts")
        return template


class Prepared:
    """Everything compiled.

    Attributes:
        names: What the request's templates name.
        answer_names: What the response template names.
        topic_names: What the topics name.
    """

    def __init__(self, config: WebhookConfig) -> None:
        self.config = config
        self.url = compiled("url", config.url)
        self.headers = _pairs("headers", config.headers)
        self.query = _pairs("query", config.query)
        self.form = _pairs("form", config.form)
        self.body = None if config.body is None else compiled("body", config.body)
        self.json_text = compiled("json", config.json) if isinstance(config.json, str) else None
        self.json_tree = Tree("json", config.json) if isinstance(config.json, dict) else None
        self.username = self.password = None
        if config.auth is not None:
            self.username = compiled("auth.username", config.auth.username)
            self.password = compiled("auth.password", config.auth.password)
        self.response_topic = _optional("responseTopic", config.response_topic)
        self.error_topic = _optional("errorResponseTopic", config.error_response_topic)
        template = config.response_template
        self.answer_text = compiled("responseTemplate", template) if isinstance(template, str) else None
        self.answer_tree = Tree("responseTemplate", template) if isinstance(template, dict) else None
        self.names = Names({name for each in self._request_templates() for name in each.names})
        self.topic_names = Names(
            {name for each in (self.response_topic, self.error_topic) if each is not None for name in each.names}
        )
        answers = [self.answer_text] if self.answer_text else self.answer_tree.templates if self.answer_tree else []
        self.answer_names = Names({name for each in answers for name in each.names})
        self.secret_headers = frozenset({name.lower() for name in config.secret_headers} | SECRET_HEADERS)
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


def compiled(field: str, source: str) -> Template:
    """The template of a field.

    Raises:
        InvalidConfig: It is malformed; with line and column.
    """
    try:
        return compile(source)
    except TemplateError as problem:
        raise InvalidConfig(field, f"is no valid template: {problem.description}") from None


def basic(username: str, password: str) -> str:
    """The credentials of HTTP Basic (RFC 7617, section 2; UTF-8 as in section 2.1)."""
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def _optional(field: str, source: str | None) -> Template | None:
    return None if source is None else compiled(field, source)


def _pairs(field: str, texts: dict[str, str] | None) -> Pairs | None:
    if texts is None:
        return None
    return tuple((compiled(field, name), compiled(f"{field}.{name}", value)) for name, value in texts.items())


def _rendered(node: Any, scene: Scene) -> Any:
    if isinstance(node, Template):
        return scene.render(node)
    if isinstance(node, list):
        return {scene.render(key): _rendered(item, scene) for key, item in node}
    if isinstance(node, tuple):
        return [_rendered(item, scene) for item in node]
    return node
