"""One declaration of a kind's fields, from which everything else about them follows.

A kind declares its configuration once, as a frozen keyword-only Struct whose fields are annotated with `setting(…)`.
From that come the checks of the API with messages that name the field, the JSON Schema, the flags, prompts and help
of the command line, the table in the docs, and which values are secrets and therefore masked.

    class NtfyConfig(Struct, frozen=True, kw_only=True):
        topic: Annotated[str, setting("Where the messages go.", example="my-alerts", pattern="[A-Za-z0-9_-]{1,64}")]
        token: Annotated[Secret | None, setting("An access token, if the topic needs one.")] = None
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from wirechamber.integrations import fields
from wirechamber.integrations.base import MASK, InvalidConfig, Reading

Config = TypeVar("Config")
Form = Literal["text", "whole", "number", "boolean", "choice", "texts", "names", "credentials", "json"]

_URL = re.compile(r"https?://\S+$", re.IGNORECASE)
# A text that is kept encrypted and never shown again.
Secret = Annotated[str, Meta(extra={"secret": True}, extra_json_schema={"writeOnly": True})]
# Longest text of a field that does not say otherwise: a service-account key with all its parts has 2,400 characters.
MAX_TEXT = 16_384


def setting(
    help: str,
    *,
    example: str | None = None,
    spellings: tuple[str, ...] = (),
    pattern: str | None = None,
    allowed: str | None = None,
    parse: Callable[[Any], str] | None = None,
    least: int | None = None,
    most: int | None = None,
    endpoint: bool = False,
) -> Meta:
    """What a field means and may hold.

    Args:
        help: One sentence or two, for people.
        example: A value as a user would write it.
        spellings: Other names under which it is taken.
        pattern: What the whole text must match.
        allowed: What `pattern` or `parse` demands, in words that complete "must be …".
        parse: Makes the canonical text of whatever was sent, also of an object; raises ValueError with what is wrong.
        least, most: Bounds of a number.
        endpoint: It says where requests go (a URL says so by itself): when it changes, secrets must be sent again.
    """
    extra = {"spellings": spellings, "pattern": pattern, "allowed": allowed, "parse": parse, "endpoint": endpoint}
    bounds: dict[str, Any] = {"ge": least, "le": most, "pattern": None if pattern is None else f"^(?:{pattern})$"}
    given = {name: value for name, value in bounds.items() if value is not None}
    return Meta(description=help, examples=None if example is None else [example], extra=extra, **given)


class Field(Struct, frozen=True, kw_only=True):
    """One field of a kind.

    Attributes:
        name: As the API spells it.
        attribute: As the configuration record spells it.
        form: What it holds: `texts` is an object of texts, `names` a list of them, `credentials` an object of username
            and password, `json` any JSON.
        required: There is no default.
        default: What counts when it is absent; None for nothing.
        choices: What a `choice` may be.
    """

    name: str
    attribute: str
    form: Form
    help: str
    required: bool = False
    default: Any = None
    secret: bool = False
    example: str | None = None
    spellings: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    allowed: str | None = None
    parse: Callable[[Any], str] | None = None
    least: float | None = None
    most: float | None = None
    endpoint: bool = False

    @property
    def flag(self) -> str:
        """The option of the command line: `cache_seconds` and `deviceID` are `--cache-seconds` and `--device-id`."""
        return "--" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", self.name).replace("_", "-").lower()

    @property
    def may_be(self) -> str:
        """What it may hold, in words."""
        if self.allowed is not None:
            return self.allowed
        match self.form:
            case "choice":
                return f"one of {', '.join(self.choices)}"
            case "whole" | "number":
                kind = "a whole number" if self.form == "whole" else "a number"
                if self.least is not None and self.most is not None:
                    return f"{kind} from {self.least} to {self.most}"
                return f"{kind} of at least {self.least}" if self.least is not None else kind
            case "boolean":
                return "true or false"
            case "texts":
                return "an object of names and texts"
            case "names":
                return "a list of texts"
            case "credentials":
                return "an object with username and password"
            case "json":
                return "JSON"
        return "a text"

    def take(self, rest: dict[str, Any]) -> Any:
        """Takes the value out of what the user sent, in its canonical form; None when it is absent or empty.

        Raises:
            InvalidConfig: It can't be used.
        """
        names = (self.name, *self.spellings)
        if self.parse is not None:
            return self._parsed(fields.take(rest, *names))
        match self.form:
            case "boolean":
                # An absent one is told apart from false by nobody.
                return fields.boolean(rest, *names, default=bool(self.default))
            case "whole" | "number":
                return self._number(fields.take(rest, *names))
            case "texts":
                return fields.texts(rest, self.name)
            case "json" | "names" | "credentials":
                return fields.take(rest, *names)
        return self._text(fields.text(rest, *names))

    def checked(self, value: str) -> str:
        """The text, if it may be that.

        Raises:
            InvalidConfig: It may not; a secret is not repeated.
        """
        if len(value) > MAX_TEXT:
            raise InvalidConfig(self.name, f"may have at most {MAX_TEXT} characters, not {len(value)}")
        if self.pattern is not None and re.fullmatch(self.pattern, value) is None:
            what = "" if self.secret else f", not {value[:80]!r}"
            raise InvalidConfig(self.name, f"must be {self.may_be}{what}")
        return value

    def _parsed(self, value: Any) -> str | None:
        if value is None or value == MASK:
            return value  # type: ignore[no-any-return]
        assert self.parse is not None
        try:
            return self.parse(value)
        except ValueError as problem:
            raise InvalidConfig(self.name, str(problem)) from None

    def _text(self, value: str | None) -> str | None:
        if value is None or (self.secret and value == MASK):
            return value
        value = value.strip()
        if not value:
            return None
        if self.form == "choice":
            for choice in self.choices:
                if choice.lower() == value.lower():
                    return choice
            raise InvalidConfig(self.name, f"must be {self.may_be}")
        return self.checked(value)

    def _number(self, value: Any) -> int | float | None:
        if value is None:
            return None
        try:
            if isinstance(value, bool):
                raise ValueError
            number: int | float = float(value) if self.form == "number" else int(value)
            if self.form == "whole" and float(value) != number:
                raise ValueError
            if (self.least is not None and number < self.least) or (self.most is not None and number > self.most):
                raise ValueError
        except (ValueError, TypeError, OverflowError):
            raise InvalidConfig(self.name, f"must be {self.may_be}") from None
        return number


class Declaration(Generic[Config]):
    """The fields of a kind, read from its configuration record.

    Args:
        record: A Struct, annotated with `setting`; cross-checks go into its `__post_init__`, as InvalidConfig.
        event: Prefix of the events that trigger it unless the user says another.
    """

    def __init__(self, record: type[Config], *, event: str | None = None) -> None:
        self.record = record
        self.event = event

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The kind's own fields, in the order of declaration."""
        hints = typing.get_type_hints(self.record, include_extras=True)
        found = msgspec.structs.fields(self.record)  # type: ignore[arg-type]
        return tuple(_field(each, hints[each.name]) for each in found)

    @cached_property
    def all(self) -> tuple[Field, ...]:
        """Those that every kind has, then the kind's own."""
        event = Field(
            name="event", attribute="event", form="text", spellings=fields.EVENT[1:], example="temperature",
            required=self.event is None, default=self.event, allowed="a text of 1 to 64 characters",
            help="Events whose name begins with this trigger it; letter case matters.",
        )  # fmt: skip
        return (event, *self.fields, *_COMMON)

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """Fields that are secrets whatever the user says, by dotted path."""
        hints = typing.get_type_hints(self.record, include_extras=True)
        return tuple(path for each in self.fields for path in _secrets_in(each.name, hints[each.attribute]))

    def read(self, settings: Mapping[str, Any], stored: Mapping[str, str]) -> Reading[Config]:
        """Validates what the user sent.

        Args:
            stored: Secrets by field; they take the place of a mask that the user sent back.

        Raises:
            InvalidConfig: Names the field and what is allowed.
        """
        rest = dict(settings)
        values: dict[str, Any] = {}
        shown: dict[str, Any] = {}
        secrets: dict[str, str] = {}
        for each in self.fields:
            value = each.take(rest)
            if value is None:
                if each.required:
                    example = f", such as {each.example}" if each.example and not each.secret else ""
                    raise InvalidConfig(each.name, f"is required: {_lower(each.help)}{example}")
                continue
            if each.secret:
                secrets[each.name] = value = _revealed(each.name, value, stored)
            values[each.attribute] = value
            shown[each.name] = MASK if each.secret else value
        config = self.record(**values)
        known = [name for each in self.all for name in (each.name, *each.spellings)]
        warnings = fields.unknown(rest, known)
        return Reading(config, shown | rest, secrets, warnings)

    def destination(self, config: Config) -> object:
        """Where the secrets of a configuration go, by its endpoints and URLs."""
        found = []
        for each in self.fields:
            value = getattr(config, each.attribute)
            if not each.secret and isinstance(value, str) and (each.endpoint or "://" in value):
                found.append((each.name, fields.origin(value) if "://" in value else value.lower()))
        return found

    def urls(self, config: Config) -> list[tuple[str, str]]:
        """The fields of a configuration that hold a URL, and nothing else."""
        found = [(each.name, getattr(config, each.attribute)) for each in self.fields if not each.secret]
        return [(name, value) for name, value in found if isinstance(value, str) and _URL.match(value)]

    def schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of what `POST /v1/integrations` takes for this kind."""
        _, components = msgspec.json.schema_components([self.record], ref_template="#/$defs/{name}")
        own = components.pop(self.record.__name__, {})
        properties = {each.name: _schema_of(each) for each in self.all if each not in self.fields}
        mine = {each.name: own["properties"][each.name] for each in self.fields}
        for each in self.fields:
            if each.secret:
                # Of an optional one, msgspec says so inside `anyOf` only.
                mine[each.name]["writeOnly"] = True
        found: dict[str, Any] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {each.name: (mine | properties)[each.name] for each in self.all},
            "required": [each.name for each in self.all if each.required],
        }
        return found | ({"$defs": components} if components else {})


def table(declaration: Declaration[Any]) -> str:
    """The fields as a table in Markdown, for the docs."""
    lines = ["| field | must be | default | meaning |", "| --- | --- | --- | --- |"]
    for each in declaration.all:
        default = "**required**" if each.required else "" if each.default is None else f"`{_default(each.default)}`"
        meaning = each.help + (" A secret: kept encrypted, shown as `[[SENSITIVE]]`." if each.secret else "")
        lines.append(f"| `{each.name}` | {each.may_be} | {default} | {meaning} |".replace("|  |", "| |"))
    return "\n".join(lines)


_COMMON = (
    Field(
        name="deviceID", attribute="device", form="text", spellings=fields.DEVICE[1:],
        example="0123456789abcdef01234567", allowed="a device's id, 24 hex digits, or its name",
        help="Only events of this device trigger it; of all devices when absent.",
    ),
    Field(name="name", attribute="name", form="text", help="What people call it; made up when absent."),
    Field(name="disabled", attribute="disabled", form="boolean", default=False, help="Kept, but no event triggers it."),
)  # fmt: skip


def _field(declared: Any, hint: Any) -> Field:
    metas = _metas(hint)
    extra: dict[str, Any] = {}
    for meta in metas:
        extra |= meta.extra or {}
    last = Meta() if not metas else metas[-1]
    form, choices = ("text", ()) if extra.get("parse") else _form(_plain(hint))
    default = None if declared.default is NODEFAULT else declared.default
    if declared.default is NODEFAULT and declared.default_factory is not NODEFAULT:
        default = declared.default_factory()
    return Field(
        name=declared.encode_name,
        attribute=declared.name,
        form=form,
        help=last.description or "",
        required=declared.required,
        default=default or (default if isinstance(default, bool | int) else None),
        secret=bool(extra.get("secret")),
        example=last.examples[0] if last.examples else None,
        spellings=extra.get("spellings") or (),
        choices=choices,
        pattern=extra.get("pattern"),
        allowed=extra.get("allowed"),
        parse=extra.get("parse"),
        endpoint=bool(extra.get("endpoint")),
        least=last.ge,
        most=last.le,
    )


def _secrets_in(path: str, hint: Any) -> list[str]:
    if any((meta.extra or {}).get("secret") for meta in _metas(hint)):
        return [path]
    plain = _plain(hint)
    if not (isinstance(plain, type) and issubclass(plain, Struct)):
        return []
    inner = typing.get_type_hints(plain, include_extras=True)
    return [found for name, each in inner.items() for found in _secrets_in(f"{path}.{name}", each)]


def _metas(hint: Any) -> list[Meta]:
    """Every Meta of a type, those of the alternatives in a union first and its own last."""
    if typing.get_origin(hint) is Annotated:
        inner, *rest = typing.get_args(hint)
        return _metas(inner) + [meta for meta in rest if isinstance(meta, Meta)]
    if _is_union(hint):
        return [meta for each in typing.get_args(hint) for meta in _metas(each)]
    return []


def _plain(hint: Any) -> Any:
    """The bare type, without annotations and None."""
    while typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    if _is_union(hint):
        some = [each for each in typing.get_args(hint) if each is not type(None)]
        return _plain(some[0]) if len(some) == 1 else object
    return hint


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _form(kind: Any) -> tuple[Form, tuple[str, ...]]:
    if typing.get_origin(kind) is Literal:
        return "choice", typing.get_args(kind)
    if typing.get_origin(kind) is dict and typing.get_args(kind) == (str, str):
        return "texts", ()
    if typing.get_origin(kind) in (list, tuple) and typing.get_args(kind)[0] is str:
        return "names", ()
    if isinstance(kind, type) and issubclass(kind, Struct) and kind.__struct_fields__ == ("username", "password"):
        return "credentials", ()
    forms: dict[Any, Form] = {str: "text", int: "whole", float: "number", bool: "boolean"}
    return forms.get(kind, "json"), ()


def _schema_of(each: Field) -> dict[str, Any]:
    kind = "boolean" if each.form == "boolean" else "string"
    found = {"type": kind, "description": each.help, "default": each.default}
    if each.example is not None:
        found["examples"] = [each.example]
    return {key: value for key, value in found.items() if value is not None}


def _revealed(name: str, given: str, stored: Mapping[str, str]) -> str:
    if given != MASK:
        return given
    if name not in stored:
        raise InvalidConfig(name, f"is {MASK}, but no value is stored for it; send the value itself")
    return stored[name]


def _default(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
