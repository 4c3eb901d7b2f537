"""What the requests of all kinds of job share: modules and examples by name, pinned to commits; the base they agree on; visibility."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.content import repo_visibility, repos
from hub.registry.datasets.examples import Examples, Strict, pin_examples
from hub.registry.inspection.facts import NOT_PLAIN
from hub.registry.jobs.queueing import Submission
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, Repo
from hub.registry.platform.errors import Forbidden, InvalidInput
from hub.vocabulary import VISIBILITIES, Visibility

# What a job keeps of its base: what it is called, where it is, and which weights it must have.
PINNED = ("id", "path", "upstream", "revision", "dtype", "fingerprint", "licence")


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


class Request(Strict):
    """One kind of job. `resolve` pins what it names; before that, `submit` puts inline examples into a data set and refers to it."""

    kind: str
    time_limit_minutes: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="end it as failed when it has run so long; left out, or more: the hub's own limit",
    )

    def named_modules(self) -> Sequence[Module]:
        raise NotImplementedError

    def sources(self) -> Mapping[str, Examples]:
        """Where its examples come from, by the file name that they get if they are inline."""
        raise NotImplementedError

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        """The same request with other sources under the same file names."""
        raise NotImplementedError

    def resolve(self, session: Session, viewer: Viewer) -> Submission:
        """Pin every input and check that they fit. Raises what is wrong with them."""
        raise NotImplementedError

    def examples_repo(self, viewer: Viewer) -> str:
        """The data set that inline examples become: named by what they are, as nothing else names them."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()
        return f"{viewer.namespace}/{self.kind}-{digest[:12]}"

    def examples_visibility(self, session: Session, viewer: Viewer) -> Visibility:
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

    def pinned_modules(self, session: Session, viewer: Viewer) -> list[dict[str, Any]]:
        return [pin_module(session, viewer, module) for module in self.named_modules()]

    def examples_visibility(self, session: Session, viewer: Viewer) -> Visibility:
        commits = [module["commit"] for module in self.pinned_modules(session, viewer)]
        named = [source for source in self.sources().values() if source.dataset]
        commits += [pin_examples(session, viewer, source)["commit"] for source in named]
        return result_visibility(session, commits, self.visibility)

    def target(self, session: Session, viewer: Viewer, commit_ids: Sequence[str]) -> tuple[str, Visibility]:
        """The namespace of the result and its visibility, after checking that the viewer may put it there."""
        visibility = result_visibility(session, commit_ids, self.visibility)
        check_not_wider(repos.check_target(session, viewer, "model", self.name), visibility)
        return repos.split_name(self.name)[0], visibility


def pin_module(session: Session, viewer: Viewer, module: Module) -> dict[str, Any]:
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


def without_facts(module: dict[str, Any]) -> dict[str, Any]:
    return {key: module[key] for key in ("repo", "commit", "folder", "template", "licence")}


def agree(session: Session, modules: Sequence[dict[str, Any]], wanted: str | None) -> dict[str, Any]:
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
    base = base_models.find(session, wanted or "")
    for module in modules:
        for name, (width, height, _) in module["facts"]["shapes"].items():
            there = base.shapes.get(name)
            if there != [width, height]:
                what = (
                    f"has no layer {name}" if there is None else f"has {name} of shape {there}, not {[width, height]}"
                )
                raise IncompatibleModules(f"{module['repo']} does not fit {base.id}: the base {what}.")
    return {name: getattr(base, name) for name in PINNED}


def check_plain(module: dict[str, Any]) -> None:
    """Raises IncompatibleModules where the module is more than a product of A and B on each layer."""
    odd = [flag for flag in module["facts"]["flags"] if flag in NOT_PLAIN]
    if odd:
        raise IncompatibleModules(
            f"{module['repo']} uses {odd[0]}, which a weighted sum of A and B cannot express; leave it out."
        )


def common_template(modules: Sequence[dict[str, Any]]) -> str:
    """The template that the modules recorded, if they agree; the chat template otherwise."""
    found = {module["template"] for module in modules if module["template"]}
    return str(found.pop()) if len(found) == 1 else "chat"


def check_not_wider(target: Repo | None, visibility: Visibility) -> None:
    """A repo that is there already keeps its visibility, so a result of less visible inputs cannot go into it."""
    if target is not None and VISIBILITIES.index(target.visibility) > VISIBILITIES.index(visibility):
        raise WiderThanInputs(
            f"{target.full_name} is {target.visibility}, but the result may only be {visibility}: "
            "choose another name, or make the inputs as visible first."
        )


def result_visibility(session: Session, commit_ids: Sequence[str], wanted: Visibility | None) -> Visibility:
    """At most as visible as the least visible input; internal by default."""
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
