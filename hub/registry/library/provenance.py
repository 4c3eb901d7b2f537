"""A commit's ancestors, descendants and measured figures, as far as the viewer may see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.models.access import User
from hub.registry.models.adapters import Lineage, Score
from hub.registry.models.content import Commit, Ref, Repo

PRIVATE = "private module"


@dataclass(frozen=True)
class Relative:
    repo: str
    commit: str | None
    role: str
    weight: float | None


@dataclass(frozen=True)
class Measured:
    repo: str | None  # None: the base alone
    commit: str | None
    base_id: str
    dataset: str
    dataset_commit: str
    dataset_path: str
    template: str
    metric: str
    value: float
    low: float
    high: float
    examples: int
    measured_at: datetime

    @property
    def what(self) -> tuple[str, ...]:
        """The identity of the measurement, apart from the commit that was measured."""
        return self.base_id, self.dataset_commit, self.dataset_path, self.template, self.metric


def parents(session: Session, viewer: Viewer | None, commit: Commit) -> list[Relative]:
    """The inputs of a commit. An input that the viewer may not see keeps its role and weight and loses its name."""
    visible = and_(Repo.deleted_at.is_(None), permissions.readable(viewer))
    rows = session.execute(
        select(Lineage, Repo, visible)
        .join(Commit, Commit.id == Lineage.parent)
        .join(Repo, Repo.id == Commit.repo_id)
        .where(Lineage.child == commit.id)
        .order_by(Lineage.role, Lineage.weight.desc().nulls_last(), Lineage.parent)
    )
    return [
        Relative(repo.full_name, line.parent, line.role, line.weight)
        if seen
        else Relative(PRIVATE, None, line.role, line.weight)
        for line, repo, seen in rows
    ]


def missing_inputs(session: Session, commit: Commit) -> int:
    """The number of inputs that are deleted or have lost their files. Above zero, the commit cannot be made again."""
    lost = (
        select(func.count())
        .select_from(Lineage)
        .join(Commit, Commit.id == Lineage.parent)
        .join(Repo, Repo.id == Commit.repo_id)
        .where(Lineage.child == commit.id, or_(Commit.tree.is_(None), Repo.deleted_at.is_not(None)))
    )
    return session.scalar(lost) or 0


def children(session: Session, viewer: Viewer | None, commit: Commit) -> list[Relative]:
    """The commits made from a commit. Those that the viewer may not see are left out, so that their existence stays private."""
    rows = session.execute(
        select(Lineage, Repo)
        .join(Commit, Commit.id == Lineage.child)
        .join(Repo, Repo.id == Commit.repo_id)
        .where(Lineage.parent == commit.id, Repo.deleted_at.is_(None), permissions.readable(viewer))
        .order_by(Commit.created_at.desc())
        .limit(100)
    )
    return [Relative(repo.full_name, line.child, line.role, line.weight) for line, repo in rows]


def scores(
    session: Session,
    viewer: Viewer | None,
    *,
    commit_ids: Sequence[str] | None = None,
    with_base: bool = False,
    dataset_commit: str | None = None,
    metric: str | None = None,
    base_id: str | None = None,
    owner: str | None = None,
    limit: int = 1000,
) -> list[Measured]:
    """Scores whose adapter and data set the viewer may both read, newest first. Each argument narrows them.

    A score of a base model alone has no adapter; such scores are included unless `commit_ids` is given. `with_base` then adds those on
    the data sets of these commits.
    """
    adapter, adapter_commit = aliased(Repo), aliased(Commit)
    readable = select(Repo.id).where(permissions.readable(viewer))
    query = (
        select(Score, adapter, Repo)
        .join(Commit, Commit.id == Score.dataset_commit)
        .join(Repo, Repo.id == Commit.repo_id)
        .outerjoin(adapter_commit, adapter_commit.id == Score.commit_id)
        .outerjoin(adapter, adapter.id == adapter_commit.repo_id)
        .where(Repo.deleted_at.is_(None), permissions.readable(viewer))
        .where(or_(Score.commit_id.is_(None), and_(adapter.deleted_at.is_(None), adapter.id.in_(readable))))
        .order_by(Score.created_at.desc(), Score.id)
        .limit(limit)
    )
    if commit_ids is not None:
        query = query.where(_of_commits(commit_ids, with_base=with_base))
    if dataset_commit is not None:
        query = query.where(Score.dataset_commit == dataset_commit)
    if metric:
        query = query.where(Score.metric == metric)
    if base_id:
        query = query.where(Score.base_id == base_id)
    if owner:
        query = query.where(or_(Score.commit_id.is_(None), adapter.namespace == owner))
    return [_measured(score, repo, dataset) for score, repo, dataset in session.execute(query)]


def _of_commits(commit_ids: Sequence[str], *, with_base: bool) -> ColumnElement[bool]:
    of_commits = Score.commit_id.in_(commit_ids)
    if not with_base:
        return of_commits
    datasets = select(Score.dataset_commit).where(of_commits)
    return or_(of_commits, and_(Score.commit_id.is_(None), Score.dataset_commit.in_(datasets)))


def _measured(score: Score, repo: Repo | None, dataset: Repo) -> Measured:
    return Measured(
        repo=repo.full_name if repo else None,
        commit=score.commit_id,
        base_id=score.base_id,
        dataset=dataset.full_name,
        dataset_commit=score.dataset_commit,
        dataset_path=score.dataset_path,
        template=score.template,
        metric=score.metric,
        value=score.value,
        low=score.low,
        high=score.high,
        examples=score.examples,
        measured_at=score.created_at,
    )


def scores_beside_base(
    session: Session, viewer: Viewer | None, commit: Commit
) -> list[tuple[Measured, Measured | None]]:
    """Figures of a commit, newest first, each with the same figure of the base alone if that was measured too."""
    measured = scores(session, viewer, commit_ids=[commit.id], with_base=True)
    base = {score.what: score for score in measured if score.commit is None}
    return [(score, base.get(score.what)) for score in measured if score.commit]


@dataclass(frozen=True)
class Step:
    """A commit in a repo's history: its author, whether a job made it, and the refs that point to it."""

    commit: Commit
    author: str
    refs: list[Ref]


def history(
    session: Session, repo: Repo, *, before: str | None = None, limit: int = 30
) -> tuple[list[Step], str | None]:
    """Commits of all branches, newest first, and the id after which the next page begins."""
    query = (
        select(Commit, User.name)
        .join(User, User.id == Commit.author_id)
        .where(Commit.repo_id == repo.id)
        .order_by(Commit.created_at.desc(), Commit.id.desc())
        .limit(limit + 1)
    )
    if before:
        last = select(Commit.created_at, Commit.id).where(Commit.repo_id == repo.id, Commit.id == before).subquery()
        query = query.join(last, tuple_(Commit.created_at, Commit.id) < tuple_(last.c.created_at, last.c.id))
    rows = session.execute(query).all()
    names: dict[str, list[Ref]] = {}
    page_ids = [commit.id for commit, _ in rows[:limit]]
    for ref in session.scalars(select(Ref).where(Ref.commit_id.in_(page_ids)).order_by(Ref.kind.desc(), Ref.name)):
        names.setdefault(ref.commit_id, []).append(ref)
    steps = [Step(commit, author, names.get(commit.id, [])) for commit, author in rows[:limit]]
    return steps, page_ids[-1] if len(rows) > limit else None
