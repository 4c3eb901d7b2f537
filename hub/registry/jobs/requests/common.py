"""What the requests of all kinds of job share: adapters and examples by name, pinned to commits; the base they agree on; visibility."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.content import repo_visibility, repos
from hub.registry.datasets.examples import Examples, PinnedExamples, Strict, pin_examples
from hub.registry.inspection.facts import NOT_PLAIN
from hub.registry.jobs.contracts.common import PinnedBase, PinnedModule
from hub.registry.jobs.queueing import Input, Submission
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, Repo
from hub.registry.platform.errors import Forbidden, InvalidInput
from hub.vocabulary import VISIBILITIES, JobKind, Template, Visibility


class NotAnAdapter(InvalidInput):
    code = "not_an_adapter"


class IncompatibleModules(InvalidInput):
    code = "incompatible_modules"


class WiderThanInputs(Forbidden):
    code = "wider_than_inputs"


class Module(Strict):
    repo: str = Field(description="namespace/name of an adapter")
    revision: str = Field("main", description="branch, tag, version (v2) or commit")
    folder: str = Field("", description="the folder of the adapter, where the repo has several")


@dataclass(frozen=True)
class Adapter:
    """An adapter at its commit with what is known of it. `shapes`: linear layer -> [in, out, rank]."""

    pinned: PinnedModule
    base_id: str | None
    base_model: str | None
    shapes: Mapping[str, Sequence[int]]
    flags: Sequence[str]

    @property
    def repo(self) -> str:
        return self.pinned.repo


class Request(Strict):
    """One kind of job. `pin_modules` and then `resolve` pin its inputs to commits.

    Between the two, `submit` puts inline examples into a data set and refers to it.
    """

    kind: JobKind
    time_limit_minutes: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="end it as failed when it has run so long; left out, or more: the hub's own limit",
    )

    def named_modules(self) -> Sequence[Module]:
        raise NotImplementedError

    def sources(self) -> Mapping[str, Examples]:
        """The sources of its examples, by the file name that inline examples get."""
        raise NotImplementedError

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        """The same request with other sources under the same file names."""
        raise NotImplementedError

    def pin_modules(self, session: Session, viewer: Viewer) -> Sequence[Adapter]:
        return [pin_module(session, viewer, module) for module in self.named_modules()]

    def resolve(self, session: Session, viewer: Viewer, modules: Sequence[Adapter]) -> Submission:
        """Pin the examples, and check that they fit the pinned adapters. Raises HubError if they do not."""
        raise NotImplementedError

    def examples_repo(self, viewer: Viewer) -> str:
        """The name of the data set that stores the inline examples, derived from their content."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()
        return f"{viewer.namespace}/{self.kind}-{digest[:12]}"

    def examples_visibility(self, session: Session, viewer: Viewer, modules: Sequence[Adapter]) -> Visibility:
        return "private"

    def check_name(self, session: Session, viewer: Viewer) -> None:
        """Raise what is wrong with the name that the result shall have, where there is one."""


class ResultRequest(Request):
    """A kind of job that makes an adapter. Its inline examples lie beside the result, as visible as the result."""

    name: str = Field(description="namespace/name of the result")
    visibility: Visibility | None = Field(None, description="left out: that of the least visible input")

    def examples_repo(self, viewer: Viewer) -> str:
        return f"{self.name}-examples"

    def check_name(self, session: Session, viewer: Viewer) -> None:
        repos.check_target(session, viewer, "model", self.name)

    def examples_visibility(self, session: Session, viewer: Viewer, modules: Sequence[Adapter]) -> Visibility:
        commits = [module.pinned.commit for module in modules]
        named = [source for source in self.sources().values() if source.dataset]
        commits += [pin_examples(session, viewer, source).commit for source in named]
        return result_visibility(session, commits, self.visibility)

    def target(self, session: Session, viewer: Viewer, commit_ids: Sequence[str]) -> tuple[str, Visibility]:
        """The namespace of the result and its visibility, after checking that the viewer may put it there."""
        visibility = result_visibility(session, commit_ids, self.visibility)
        target = repos.check_target(session, viewer, "model", self.name)
        repo_visibility.check_not_wider(target.repo, visibility)
        return target.name.namespace, visibility


def pin_module(session: Session, viewer: Viewer, module: Module) -> Adapter:
    repo = repos.find(session, viewer, "model", module.repo)
    commit = repos.resolve(session, repo, module.revision)
    facts = session.get(AdapterFacts, (commit.id, module.folder))
    if facts is None:
        where = f" in its folder {module.folder!r}" if module.folder else ""
        raise NotAnAdapter(f"{module.repo} at {module.revision} has no sound adapter{where}; see its findings.")
    return Adapter(
        pinned=PinnedModule(
            repo=repo.full_name,
            commit=commit.id,
            folder=module.folder,
            template=facts.facts["template"],
            licence=facts.facts["licence"],
        ),
        base_id=facts.base_id,
        base_model=facts.base_model,
        shapes=facts.facts["shapes"],
        flags=facts.facts["flags"],
    )


def resolve_base(session: Session, modules: Sequence[Adapter], base_name: str | None) -> PinnedBase:
    """The base of all adapters, or the one that is named if every adapter's layers are there with the same shapes.

    Raises IncompatibleModules, and InvalidInput where neither an adapter nor a base is named.
    """
    base = base_models.find(session, base_name or _shared_base(modules))
    for module in modules:
        for name, (width, height, _) in module.shapes.items():
            there = base.shapes.get(name)
            if there != [width, height]:
                what = (
                    f"has no layer {name}" if there is None else f"has {name} of shape {there}, not {[width, height]}"
                )
                raise IncompatibleModules(f"{module.repo} does not fit {base.id}: the base {what}.")
    return PinnedBase.model_validate(base)


def _shared_base(modules: Sequence[Adapter]) -> str:
    ids = {module.base_id for module in modules}
    if None in ids:
        unknown = next(module for module in modules if module.base_id is None)
        raise IncompatibleModules(
            f"{unknown.repo} names the base {unknown.base_model!r}, which is not registered here; "
            "register that base, or name the base to use."
        )
    if len(ids) > 1:
        detail = "; ".join(f"{module.repo} is for {module.base_id}" for module in modules)
        raise IncompatibleModules(f"The adapters do not share a base: {detail}. Choose adapters of one base.")
    if not ids:
        raise InvalidInput("Name an adapter or a base.")
    return ids.pop() or ""


def check_plain(module: Adapter) -> None:
    """Raises IncompatibleModules where the adapter is more than a product of A and B on each layer."""
    odd = [flag for flag in module.flags if flag in NOT_PLAIN]
    if odd:
        raise IncompatibleModules(
            f"{module.repo} uses {odd[0]}, which a weighted sum of A and B cannot express; leave it out."
        )


def common_template(modules: Sequence[Adapter]) -> Template:
    """The template that the adapters recorded, if they agree; the chat template otherwise."""
    recorded = {module.pinned.template for module in modules if module.pinned.template}
    return recorded.pop() if len(recorded) == 1 else "chat"


def inputs(modules: Sequence[Adapter], *sources: PinnedExamples | None) -> list[Input]:
    """What a job needs to be there, and readable by its owner, when it runs."""
    pinned = [Input(module.pinned.commit, "module") for module in modules]
    return pinned + [Input(source.commit, "dataset") for source in sources if source]


def pin_optional(session: Session, viewer: Viewer, source: Examples | None) -> PinnedExamples | None:
    return pin_examples(session, viewer, source) if source else None


def result_visibility(session: Session, commit_ids: Sequence[str], wanted: Visibility | None) -> Visibility:
    """The result's visibility: at most that of the least visible input; internal by default."""
    limit = repo_visibility.least_visible(session, commit_ids)
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
