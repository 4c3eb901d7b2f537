"""The forms that start jobs, one a kind: which fields they show, and how what is typed becomes the JSON of a request."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from hub.registry.datasets import parse_examples
from hub.registry.datasets.examples import Strict
from hub.registry.jobs.requests import ExampleText, Request
from hub.registry.jobs.requests.compose import ComposeRequest
from hub.registry.jobs.requests.evaluate import EvaluateRequest
from hub.registry.jobs.requests.par import ParRequest
from hub.registry.jobs.requests.reduce import ReduceRequest
from hub.registry.jobs.requests.train import GIVEN_BY_START, TrainRequest
from hub.vocabulary import COMPONENT_SCORES, CUT_SCORES, Reward
from hub.web.model_forms import Typed, body_of, typed_of

# By the field; "no" and the field is what the choice of nothing is called.
LABELS: Mapping[str, str] = {
    "search": "Search",
    "budget": "Budget",
    "l1": "Penalty on weights",
    "tune.steps": "Tuning steps",
    "tune.learning_rate": "Tuning rate",
    "targets": "Layers",
    "sft.target_modules": "Layers",
    "init": "Start of A and B",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "ratio": "LoRA+ ratio",
    "settings": "Named settings",
    "compare": "Compare with",
    "accumulation": "Batches per update",
    "max_length": "Longest example",
    "validate_every": "Validate every",
    "load_in_4bit": "Base in four bits",
    "lr_search.rates": "Rates to try",
    "lr_search.steps": "Steps of each try",
    "kl": "KL weight",
    "grpo.kl": "KL weight",
    "top": "Matrices tried",
    "loss_budget": "Loss budget",
    "limit": "Examples of each",
    "max_new_tokens": "Longest answer",
    "include_base": "The base too",
    "time_limit_minutes": "Time limit, minutes",
    "no visibility": "as its inputs",
    "no template": "as its modules",
    # What words among the choices are called.
    "=lora": "plain LoRA",
    "=loraplus": "LoRA+",
    "=pissa_rl": "PiSSA, then RL",
    "=rl_first": "RL first",
    "=a_zero": "A at zero",
    "=pissa": "PiSSA",
    "=pissa_niter_4": "PiSSA, fast",
    "=nevergrad": "nevergrad, without gradients",
}


class Unreadable(Exception):
    """What was typed cannot become a request: problems by the field that shows them."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = problems


@dataclass(frozen=True)
class Form:
    """`fields` are shown at once, `more` under headings that open. `build` adds what is not one field of the model."""

    kind: str
    title: str
    lead: str
    model: type[Request]
    fields: Sequence[str]
    more: Mapping[str, Sequence[str]]
    build: Callable[[Typed, dict[str, Any]], None]
    sources: Sequence[str] = ("examples", "held_out")
    makes: bool = True  # a module, so that a name is asked for

    @property
    def names(self) -> list[str]:
        return [*self.fields, *(name for group in self.more.values() for name in group)]

    def body(self, typed: Typed) -> dict[str, Any]:
        """The request as JSON. Raises Unreadable."""
        body: dict[str, Any] = {"kind": self.kind, **body_of(self.model, self.names, typed)}
        if self.makes:
            body["name"] = f"{one(typed, 'namespace')}/{one(typed, 'result')}"
        body |= _examples(typed, self.sources)
        self.build(typed, body)
        return body

    def asked(self, typed: Typed) -> dict[str, Any]:
        """What is asked for as far as it is typed, with the model's own where nothing is: enough to tell how much work it is."""
        defaults = {
            name: field.get_default(call_default_factory=True) for name, field in self.model.model_fields.items()
        }
        asked = {name: dict(value) if isinstance(value, Strict) else value for name, value in defaults.items()}
        for name, value in body_of(self.model, self.names, typed).items():
            asked[name] = {**(asked[name] or {}), **value} if isinstance(value, dict) else value
        if one(typed, "tuning") == "no":
            asked["tune"] = None
        if one(typed, "search_rate") == "yes":
            asked["lr_search"] = asked["lr_search"] or {}
        if one(typed, "choose") == "namespaces":
            pool = one(typed, "pool", "200")
            return asked | {"choose": 1, "modules": range(int(pool) if pool.isdigit() and len(pool) < 4 else 0)}
        return asked | {"modules": modules_of(typed), "subject": one(typed, "subject", "base")}


def one(typed: Typed, name: str, default: str = "") -> str:
    given = typed.get(name)
    return given[-1].strip() if given else default


def module_of(reference: str) -> dict[str, str]:
    """namespace/name, then @revision and #folder where they are not main and the top."""
    repo, _, folder = reference.strip().partition("#")
    repo, _, revision = repo.partition("@")
    return {"repo": repo, **({"revision": revision} if revision else {}), **({"folder": folder} if folder else {})}


def reference_of(module: Mapping[str, str]) -> str:
    revision, folder = module.get("revision", "main"), module.get("folder", "")
    return module["repo"] + (f"@{revision}" if revision != "main" else "") + (f"#{folder}" if folder else "")


def modules_of(typed: Typed) -> list[dict[str, str]]:
    return [module_of(reference) for reference in typed.get("module", ()) if reference.strip()]


# --- examples ---------------------------------------------------------------------------------------------------------


def _examples(typed: Typed, sources: Sequence[str]) -> dict[str, Any]:
    problems: dict[str, str] = {}
    found: dict[str, Any] = {}
    for name in sources:
        if one(typed, f"{name}.from") == "paste":
            found[name] = _pasted(typed, name, problems)
        elif one(typed, f"{name}.from") == "dataset":
            found[name] = _dataset(typed, name, problems)
    if "held_out" in sources and one(typed, "held_out.from") == "share":
        _split(typed, found, problems)
    if problems:
        raise Unreadable(problems)
    return {
        name: {"inline": [each.model_dump(exclude_defaults=True) for each in source]}
        if isinstance(source, list)
        else source
        for name, source in found.items()
        if source
    }


def _pasted(typed: Typed, name: str, problems: dict[str, str]) -> list[ExampleText]:
    result = parse_examples.parse("".join(typed.get(f"{name}.text", ())[-1:]))
    if result.problems:
        first = result.problems[0]
        more = f" ({len(result.problems)} such lines.)" if len(result.problems) > 1 else ""
        problems[name] = f"Line {first.line}: {first.message}{more}"
    elif not result.examples:
        problems[name] = "There are no examples; paste some, or choose a data set."
    return result.examples


def _dataset(typed: Typed, name: str, problems: dict[str, str]) -> dict[str, str]:
    dataset = one(typed, f"{name}.dataset")
    if not dataset:
        problems[name] = "Name a data set, or paste examples."
    more = {key: one(typed, f"{name}.{key}") for key in ("revision", "path")}
    return {"dataset": dataset, **{key: value for key, value in more.items() if value}}


def _split(typed: Typed, found: dict[str, Any], problems: dict[str, str]) -> None:
    examples = found.get("examples")
    if not isinstance(examples, list):
        problems["held_out"] = "Only what is pasted here can be split; name a file of held-out examples instead."
        return
    if len(examples) < 2:
        problems.setdefault("held_out", "It takes two examples to hold one of them out.")
        return
    try:
        share = float(one(typed, "held_out.share", "20")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        problems["held_out"] = "The part that is held out is a number of per cent between 0 and 100."
        return
    seed = one(typed, "seed", "0")
    found["examples"], found["held_out"] = parse_examples.held_back(examples, share, int(seed) if seed.isdigit() else 0)


# --- the kinds --------------------------------------------------------------------------------------------------------


def _compose(typed: Typed, body: dict[str, Any]) -> None:
    body["base"] = one(typed, "base") or None
    if one(typed, "choose") == "namespaces":
        body["modules"] = {"from": one(typed, "from").replace(",", " ").split()}
        for name in ("k", "by", "pool"):
            if value := one(typed, name):
                body["modules"][name] = value
    else:
        body["modules"] = modules_of(typed)
        if not body["modules"]:
            raise Unreadable({"modules": "Choose at least one module."})
    if one(typed, "tuning") == "no":
        body["tune"] = None


def _train(typed: Typed, body: dict[str, Any]) -> None:
    modules = modules_of(typed)
    if not modules:
        body["base"] = one(typed, "base") or None
    else:
        body["start_from"] = modules[0]
        for name in GIVEN_BY_START:
            if name in body:
                raise Unreadable({name: "The module that is trained further decides this; leave it as it was."})
    if one(typed, "search_rate") == "yes":
        body.setdefault("lr_search", {})


def _par(typed: Typed, body: dict[str, Any]) -> None:
    body["base"] = one(typed, "base")
    body["split"] = one(typed, "split", "labels")
    if body["split"] == "vote":
        names = [name for name in one(typed, "teachers").replace(",", " ").split() if name]
        servers = [name for name in one(typed, "servers").replace(",", " ").split() if name]
        gold = _examples(typed, ("gold",)).get("gold")
        if gold is None:
            raise Unreadable({"gold": "A vote needs a few dozen examples whose system is known."})
        teachers = [{"base": name} for name in names] + [{"server": name} for name in servers]
        body["split"] = {"teachers": teachers, "gold": gold}
    weights = {name: value for name in get_args(Reward) if (value := one(typed, f"grpo.rewards.{name}"))}
    if weights:
        body.setdefault("grpo", {})["rewards"] = weights


def _reduce(typed: Typed, body: dict[str, Any]) -> None:
    module = modules_of(typed)
    of_module = one(typed, "subject", "base") == "module"
    if of_module:
        body["subject"] = "module"
    if module:
        body["module"] = module[0]
    if not of_module or not module:
        body["base"] = one(typed, "base") or None
    for name in ("form", "variant", "top", "budget") if of_module else ("loss_budget",):
        body.pop(name, None)  # of the other subject: the form shows both
    if body.get("score") not in (*(COMPONENT_SCORES if of_module else CUT_SCORES), None):
        body.pop("score")


def _evaluate(typed: Typed, body: dict[str, Any]) -> None:
    body["modules"] = modules_of(typed)
    if not body["modules"]:
        body["base"] = one(typed, "base") or None
    rows = zip(typed.get("dataset", ()), typed.get("path", ()), strict=False)
    named = [
        {"dataset": name.strip(), **({"path": path.strip()} if path.strip() else {})}
        for name, path in rows
        if name.strip()
    ]
    given = body.pop("examples", None)
    body["datasets"] = [*named, *([given] if given else [])]
    if not body["datasets"]:
        raise Unreadable({"datasets": "Name a data set, or paste examples."})


LIMIT = ("seed", "template", "time_limit_minutes")

_FORMS = (
    Form(
        "compose",
        "Compose",
        "Finds how much of each module to take, from a handful of examples of a new task.",
        ComposeRequest,
        ("search", "form", "budget", "visibility"),
        {
            "Search in detail": ("optimizer", "population", "per_layer", "patience", "seconds", "bound", "l1"),
            "Form in detail": ("rank", "density", "weights"),
            "Tuning and report": ("tune.steps", "tune.learning_rate", "controls"),
            "Seed, template and time limit": LIMIT,
        },
        _compose,
    ),
    Form(
        "train",
        "Train",
        "Learns a module from examples with LoRA+: B learns faster than A.",
        TrainRequest,
        ("rank", "learning_rate", "epochs", "visibility", "compare"),
        {
            "Module": ("alpha", "targets", "init", "dropout", "rslora", "dora"),
            "Training": (
                *("ratio", "steps", "batch_size", "accumulation", "warmup", "schedule", "weight_decay"),
                *("max_length", "load_in_4bit"),
            ),
            "Validation": ("validation_share", "validate_every", "early_stop", "lr_search.rates", "lr_search.steps"),
            "Seed, template and time limit": LIMIT,
        },
        _train,
    ),
    Form(
        "par",
        "LoRA-PAR",
        "Learns fast and slow thinking in parts of one module: System 1 from examples, System 2 by reinforcement.",
        ParRequest,
        ("settings", "measure", "visibility", "compare"),
        {
            "Partition": (
                "partition.start",
                "partition.theta",
                "partition.alpha",
                "partition.beta",
                "partition.sample",
            ),
            "Stage 1, supervised": tuple(
                f"sft.{name}"
                for name in "rank alpha target_modules learning_rate warmup schedule steps epochs batch_size accumulation "
                "max_length weight_decay".split()
            ),
            "Stage 2, reinforced": tuple(
                f"grpo.{name}"
                for name in "learning_rate kl temperature loss prompts generations batch_size steps epochs max_prompt max_answer "
                "warmup schedule weight_decay clip".split()
            ),
            "Validation, seed, template and time limit": ("validation_share", *LIMIT),
        },
        _par,
    ),
    Form(
        "reduce",
        "Reduce",
        "Cuts what a task does not need: a base gets better at it, or a module gets smaller.",
        ReduceRequest,
        ("form", "loss_budget", "visibility"),
        {
            "Cuts of a base": ("variant", "top", "budget"),
            "Score, seed, template and time limit": ("score", *LIMIT),
        },
        _reduce,
    ),
    Form(
        "evaluate",
        "Evaluate",
        "Measures modules on data sets. The figures stay with the modules and are shown in Scores.",
        EvaluateRequest,
        ("metrics", "limit", "max_new_tokens", "include_base"),
        {"Seed, template and time limit": LIMIT},
        _evaluate,
        sources=("examples",),
        makes=False,
    ),
)
FORMS: Mapping[str, Form] = {form.kind: form for form in _FORMS}


# --- again ------------------------------------------------------------------------------------------------------------


def typed_again(form: Form, request: Mapping[str, Any]) -> dict[str, list[str]]:
    """What would have been typed for a request that was made before."""
    special = ("kind", "name", "modules", "module", "start_from", "examples", "held_out", "datasets", "split")
    typed = typed_of({key: value for key, value in request.items() if key not in special})
    namespace, _, result = str(request.get("name", "")).partition("/")
    typed |= {"namespace": [namespace], "result": [result]}
    modules = request.get("modules") or request.get("module") or request.get("start_from") or []
    if isinstance(modules, Mapping) and "from" in modules:
        typed |= {"choose": ["namespaces"], "from": [" ".join(modules["from"])]}
        typed |= typed_of({key: value for key, value in modules.items() if key != "from"})
    else:
        typed["module"] = [reference_of(each) for each in (modules if isinstance(modules, list) else [modules])]
    for name in form.sources:
        typed |= _source_again(name, request.get(name))
    if request.get("datasets"):
        typed["dataset"] = [each["dataset"] for each in request["datasets"]]
        typed["path"] = [each.get("path") or "" for each in request["datasets"]]
    split = request.get("split", "labels")
    if isinstance(split, Mapping):
        for kind in ("base", "server"):
            named = [teacher[kind] for teacher in split["teachers"] if teacher.get(kind)]
            typed["teachers" if kind == "base" else "servers"] = [" ".join(named)]
        typed |= _source_again("gold", split["gold"])
    typed["split"] = ["vote" if isinstance(split, Mapping) else str(split)]
    if "tune" in request and request["tune"] is None:
        typed["tuning"] = ["no"]
    if request.get("lr_search") is not None:
        typed["search_rate"] = ["yes"]
    return typed


def _source_again(name: str, source: Mapping[str, Any] | None) -> dict[str, list[str]]:
    if not source:
        return {}
    kept = {key: source.get(key) for key in ("dataset", "revision", "path") if source.get(key)}
    return {f"{name}.from": ["dataset"], **{f"{name}.{key}": [str(value)] for key, value in kept.items()}}
