"""Controls: parts of a form that take more than one input, and convert between what is typed and a request's JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from hub.registry.jobs.requests.common import Module
from hub.registry.jobs.requests.compose import Candidates
from hub.vocabulary import COMPONENT_SCORES, CUT_SCORES
from hub.web.model_forms import JsonObject, Typed, Widget, typed_of

Inputs = dict[str, list[str]]  # name of an input -> what would have been typed


class Unreadable(Exception):
    """What was typed cannot become a request: problems by the field that shows them."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = problems


class Control:
    problem_names: Sequence[str] = ()
    sources: Sequence[str] = ()  # fields that hold examples

    def write(self, typed: Typed, body: JsonObject) -> None:
        """Put what was typed into the request. Raises Unreadable."""
        raise NotImplementedError

    def read(self, body: JsonObject) -> Inputs:
        """What would have been typed for a request."""
        raise NotImplementedError

    def settings(self, typed: Typed) -> Mapping[str, object]:
        """What an estimate needs to know beyond the JSON."""
        return {}


class ResultName(Control):
    problem_names = ("name",)

    def write(self, typed: Typed, body: JsonObject) -> None:
        body["name"] = f"{typed.one('namespace')}/{typed.one('result')}"

    def read(self, body: JsonObject) -> Inputs:
        namespace, _, result = str(body["name"]).partition("/")
        return {"namespace": [namespace], "result": [result]}


@dataclass(frozen=True)
class Base(Control):
    """The base by name. `unless_modules`: adapters bring their own."""

    unless_modules: bool = False
    problem_names = ("base",)

    def write(self, typed: Typed, body: JsonObject) -> None:
        base = typed.one("base")
        if base and not (self.unless_modules and references(typed)):
            body["base"] = base

    def read(self, body: JsonObject) -> Inputs:
        return {"base": [str(body["base"])]} if body.get("base") else {}


@dataclass(frozen=True)
class Switch(Control):
    """Whether an optional part of the request is there, as a select of yes and no."""

    name: str  # the field of the request
    input: str
    label: str
    hint: str
    default: Literal["yes", "no"]
    no: str = "no"  # what that choice is called

    def write(self, typed: Typed, body: JsonObject) -> None:
        choice = typed.one(self.input, self.default)
        if choice == "no" and self.default == "yes":
            body[self.name] = None
        if choice == "yes" and self.default == "no":
            body.setdefault(self.name, {})

    def read(self, body: JsonObject) -> Inputs:
        if self.name not in body:
            return {}
        return {self.input: ["no" if body[self.name] is None else "yes"]}

    def widget(self, typed: Typed) -> Widget:
        choices = sorted([("yes", "yes"), ("no", self.no)], key=lambda choice: choice[0] != self.default)
        return Widget(self.input, self.label, self.hint, "select", typed.one(self.input, self.default), choices=choices)


# --- adapters ----------------------------------------------------------------------------------------------------------


def references(typed: Typed) -> list[str]:
    """The adapters that were ticked or named."""
    return [reference.strip() for reference in typed.all("module") if reference.strip()]


def module_of(reference: str) -> Module:
    """`namespace/name`, then `@revision` and `#folder` where they are not main and the top."""
    repo, _, folder = reference.strip().partition("#")
    repo, _, revision = repo.partition("@")
    return Module(repo=repo, **({"revision": revision} if revision else {}), **({"folder": folder} if folder else {}))


def reference_of(module: Module) -> str:
    revision = f"@{module.revision}" if module.revision != "main" else ""
    return module.repo + revision + (f"#{module.folder}" if module.folder else "")


def _json(module: Module) -> JsonObject:
    return module.model_dump(mode="json", exclude_unset=True)


@dataclass(frozen=True)
class Modules(Control):
    problem_names = ("modules",)

    def write(self, typed: Typed, body: JsonObject) -> None:
        body["modules"] = [_json(module_of(reference)) for reference in references(typed)]

    def read(self, body: JsonObject) -> Inputs:
        return {"module": [reference_of(Module.model_validate(module)) for module in _items(body.get("modules"))]}


class ModulesOrNamespaces(Modules):
    """Adapters by name, or the best of whole namespaces."""

    def write(self, typed: Typed, body: JsonObject) -> None:
        if typed.one("choose") == "namespaces":
            options = {name: value for name in ("k", "by", "pool") if (value := typed.one(name))}
            body["modules"] = {"from": [*typed.words("from")], **options}
            return
        super().write(typed, body)
        if not body["modules"]:
            raise Unreadable({"modules": "Choose at least one adapter."})

    def read(self, body: JsonObject) -> Inputs:
        modules = body.get("modules")
        if not isinstance(modules, dict):
            return super().read(body)
        candidates = Candidates.model_validate(modules)
        options = {name: value for name, value in modules.items() if name != "from"}
        return {"choose": ["namespaces"], "from": [" ".join(candidates.namespaces)], **typed_of(options)}

    def settings(self, typed: Typed) -> Mapping[str, object]:
        """Each adapter of the pool is tried once, so that the best are chosen."""
        if typed.one("choose") != "namespaces":
            return {}
        pool = typed.one("pool", "200")
        return {"choose": 1, "modules": range(int(pool) if pool.isdigit() and len(pool) < 4 else 0)}


@dataclass(frozen=True)
class OneModule(Control):
    """An adapter that may be left out. `decides`: fields of the request that it brings, which must then be left as they were."""

    name: str
    decides: Sequence[str] = ()

    def write(self, typed: Typed, body: JsonObject) -> None:
        chosen = references(typed)
        if not chosen:
            return
        body[self.name] = _json(module_of(chosen[0]))
        for name in self.decides:
            if name in body:
                raise Unreadable({name: "The adapter that is trained further decides this; leave it as it was."})

    def read(self, body: JsonObject) -> Inputs:
        module = body.get(self.name)
        return {"module": [reference_of(Module.model_validate(module))]} if module else {}


class Subject(Control):
    """What is reduced. The form shows the fields of both subjects; those of the other one are left out of the request."""

    def write(self, typed: Typed, body: JsonObject) -> None:
        of_module = typed.one("subject", "base") == "module"
        if of_module:
            body["subject"] = "module"
            if "module" in body:
                body.pop("base", None)  # the adapter's own
        for name in ("form", "variant", "top", "budget") if of_module else ("loss_budget",):
            body.pop(name, None)
        if body.get("score") not in (COMPONENT_SCORES if of_module else CUT_SCORES):
            body.pop("score", None)

    def read(self, body: JsonObject) -> Inputs:
        return {"subject": [str(body.get("subject", "base"))]}


def _items(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
