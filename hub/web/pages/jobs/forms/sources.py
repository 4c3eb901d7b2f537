"""Parts of a form that hold examples: pasted text, or a file of a data set."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from hub.registry.datasets import parse_examples
from hub.registry.datasets.examples import Examples, ExampleText
from hub.registry.jobs.requests.par import Vote
from hub.web.model_forms import JsonObject, Typed
from hub.web.pages.jobs.forms.controls import Control, Inputs, Unreadable

DEFAULT_SHARE = "20"  # per cent held out


class Source(Control):
    """Examples in the field `name`: pasted, from a data set, or none."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problem_names = self.sources = (name,)

    def write(self, typed: Typed, body: JsonObject) -> None:
        if source := source_of(typed, self.name):
            body[self.name] = source

    def read(self, body: JsonObject) -> Inputs:
        return source_inputs(self.name, body.get(self.name))


class HeldOut(Source):
    """Examples to measure on, which may also be a share of those that are pasted to learn from. It stands after their control."""

    def __init__(self) -> None:
        super().__init__("held_out")

    def write(self, typed: Typed, body: JsonObject) -> None:
        if typed.one("held_out.from") != "share":
            super().write(typed, body)
            return
        if typed.one("examples.from") != "paste":
            self._refuse("Only what is pasted here can be split; name a file of held-out examples instead.")
        examples = _parsed("examples", pasted_text(typed, "examples"))
        if len(examples) < 2:
            self._refuse("It takes two examples to hold one of them out.")
        seed = typed.one("seed", "0")
        seed_number = int(seed) if seed.isdigit() else 0
        learnt, held_out = parse_examples.held_back(examples, self._share(typed), seed_number)
        body |= {"examples": _inline(learnt), "held_out": _inline(held_out)}

    def _share(self, typed: Typed) -> float:
        try:
            share = float(typed.one("held_out.share", DEFAULT_SHARE)) / 100
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            self._refuse("The part that is held out is a number of per cent between 0 and 100.")
        return share

    def _refuse(self, problem: str) -> None:
        raise Unreadable({self.name: problem})


class DataSets(Control):
    """Files of data sets, one a row, and examples that are pasted. It stands after the source of these, whose field it takes over."""

    problem_names = ("datasets",)

    def write(self, typed: Typed, body: JsonObject) -> None:
        sources: list[JsonValue] = [source.model_dump(exclude_unset=True) for source in dataset_rows(typed)]
        if pasted := body.pop("examples", None):
            sources.append(pasted)
        if not sources:
            raise Unreadable({"datasets": "Name a data set, or paste examples."})
        body["datasets"] = sources

    def read(self, body: JsonObject) -> Inputs:
        datasets = body["datasets"]
        sources = [Examples.model_validate(source) for source in datasets] if isinstance(datasets, list) else []
        return {
            "dataset": [_dataset_reference(source) for source in sources],
            "path": [source.path or "" for source in sources],
        }


class Split(Control):
    """LoRA-PAR: who decides which examples are of which system: labels, a draw, or teachers that were tried on gold examples."""

    problem_names = ("split", "gold")
    sources = ("gold",)

    def write(self, typed: Typed, body: JsonObject) -> None:
        split = typed.one("split", "labels")
        if split != "vote":
            body["split"] = split
            return
        gold = source_of(typed, "gold")
        if gold is None:
            raise Unreadable({"gold": "A vote needs a few dozen examples whose system is known."})
        bases: list[JsonValue] = [{"base": name} for name in typed.words("teachers")]
        servers: list[JsonValue] = [{"server": name} for name in typed.words("servers")]
        body["split"] = {"teachers": bases + servers, "gold": gold}

    def read(self, body: JsonObject) -> Inputs:
        split = body.get("split", "labels")
        if not isinstance(split, dict):
            return {"split": [str(split)]}
        teachers = Vote.model_validate(split).teachers
        return {
            "split": ["vote"],
            "teachers": [" ".join(teacher.base for teacher in teachers if teacher.base)],
            "servers": [" ".join(teacher.server for teacher in teachers if teacher.server)],
            **source_inputs("gold", split["gold"]),
        }


def dataset_rows(typed: Typed) -> list[Examples]:
    """The files of data sets that were named: `namespace/name`, then `@revision` where that is not main."""
    rows = []
    for reference, path in zip(typed.all("dataset"), typed.all("path"), strict=False):
        name, _, revision = reference.strip().partition("@")
        options = {"revision": revision, "path": path.strip()}
        if name:
            rows.append(Examples(dataset=name, **{key: value for key, value in options.items() if value}))
    return rows


def _dataset_reference(source: Examples) -> str:
    return (source.dataset or "") + (f"@{source.revision}" if source.revision != "main" else "")


def pasted_text(typed: Typed, name: str) -> str:
    return "".join(typed.all(f"{name}.text")[-1:])


def source_of(typed: Typed, name: str) -> JsonObject | None:
    """The examples of a source as the request has them, None where there are none. Raises Unreadable."""
    match typed.one(f"{name}.from"):
        case "paste":
            return _inline(_parsed(name, pasted_text(typed, name)))
        case "dataset":
            dataset = typed.one(f"{name}.dataset")
            if not dataset:
                raise Unreadable({name: "Name a data set, or paste examples."})
            options = {key: value for key in ("revision", "path") if (value := typed.one(f"{name}.{key}"))}
            return {"dataset": dataset, **options}
        case _:
            return None


def _parsed(name: str, text: str) -> list[ExampleText]:
    result = parse_examples.parse(text)
    if result.problems:
        first = result.problems[0]
        more = f" ({len(result.problems)} such lines.)" if len(result.problems) > 1 else ""
        raise Unreadable({name: f"Line {first.line}: {first.message}{more}"})
    if not result.examples:
        raise Unreadable({name: "There are no examples; paste some, or choose a data set."})
    return result.examples


def _inline(examples: Sequence[ExampleText]) -> JsonObject:
    return {"inline": [example.model_dump(exclude_defaults=True) for example in examples]}


def source_inputs(name: str, source: JsonValue) -> Inputs:
    """What would have been typed for a source. Pasted examples have become a data set when the job was queued."""
    if not source:
        return {}
    examples = Examples.model_validate(source)
    values: Mapping[str, str | None] = {
        "dataset": examples.dataset,
        "revision": examples.revision if "revision" in examples.model_fields_set else None,
        "path": examples.path,
    }
    return {f"{name}.from": ["dataset"], **{f"{name}.{key}": [value] for key, value in values.items() if value}}
