"""The params of a job as its page shows them: a title, the pinned inputs, and the settings in words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pydantic import JsonValue

from hub.registry.datasets.examples import PinnedExamples
from hub.registry.jobs.contracts.common import Params, PinnedBase, PinnedModule
from hub.registry.jobs.contracts.convert import PinnedWeights
from hub.registry.jobs.contracts.evaluate import EvaluateParams
from hub.registry.jobs.contracts.generate import GenerateParams
from hub.registry.jobs.contracts.par import ParParams
from hub.registry.jobs.kinds import KINDS
from hub.vocabulary import JobKind
from hub.web.model_forms import JsonObject, text_of

# What an input is called where that is not the name of its field.
ROLES = {
    "modules": "adapter",
    "module": "adapter",
    "start": "starts from",
    "held_out": "held-out",
    "datasets": "data set",
}
SHOWN_ELSEWHERE = {"result", "prompt"}
GROUPS_WITHOUT_NAME = ("recipe", "changes")  # whose settings are named by themselves


@runtime_checkable
class HasResult(Protocol):
    """The params of a kind that publishes an adapter, by name."""

    @property
    def result(self) -> str: ...


@dataclass(frozen=True)
class PinnedInput:
    role: str
    name: str
    inner: str  # the file or folder in the repo
    commit: str
    href: str


def title(kind: JobKind, params: Params | None) -> str:
    """What a person would call a job: its kind, and what it makes or examines."""
    name = KINDS[kind].title
    if result := result_name(params):
        return f"{name} {result}"
    match params:
        case EvaluateParams():
            modules, datasets = len(params.modules), len(params.datasets)
            measured = f"{modules} adapter{'s' * (modules != 1)}" if modules else "a base"
            return f"{name} {measured} on {datasets} data set{'s' * (datasets != 1)}"
        case GenerateParams(module=PinnedModule() as module):
            return f"{name} with {module.repo}"
        case _:
            return name


def result_name(params: Params | None) -> str | None:
    return params.result if isinstance(params, HasResult) else None


def base_id(params: Params | None) -> str | None:
    """The base that the job computes with, if it does."""
    bases = [value for _, value in params or () if isinstance(value, PinnedBase)]
    return bases[0].id if bases else None


def pinned_inputs(params: Params | None) -> Iterator[PinnedInput]:
    for field, value in params or ():
        for pinned in value if isinstance(value, list) else [value]:
            if isinstance(pinned, PinnedModule | PinnedWeights | PinnedExamples):
                yield _pinned_input(ROLES.get(field, field), pinned)


def _pinned_input(role: str, pinned: PinnedModule | PinnedWeights | PinnedExamples) -> PinnedInput:
    pages = "datasets" if isinstance(pinned, PinnedExamples) else "adapters"
    inner = pinned.folder if isinstance(pinned, PinnedModule) else pinned.path
    return PinnedInput(role, pinned.repo, inner, pinned.commit, f"/{pages}/{pinned.repo}?revision={pinned.commit}")


def settings_in_words(params: Params | None) -> list[tuple[str, str]]:
    """The settings by name, without those that are not set or shown elsewhere."""
    if params is None:
        return []
    pinned = {field for field, value in params if _is_pinned(value)}
    settings: JsonObject = params.model_dump(mode="json", exclude=pinned | SHOWN_ELSEWHERE)
    if isinstance(params, ParParams):
        settings["teachers"] = [teacher.base.id if teacher.base else teacher.server for teacher in params.teachers]
    return sorted(_in_words(settings))


def _is_pinned(value: object) -> bool:
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, PinnedBase | PinnedModule | PinnedWeights | PinnedExamples) for item in items)


def _in_words(settings: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        label = f"{prefix} {name}".strip().replace("_", " ")
        if isinstance(value, dict):
            yield from _in_words(value, "" if name in GROUPS_WITHOUT_NAME else label)
        elif text := _words(value):
            yield label, text


def _words(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_words(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_words(item)}" for name, item in value.items())
    return text_of(value)
