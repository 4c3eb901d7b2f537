"""Forms made of request models: the widget, default, range and hint of a field are those of the model, so that form and API say the same.

What is typed is kept as text under dotted names ("tune.steps"), put into the shape of the model's JSON, and read by the model itself.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Typed = Mapping[str, Sequence[str]]
Kind = Literal["number", "text", "select", "check", "checks"]


@dataclass(frozen=True)
class Widget:
    name: str
    label: str
    hint: str
    kind: Kind
    value: str = ""
    values: Sequence[str] = ()  # of checks
    choices: Sequence[tuple[str, str]] = ()
    limits: Mapping[str, str] = field(default_factory=dict)  # min, max and step, as HTML calls them
    problem: str = ""
    changed: bool = False  # from what the model says

    @property
    def id(self) -> str:
        return self.name.replace(".", "-")


def widgets(
    model: type[BaseModel], names: Iterable[str], typed: Typed, problems: Mapping[str, str], labels: Mapping[str, str]
) -> list[Widget]:
    return [_widget(name, *_field(model, name), typed, problems.get(name, ""), labels) for name in names]


def _field(model: type[BaseModel], name: str) -> tuple[FieldInfo, Any]:
    """The field that a dotted name means, and what it is unless something is said."""
    first, _, rest = name.partition(".")
    found = model.model_fields[first]
    default = found.get_default(call_default_factory=True)
    if not rest:
        return found, default
    inner = next(kind for kind in _kinds(found.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel))
    info, own = _field(inner, rest)
    return info, getattr(default, rest, own) if "." not in rest else own


def _kinds(annotation: Any) -> list[Any]:
    """What a value may be, None aside."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return [part for part in parts if part is not type(None)]


def _widget(name: str, info: FieldInfo, default: Any, typed: Typed, problem: str, labels: Mapping[str, str]) -> Widget:
    given = typed.get(name)
    optional = type(None) in get_args(info.annotation)
    kinds = _kinds(info.annotation)
    label = labels.get(name) or name.rpartition(".")[2].replace("_", " ").capitalize()
    value = given[-1] if given else text_of(default)
    said = list(given or ()) if isinstance(default, list) else list(given or ())[-1:]
    changed = text_of(said) not in (text_of(default), "")
    made = partial(Widget, name, label, _hint(info), problem=problem, changed=changed)
    if kinds == [bool]:
        return made("check", value)
    if all(get_origin(kind) is Literal for kind in kinds):
        words = [str(word) for kind in kinds for word in get_args(kind)]
        blank = [("", labels.get(f"no {name}", "left out"))] if optional else []
        return made(
            "select",
            value,
            choices=[*blank, *((word, labels.get(f"={word}") or word.replace("_", " ")) for word in words)],
        )
    if _names_only(kinds[0]):
        known = get_args(get_args(kinds[0])[0])
        choices = [(word, labels.get(f"={word}") or word.replace("_", " ")) for word in known]
        return made("checks", values=given if given is not None else default, choices=choices)
    if kinds[0] in (int, float):
        return made("number", value, limits=_limits(info, whole=kinds[0] is int))
    return made("text", ", ".join(given) if given else value)


def _names_only(kind: Any) -> bool:
    """A list of words that are known beforehand, which is shown as boxes to tick."""
    return get_origin(kind) is list and get_origin(get_args(kind)[0]) is Literal


def text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _limits(info: FieldInfo, *, whole: bool) -> dict[str, str]:
    found = {"step": "1" if whole else "any"}
    for rule in info.metadata:
        if isinstance(rule, (Ge, Gt)):
            found["min"] = text_of(rule.ge if isinstance(rule, Ge) else rule.gt)
        if isinstance(rule, (Le, Lt)):
            found["max"] = text_of(rule.le if isinstance(rule, Le) else rule.lt)
    return found


def _hint(info: FieldInfo) -> str:
    """The model's description as a sentence, with the range where there is a small one."""
    said = info.description or ""
    return f"{said[:1].upper()}{said[1:]}." if said else ""


# --- from what is typed to a request ----------------------------------------------------------------------------------


def body_of(model: type[BaseModel], names: Iterable[str], typed: Typed) -> dict[str, Any]:
    """The JSON that says what was typed in these fields. What is left empty, or as it was, is not said: the model knows it."""
    body: dict[str, Any] = {}
    for name in names:
        info, default = _field(model, name)
        value = _value(info, typed.get(name, ()))
        if value is None or value == (default if isinstance(default, list) else text_of(default)):
            continue
        place = body
        *above, last = name.split(".")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return body


def _value(info: FieldInfo, given: Sequence[str]) -> str | list[str] | None:
    kinds = _kinds(info.annotation)
    if any(_names_only(kind) for kind in kinds):
        return [value for value in given if value]
    listed = any(get_origin(kind) is list for kind in kinds)
    text = " ".join(given).strip() if listed else given[-1].strip() if given else ""
    if not text or not listed:
        return text or None
    words = text.replace(",", " ").split()
    literal = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    return words[0] if len(words) == 1 and words[0] in literal else words


def typed_of(body: Mapping[str, Any], under: str = "") -> dict[str, list[str]]:
    """The other way round: a request as what would have been typed."""
    typed: dict[str, list[str]] = {}
    for key, value in body.items():
        if isinstance(value, Mapping):
            typed |= typed_of(value, f"{under}{key}.")
        elif isinstance(value, list):
            checks = all(isinstance(each, str) for each in value)
            typed[under + key] = [text_of(each) for each in value] if checks else [text_of(value)]
        elif value is not None:
            typed[under + key] = [text_of(value)]
    return typed


def problems_of(error: ValidationError, names: Iterable[str]) -> dict[str, str]:
    """What is wrong, by the field that shows it; under "" what no field does."""
    known = set(names)
    found: dict[str, str] = {}
    for each in error.errors(include_url=False):
        # A union's branches are in the place too, under names such as "Candidates" or "literal['labels']".
        parts = [str(part) for part in each["loc"] if str(part).isidentifier() and str(part)[:1].islower()]
        name = next((".".join(parts[:end]) for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in known), "")
        sentence = _sentence(each)
        if not name and parts:
            sentence = f"{'.'.join(parts)}: {sentence}"
        found[name] = f"{found[name]} {sentence}" if name in found else sentence
    return found


def _sentence(each: ErrorDetails) -> str:
    said = each["msg"].removeprefix("Value error, ").replace("Input should", "This should")
    return f"{said[:1].upper()}{said[1:].rstrip('.')}."
