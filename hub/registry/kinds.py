"""What may be asked of the workers: the request of each kind of job, and how it is checked and pinned before it is queued."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.registry import bases, repos
from hub.registry.errors import Forbidden, InvalidInput
from hub.registry.inspect import NOT_PLAIN
from hub.registry.jobs import Input, Submission
from hub.registry.models import AdapterFacts, Commit, Repo
from hub.registry.repos import VISIBILITIES, Visibility
from hub.registry.teams import Viewer

Template = Literal["chat", "plain"]
Metric = Literal["exact_match", "contains", "numeric", "choice", "target_loss"]


class NotAnAdapter(InvalidInput):
    code = "not_an_adapter"


class IncompatibleModules(InvalidInput):
    code = "incompatible_modules"


class AmbiguousFile(InvalidInput):
    code = "ambiguous_file"


class WiderThanInputs(Forbidden):
    code = "wider_than_inputs"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def storable(cls, value: Any) -> Any:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("a NUL character cannot be kept; leave it out")
        return value


class ExampleText(Strict):
    input: str = Field(min_length=1, max_length=20_000)
    target: str = Field(min_length=1, max_length=20_000)
    choices: list[str] = Field(default=[], max_length=50)


class Examples(Strict):
    """Either written out here, or a JSONL file of a data set at a revision, which is pinned to its commit."""

    inline: list[ExampleText] | None = Field(None, min_length=1, max_length=5_000)
    dataset: str | None = Field(None, description="namespace/name of a data set repo")
    revision: str = "main"
    path: str | None = Field(None, description="the .jsonl file; may be left out where there is only one")

    @model_validator(mode="after")
    def one_source(self) -> "Examples":
        if (self.inline is None) == (self.dataset is None):
            raise ValueError("give either inline examples or a data set, not both and not neither")
        return self


class Module(Strict):
    repo: str = Field(description="namespace/name of an adapter")
    revision: str = Field("main", description="branch, tag, version (v2) or commit")
    folder: str = Field("", description="the folder of the adapter, where the repo has several")


class ComposeRequest(Strict):
    """LoraHub: find weights for existing modules from a handful of examples (arXiv 2307.13269)."""

    kind: Literal["compose"]
    name: str = Field(description="namespace/name of the result")
    modules: list[Module] = Field(min_length=1, max_length=100)
    examples: Examples = Field(description="what the weights are searched on")
    held_out: Examples | None = Field(None, description="what the report measures on; at least 100 for a claim")
    base: str | None = Field(None, description="left out: the base on which the modules agree")
    form: Literal["sum", "product"] = "sum"
    optimizer: str = Field("NGOpt", max_length=60, description="the name of a nevergrad optimiser")
    budget: int = Field(40, ge=1, le=5_000, description="evaluations of the loss")
    bound: float = Field(1.5, gt=0, le=100, description="weights lie in [-bound, bound]")
    l1: float = Field(0.05, ge=0, le=100, description="times the mean absolute weight, added to the loss")
    seed: int = Field(0, ge=0, lt=2**32)
    template: Template | None = Field(None, description="left out: the one the modules were trained with, else chat")
    visibility: Visibility | None = Field(None, description="left out: that of the least visible input")


class EvaluateRequest(Strict):
    """Score modules on data sets; the figures are kept with the commits."""

    kind: Literal["evaluate"]
    modules: list[Module] = Field(default=[], max_length=100)
    datasets: list[Examples] = Field(min_length=1, max_length=20)
    base: str | None = None
    include_base: bool = Field(True, description="also score the base alone")
    metrics: list[Metric] = Field(default=["exact_match", "target_loss"], min_length=1)
    limit: int = Field(500, ge=1, le=10_000, description="the first so many examples of each data set")
    max_new_tokens: int = Field(32, ge=1, le=1_024)
    seed: int = Field(0, ge=0, lt=2**32, description="of the bootstrap")
    template: Template | None = None


class GenerateRequest(Strict):
    """Answer a prompt with the base alone and with an adapter, side by side. The answer is kept for 24 hours."""

    kind: Literal["generate"]
    prompt: str = Field(min_length=1, max_length=20_000)
    module: Module | None = None
    base: str | None = None
    max_new_tokens: int = Field(64, ge=1, le=1_024)
    template: Template | None = None


JobRequest = Annotated[ComposeRequest | EvaluateRequest | GenerateRequest, Field(discriminator="kind")]


def resolve(
    session: Session, viewer: Viewer, request: ComposeRequest | EvaluateRequest | GenerateRequest
) -> Submission:
    """Pin every input of a request and check that they fit. Inline examples must have become data sets before."""
    if isinstance(request, ComposeRequest):
        return _compose(session, viewer, request)
    if isinstance(request, EvaluateRequest):
        return _evaluate(session, viewer, request)
    return _generate(session, viewer, request)


def _compose(session: Session, viewer: Viewer, request: ComposeRequest) -> Submission:
    modules = [_pin_module(session, viewer, module) for module in request.modules]
    base = _agree(session, modules, request.base)
    _check_composable(modules, request.form)
    sources = {"examples": request.examples, "held_out": request.held_out}
    pinned = {role: _pin_examples(session, viewer, source) for role, source in sources.items() if source}
    inputs = [Input(module["commit"], "module") for module in modules]
    inputs += [Input(source["commit"], "dataset") for source in pinned.values()]
    visibility = result_visibility(session, [item.commit_id for item in inputs], request.visibility)
    check_not_wider(repos.check_target(session, viewer, "model", request.name), visibility)
    settings = request.model_dump(include={"form", "optimizer", "budget", "bound", "l1", "seed"})
    return Submission(
        kind="compose",
        queue="gpu",
        params={
            "result": request.name,
            "base": base,
            "modules": [_without_facts(module) for module in modules],
            **pinned,
            **settings,
            "template": request.template or _common_template(modules),
        },
        inputs=inputs,
        namespace=repos.split_name(request.name)[0],
        visibility=visibility,
    )


def _evaluate(session: Session, viewer: Viewer, request: EvaluateRequest) -> Submission:
    modules = [_pin_module(session, viewer, module) for module in request.modules]
    base = _agree(session, modules, request.base)
    datasets = [_pin_examples(session, viewer, source) for source in request.datasets]
    inputs = [Input(module["commit"], "module") for module in modules]
    inputs += [Input(source["commit"], "dataset") for source in datasets]
    settings = request.model_dump(include={"metrics", "limit", "max_new_tokens", "include_base", "seed"})
    return Submission(
        kind="evaluate",
        queue="interactive",
        params={
            "base": base,
            "modules": [_without_facts(module) for module in modules],
            "datasets": datasets,
            **settings,
            "template": request.template or _common_template(modules),
        },
        inputs=inputs,
        namespace=viewer.name,
        visibility="private",
    )


def _generate(session: Session, viewer: Viewer, request: GenerateRequest) -> Submission:
    modules = [_pin_module(session, viewer, request.module)] if request.module else []
    base = _agree(session, modules, request.base)
    return Submission(
        kind="generate",
        queue="interactive",
        params={
            "base": base,
            "module": _without_facts(modules[0]) if modules else None,
            "prompt": request.prompt,
            "max_new_tokens": request.max_new_tokens,
            "template": request.template or _common_template(modules),
        },
        inputs=[Input(module["commit"], "module") for module in modules],
        namespace=viewer.name,
        visibility="private",
    )


def _pin_module(session: Session, viewer: Viewer, module: Module) -> dict[str, Any]:
    repo = repos.find(session, viewer, "model", module.repo)
    commit = repos.resolve(session, repo, module.revision)
    facts = session.get(AdapterFacts, (commit.id, module.folder))
    if facts is None:
        where = f" in its folder {module.folder!r}" if module.folder else ""
        raise NotAnAdapter(f"{module.repo} at {module.revision} has no sound adapter{where}; see its findings.")
    return {
        "repo": repo.full_name,
        "commit": commit.id,
        "folder": module.folder,
        "template": facts.facts["template"],
        "licence": facts.facts["licence"],
        "base_id": facts.base_id,
        "base_model": facts.base_model,
        "facts": facts.facts,
    }


def _without_facts(module: dict[str, Any]) -> dict[str, Any]:
    return {key: module[key] for key in ("repo", "commit", "folder", "template", "licence")}


def _pin_examples(session: Session, viewer: Viewer, source: Examples) -> dict[str, Any]:
    repo = repos.find(session, viewer, "dataset", source.dataset or "")
    commit = repos.resolve(session, repo, source.revision)
    names = [entry.path for entry in repos.files(session, commit) if entry.path.endswith(".jsonl")]
    if source.path is None and len(names) != 1:
        raise AmbiguousFile(
            f"{repo.full_name} has {len(names)} .jsonl files ({', '.join(names) or 'none'}); name one as `path`."
        )
    path = source.path or names[0]
    repos.file(session, commit, path)
    return {"repo": repo.full_name, "commit": commit.id, "path": path}


def _agree(session: Session, modules: Sequence[dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    """The one base of all modules, or the one asked for if every module's layers are there with the same shapes."""
    ids = {module["base_id"] for module in modules}
    if wanted is None:
        if None in ids:
            unknown = next(module for module in modules if module["base_id"] is None)
            raise IncompatibleModules(
                f"{unknown['repo']} names the base {unknown['base_model']!r}, which is not registered here; "
                "register that base, or name the base to use."
            )
        if len(ids) > 1:
            detail = "; ".join(f"{module['repo']} is for {module['base_id']}" for module in modules)
            raise IncompatibleModules(f"The modules do not share a base: {detail}. Choose modules of one base.")
        if not ids:
            raise InvalidInput("Name a module or a base.")
        wanted = ids.pop()
    base = bases.find(session, wanted or "")
    for module in modules:
        for name, (width, height, _) in module["facts"]["shapes"].items():
            there = base.shapes.get(name)
            if there != [width, height]:
                what = (
                    f"has no layer {name}" if there is None else f"has {name} of shape {there}, not {[width, height]}"
                )
                raise IncompatibleModules(f"{module['repo']} does not fit {base.id}: the base {what}.")
    return {"id": base.id, "path": base.path, "fingerprint": base.fingerprint}


def _check_composable(modules: Sequence[dict[str, Any]], form: str) -> None:
    seen = set()
    for module in modules:
        place = (module["commit"], module["folder"])
        if place in seen:
            raise IncompatibleModules(f"{module['repo']} is chosen twice; every module may take part once.")
        seen.add(place)
        odd = [flag for flag in module["facts"]["flags"] if flag in NOT_PLAIN]
        if odd:
            raise IncompatibleModules(
                f"{module['repo']} uses {odd[0]}, which a weighted sum of A and B cannot express; leave it out."
            )
    if form == "product":
        found = {rank for module in modules for rank in module["facts"]["ranks"]}
        if len(found) > 1:
            detail = ", ".join(f"{module['repo']}: {module['facts']['ranks']}" for module in modules)
            raise IncompatibleModules(f"The product form needs modules of one equal rank ({detail}); use form `sum`.")


def _common_template(modules: Sequence[dict[str, Any]]) -> str:
    """The template that the modules recorded, if they agree; the chat template otherwise."""
    found = {module["template"] for module in modules if module["template"]}
    return str(found.pop()) if len(found) == 1 else "chat"


def named_commits(
    session: Session, viewer: Viewer, request: ComposeRequest | EvaluateRequest | GenerateRequest
) -> list[str]:
    """The commits that a request names, inline examples aside: what decides how visible those may become."""
    modules: Sequence[Module | None]
    sources: Sequence[Examples | None]
    if isinstance(request, GenerateRequest):
        modules, sources = [request.module], []
    elif isinstance(request, EvaluateRequest):
        modules, sources = request.modules, request.datasets
    else:
        modules, sources = request.modules, [request.examples, request.held_out]
    commits = [_pin_module(session, viewer, module)["commit"] for module in modules if module]
    return commits + [
        _pin_examples(session, viewer, source)["commit"] for source in sources if source and source.dataset
    ]


def check_not_wider(target: Repo | None, visibility: Visibility) -> None:
    """A repo that is there already keeps its visibility, so a result of less visible inputs cannot go into it."""
    if target is not None and VISIBILITIES.index(target.visibility) > VISIBILITIES.index(visibility):
        raise WiderThanInputs(
            f"{target.full_name} is {target.visibility}, but the result may only be {visibility}: "
            "choose another name, or make the inputs as visible first."
        )


def result_visibility(session: Session, commit_ids: Sequence[str], wanted: Visibility | None) -> Visibility:
    """At most as visible as the least visible input; internal by default."""
    limit = repos.least_visible(session, commit_ids)
    if wanted is None:
        return min(limit, "internal", key=VISIBILITIES.index)
    if VISIBILITIES.index(wanted) > VISIBILITIES.index(limit):
        hidden = session.scalars(
            select(Repo.namespace + "/" + Repo.name)
            .join(Commit, Commit.repo_id == Repo.id)
            .where(Commit.id.in_(commit_ids), Repo.visibility == limit)
        ).first()
        raise WiderThanInputs(f"The result cannot be {wanted}: its input {hidden} is {limit}. Ask for {limit}.")
    return wanted
