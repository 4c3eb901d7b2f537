"""Change who may see a repo, and find what a change would reveal."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, aliased

from hub.registry.content.repos import WriteRepo
from hub.registry.models.adapters import Lineage
from hub.registry.models.content import Commit, Repo
from hub.registry.platform.errors import Conflict, InvalidInput
from hub.vocabulary import VISIBILITIES, Visibility


class WouldReveal(Conflict):
    code = "would_reveal"


class MoreVisible(Conflict):
    """The repo exists already and is more visible than its new content may be."""

    code = "more_visible"


def check_not_wider(target: Repo | None, visibility: Visibility | None) -> None:
    """An existing repo keeps its visibility. Raises MoreVisible if that is wider than `visibility`."""
    if target and visibility and VISIBILITIES.index(target.visibility) > VISIBILITIES.index(visibility):
        raise MoreVisible(
            f"{target.full_name} is {target.visibility}, but what goes into it may only be {visibility}: "
            "choose another name, or change the visibility of the repo or of its inputs first."
        )


def parse_visibility(text: str) -> Visibility:
    """Raises InvalidInput."""
    for visibility in VISIBILITIES:
        if text == visibility:
            return visibility
    *others, last = VISIBILITIES
    raise InvalidInput(f"{text!r} is not a valid visibility; choose {', '.join(others)} or {last}.")


def change_visibility(session: Session, writer: WriteRepo, visibility: Visibility, *, reveal: bool) -> Repo:
    """Change a repo's visibility. Raises WouldReveal with the names of less visible inputs, unless `reveal` confirms it."""
    repo = writer.repo
    if not reveal and VISIBILITIES.index(visibility) > VISIBILITIES.index(repo.visibility):
        act = f"Making {repo.full_name} {visibility}"
        check_reveals_nothing(session, Commit.repo_id == repo.id, visibility, act)
    writer.record(session, "visibility.set", repo.full_name, now=visibility, before=repo.visibility)
    repo.visibility = visibility
    return repo


def check_reveals_nothing(session: Session, which: ColumnElement[bool], visibility: Visibility, act: str) -> None:
    """Raises WouldReveal, listing the inputs, if one of these commits has an input less visible than `visibility`."""
    parent = aliased(Commit)
    inputs = session.scalars(
        select(Repo)
        .join(parent, parent.repo_id == Repo.id)
        .join(Lineage, Lineage.parent == parent.id)
        .join(Commit, Commit.id == Lineage.child)
        .where(which)
    ).unique()
    narrower = sorted(r.full_name for r in inputs if VISIBILITIES.index(r.visibility) < VISIBILITIES.index(visibility))
    if narrower:
        raise WouldReveal(
            f"{act} shows that it was made from {', '.join(narrower)}, named in its card and manifest; "
            "repeat with `reveal` to confirm.",
            reveals=narrower,
        )


def least_visible(session: Session, commit_ids: Sequence[str]) -> Visibility:
    """The visibility of the least visible repo among these commits; public if there are none."""
    levels = set(
        session.scalars(
            select(Repo.visibility).join(Commit, Commit.repo_id == Repo.id).where(Commit.id.in_(commit_ids))
        )
    )
    return next((level for level in VISIBILITIES if level in levels), "public")
