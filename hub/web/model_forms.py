"""Forms of request models: a field's widget, default, range and hint are those of the model, so that form and API agree.

What is typed stays text under dotted names ("tune.steps"). `json_of` puts it into the shape of the model's JSON, which the model then
reads; `typed_of` is the way back.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

JsonObject = dict[str, JsonValue]
WidgetKind = Literal["number", "text", "select", "check", "checks"]


@dataclass(frozen=True)
class Typed:
    """What was typed in a form: by name of the input its values, in the order of the page."""

    values: Mapping[str, Sequence[str]]

    def all(self, name: str) -> Sequence[str]:
        return self.values.get(name, ())

    def one(self, name: str, default: str = "") -> str:
        """The last value without white space around it, as a check box follows a hidden input of the same name."""
        values = self.values.get(name)
        return values[-1].strip() if values else default

    def words(self, name: str) -> list[str]:
        """Names with spaces or commas between them."""
        return self.one(name).replace(",", " ").split()


@dataclass(frozen=True)
class Widget:
    name: str
    label: str
    hint: str
    kind: WidgetKind
    value: str = ""
    values: Sequence[str] = ()  # of checks
    choices: Sequence[tuple[str, str]] = ()  # (value, label)
    limits: Mapping[str, str] = field(default_factory=dict)  # min, max and step, as HTML calls them
    problem: str = ""
    changed: bool = False  # from the model's default

    @property
    def id(self) -> str:
        return self.name.replace(".", "-")


@dataclass(frozen=True)
class ModelField:
    """One field of a request model. `types` are what its value may be, None aside; a field without a default has None."""

    name: str  # dotted: a field of a model within the model
    info: FieldInfo
    default: Any

    @property
    def types(self) -> list[Any]:
        return _types(self.info.annotation)

    @property
    def optional(self) -> bool:
        return type(None) in get_args(self.info.annotation)

    @property
    def literals(self) -> list[str]:
        """The words among its values."""
        return [str(word) for kind in self.types if get_origin(kind) is Literal for word in get_args(kind)]

    @property
    def kind(self) -> WidgetKind:
        first = self.types[0]
        if first is bool:
            return "check"
        if all(get_origin(kind) is Literal for kind in self.types):
            return "select"
        if get_origin(first) is list and get_origin(get_args(first)[0]) is Literal:
            return "checks"
        return "number" if first in (int, float) else "text"

    @property
    def limits(self) -> Mapping[str, str]:
        limits = {"step": "1" if self.types[0] is int else "any"}
        for rule in self.info.metadata:
            if isinstance(rule, (Ge, Gt)):
                limits["min"] = text_of(rule.ge if isinstance(rule, Ge) else rule.gt)
            if isinstance(rule, (Le, Lt)):
                limits["max"] = text_of(rule.le if isinstance(rule, Le) else rule.lt)
        return limits

    @property
    def hint(self) -> str:
        """The model's description as a sentence."""
        text = self.info.description or ""
        return f"{text[:1].upper()}{text[1:]}." if text else ""

    def value_of(self, values: Sequence[str]) -> str | list[str] | None:
        """What was typed as the model reads it; None where nothing was."""
        if self.kind == "checks":
            return [value for value in values if value]
        if not any(get_origin(kind) is list for kind in self.types):
            return (values[-1].strip() if values else "") or None
        words = " ".join(values).replace(",", " ").split()
        return words[0] if len(words) == 1 and words[0] in self.literals else words or None

    def is_default(self, value: str | list[str]) -> bool:
        return bool(value == (self.default if isinstance(self.default, list) else text_of(self.default)))


def model_field(model: type[BaseModel], name: str) -> ModelField:
    """The field that a dotted name means. The words of a field that maps words to values are fields below it."""
    first, _, rest = name.partition(".")
    info = model.model_fields[first]
    default = info.get_default(call_default_factory=True)
    default = None if default is PydanticUndefined else default
    if not rest:
        return ModelField(name, info, default)
    kind = _types(info.annotation)[0]
    if get_origin(kind) is dict:
        return ModelField(name, FieldInfo.from_annotation(get_args(kind)[1]), None)
    inner = model_field(kind, rest)
    own = inner.default if "." in rest else getattr(default, rest, inner.default)
    return ModelField(name, inner.info, own)


def _types(annotation: Any) -> list[Any]:
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return [part for part in parts if part is not type(None)]


def text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- from a model to widgets ------------------------------------------------------------------------------------------


def widgets(
    model: type[BaseModel], names: Iterable[str], typed: Typed, problems: Mapping[str, str], labels: Mapping[str, str]
) -> list[Widget]:
    return [_widget(model_field(model, name), typed, problems.get(name, ""), labels) for name in names]


def _widget(field: ModelField, typed: Typed, problem: str, labels: Mapping[str, str]) -> Widget:
    values = list(typed.all(field.name))
    value = values[-1] if values else text_of(field.default)
    if field.kind == "text" and values:
        value = ", ".join(values)
    return Widget(
        name=field.name,
        label=labels.get(field.name) or field.name.rpartition(".")[2].replace("_", " ").capitalize(),
        hint=field.hint,
        kind=field.kind,
        value=value,
        values=values if field.name in typed.values else field.default if field.kind == "checks" else (),
        choices=_choices(field, labels),
        limits=field.limits if field.kind == "number" else {},
        problem=problem,
        changed=text_of(values if isinstance(field.default, list) else values[-1:]) not in (text_of(field.default), ""),
    )


def _choices(field: ModelField, labels: Mapping[str, str]) -> list[tuple[str, str]]:
    if field.kind == "checks":
        words, blank = get_args(get_args(field.types[0])[0]), []
    elif field.kind == "select":
        words, blank = tuple(field.literals), [("", labels.get(f"no {field.name}", "left out"))] * field.optional
    else:
        return []
    return [*blank, *((word, labels.get(f"={word}") or word.replace("_", " ")) for word in words)]


# --- from what was typed to a request, and back -----------------------------------------------------------------------


def json_of(model: type[BaseModel], names: Iterable[str], typed: Typed) -> JsonObject:
    """The JSON of what was typed in these fields, without those that are empty or have their default: the model knows it."""
    body: JsonObject = {}
    for name in names:
        field = model_field(model, name)
        value = field.value_of(typed.all(name))
        if value is not None and not field.is_default(value):
            put(body, name, list[JsonValue](value) if isinstance(value, list) else value)
    return body


def put(body: JsonObject, name: str, value: JsonValue) -> None:
    """Set what a dotted name means, and make the objects on the way there."""
    first, _, rest = name.partition(".")
    if not rest:
        body[first] = value
        return
    inner = body.get(first)
    if not isinstance(inner, dict):
        inner = body[first] = {}
    put(inner, rest, value)


def typed_of(body: Mapping[str, JsonValue], prefix: str = "") -> dict[str, list[str]]:
    """What would have been typed for a request's JSON, by dotted names."""
    typed: dict[str, list[str]] = {}
    for key, value in body.items():
        if isinstance(value, dict):
            typed |= typed_of(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            words = all(isinstance(item, str) for item in value)
            typed[prefix + key] = [text_of(item) for item in value] if words else [text_of(value)]
        elif value is not None:
            typed[prefix + key] = [text_of(value)]
    return typed


# --- what is wrong ----------------------------------------------------------------------------------------------------


def problems_of(error: ValidationError, names: Iterable[str]) -> dict[str, str]:
    """What is wrong, by the field that shows it; under "" what no field shows."""
    known = set(names)
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        # A union's branches are in the place too, under names such as "Candidates" or "literal['labels']".
        parts = [str(part) for part in detail["loc"] if str(part).isidentifier() and str(part)[:1].islower()]
        paths = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
        name = next((path for path in paths if path in known), "")
        sentence = _sentence(detail)
        if not name and parts:
            sentence = f"{'.'.join(parts)}: {sentence}"
        problems[name] = f"{problems[name]} {sentence}" if name in problems else sentence
    return problems


def _sentence(detail: ErrorDetails) -> str:
    text = detail["msg"].removeprefix("Value error, ").replace("Input should", "This should")
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
