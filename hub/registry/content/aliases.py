"""Aliases: names that move, such as `prod` and `canary`, with a record of moves, a rollback, and gates that a version must pass.

An alias is a ref of its own kind, so that clients can request it as a revision. Its record is append-only.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from hub.intervals import paired_bootstrap
from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.content import refs, repos
from hub.registry.content.repos import WriteRepo
from hub.registry.models.access import User
from hub.registry.models.adapters import Score
from hub.registry.models.content import AliasGate, AliasMove, Commit, Ref, Repo
from hub.registry.platform.errors import Conflict, NotFound
from hub.vocabulary import ENOUGH_EXAMPLES

PRIVATE_DATASET = "private data set"
LOWER_IS_BETTER = frozenset({"target_loss"})


class AliasNotFound(NotFound):
    code = "alias_not_found"


class NothingToRollBack(Conflict):
    code = "nothing_to_roll_back"


class GateClosed(Conflict):
    """The gate's evaluation is missing, or does not show that the version is as good as the one that holds the alias."""

    code = "gate_closed"


@dataclass(frozen=True)
class Gate:
    """The evaluation that a version must not do worse in than the holder: the whole paired interval is above -tolerance."""

    metric: str
    dataset_commit: str
    dataset_path: str
    template: str
    tolerance: float


@dataclass(frozen=True)
class Comparison:
    """What a gate saw: how much better the new version is, in the metric's own unit, with its 95 % paired bootstrap interval."""

    better_by: float
    low: float
    high: float
    examples: int


@dataclass(frozen=True)
class Move:
    action: str  # "move", "rollback", "gate", "ungate" or "remove"
    commit: str | None
    by: str
    at: datetime
    gate_result: dict[str, object] | None


@dataclass(frozen=True)
class AliasInfo:
    name: str
    commit: str
    version: str | None
    gate: Gate | None
    gate_dataset: str | None  # the data set's repo, as far as the viewer may see it
    moves: list[Move]  # newest first


def move(session: Session, writer: WriteRepo, name: str, revision: str) -> Commit:
    """Point an alias at a revision; a new alias is created. Raises BadName, RefExists, RevisionNotFound, GateClosed."""
    repo = _lock(session, writer)
    commit = repos.resolve(session, repo, revision)
    ref = session.get(Ref, (repo.id, name))
    gate_result: dict[str, object] | None = None
    if ref is None:
        refs.insert_ref(session, writer, name, "alias", commit)
    elif ref.kind != "alias":
        raise refs.RefExists(f"{repo.full_name} has a {ref.kind} {name!r}; choose another name for the alias.")
    elif ref.commit_id == commit.id:
        return commit
    else:
        if gate := _gate(session, repo, name):
            gate_result = asdict(_compare(session, writer.viewer, repo, gate, commit.id, ref.commit_id))
        _point(ref, commit.id, writer.viewer)
    _record(session, writer, name, "move", commit.id, gate_result)
    return commit


def roll_back(session: Session, writer: WriteRepo, name: str) -> Commit:
    """Undo the last move of an alias; repeated calls undo earlier moves. No gate applies, as this is the way out of a bad release.

    Raises AliasNotFound, NothingToRollBack.
    """
    repo = _lock(session, writer)
    ref = _ref(session, repo, name)
    held: list[str] = []
    for entry in _entries(session, repo, name):
        if entry.action == "remove":
            held = []
        elif entry.action == "move" and entry.commit_id:
            held.append(entry.commit_id)
        elif entry.action == "rollback":
            held.pop()
    if len(held) < 2:
        raise NothingToRollBack(
            f"{name!r} of {repo.full_name} stood for nothing else before; move it where it should be."
        )
    _point(ref, held[-2], writer.viewer)
    _record(session, writer, name, "rollback", held[-2])
    return session.get_one(Commit, held[-2])


def set_gate(session: Session, writer: WriteRepo, name: str, gate: Gate | None) -> None:
    """Set the gate of an alias, or remove it (None). Raises AliasNotFound."""
    repo = _lock(session, writer)
    _ref(session, repo, name)
    session.execute(delete(AliasGate).where(AliasGate.repo_id == repo.id, AliasGate.name == name))
    if gate is not None:
        session.add(AliasGate(repo_id=repo.id, name=name, **asdict(gate)))
    _record(session, writer, name, "gate" if gate else "ungate")


def remove(session: Session, writer: WriteRepo, name: str) -> None:
    """Remove an alias and its gate; the record stays. Raises AliasNotFound."""
    repo = _lock(session, writer)
    session.delete(_ref(session, repo, name))
    _record(session, writer, name, "remove")


def listing(session: Session, viewer: Viewer | None, repo: Repo) -> list[AliasInfo]:
    """Every alias with its gate and record. The name and commit of a data set that the viewer may not see are left out."""
    alias_refs = session.scalars(
        select(Ref).where(Ref.repo_id == repo.id, Ref.kind == "alias").order_by(Ref.name)
    ).all()
    infos = []
    for ref in alias_refs:
        gate = _gate(session, repo, ref.name)
        dataset = _dataset(session, viewer, gate.dataset_commit) if gate else None
        if gate and dataset is None:
            gate = Gate(gate.metric, "", "", gate.template, gate.tolerance)
        version = repos.version_of(session, session.get_one(Commit, ref.commit_id))
        gate_dataset = (dataset or PRIVATE_DATASET) if gate else None
        infos.append(AliasInfo(ref.name, ref.commit_id, version, gate, gate_dataset, _moves(session, repo, ref.name)))
    return infos


def _moves(session: Session, repo: Repo, name: str) -> list[Move]:
    rows = session.execute(
        select(AliasMove, User.name)
        .join(User, User.id == AliasMove.moved_by)
        .where(AliasMove.repo_id == repo.id, AliasMove.name == name)
        .order_by(AliasMove.id.desc())
        .limit(100)
    )
    return [Move(entry.action, entry.commit_id, by, entry.moved_at, entry.gate_result) for entry, by in rows]


def _lock(session: Session, writer: WriteRepo) -> Repo:
    """Lock the repo, so that moves happen one at a time and each sees the result of the one before."""
    session.refresh(writer.repo, with_for_update=True)
    return writer.repo


def _ref(session: Session, repo: Repo, name: str) -> Ref:
    ref = session.get(Ref, (repo.id, name))
    if ref is None or ref.kind != "alias":
        raise AliasNotFound(f"{repo.full_name} has no alias {name!r}.")
    return ref


def _point(ref: Ref, commit_id: str, viewer: Viewer) -> None:
    ref.commit_id, ref.moved_by, ref.moved_at = commit_id, viewer.id, datetime.now(UTC)


def _gate(session: Session, repo: Repo, name: str) -> Gate | None:
    row = session.get(AliasGate, (repo.id, name))
    return Gate(row.metric, row.dataset_commit, row.dataset_path, row.template, row.tolerance) if row else None


def _entries(session: Session, repo: Repo, name: str) -> Sequence[AliasMove]:
    mine = (AliasMove.repo_id == repo.id, AliasMove.name == name)
    return session.scalars(select(AliasMove).where(*mine).order_by(AliasMove.id)).all()


def _record(
    session: Session,
    writer: WriteRepo,
    name: str,
    action: str,
    commit_id: str | None = None,
    gate_result: dict[str, object] | None = None,
) -> None:
    entry = {"action": action, "commit_id": commit_id, "moved_by": writer.viewer.id, "gate_result": gate_result}
    session.add(AliasMove(repo_id=writer.repo.id, name=name, **entry))
    writer.record(session, f"alias.{action}", f"{writer.repo.full_name}@{name}", commit=commit_id)
    session.flush()


def _dataset(session: Session, viewer: Viewer | None, commit_id: str) -> str | None:
    repo = session.scalar(
        select(Repo)
        .join(Commit, Commit.repo_id == Repo.id)
        .where(Commit.id == commit_id, Repo.deleted_at.is_(None), permissions.readable(viewer))
    )
    return repo.full_name if repo else None


def _compare(session: Session, viewer: Viewer, repo: Repo, gate: Gate, new: str, holder: str) -> Comparison:
    dataset = _dataset(session, viewer, gate.dataset_commit)
    if dataset is None:
        raise GateClosed("The gate's data set is not one that you can see; ask somebody who can to move the alias.")
    what = f"{gate.metric} on {dataset} at {gate.dataset_commit[:12]} ({gate.dataset_path}, template {gate.template})"
    ours, theirs = (_each(session, repo, gate, commit_id, what) for commit_id in (new, holder))
    if len(ours) != len(theirs) or len(ours) < ENOUGH_EXAMPLES:
        raise GateClosed(
            f"The evaluations of {what} have {len(ours)} and {len(theirs)} examples; evaluate both on the same ones, "
            f"at least {ENOUGH_EXAMPLES}."
        )
    sign = -1.0 if gate.metric in LOWER_IS_BETTER else 1.0
    better, low, high = paired_bootstrap([sign * x for x in ours], [sign * x for x in theirs], seed=0)
    if not low > -gate.tolerance:
        raise GateClosed(
            f"{what}: commit {new[:12]} is {better:+.3f} better than the holder, 95% interval {low:+.3f} to {high:+.3f}, and the gate "
            f"wants all of it above {-gate.tolerance:+.3f}. Measure on more examples, or publish a better version."
        )
    return Comparison(better, low, high, len(ours))


def _each(session: Session, repo: Repo, gate: Gate, commit_id: str, what: str) -> Sequence[float]:
    per_example = session.scalar(
        select(Score.per_example)
        .where(Score.commit_id == commit_id, Score.metric == gate.metric, Score.template == gate.template)
        .where(Score.dataset_commit == gate.dataset_commit, Score.dataset_path == gate.dataset_path)
        .where(Score.per_example.is_not(None))
        .order_by(Score.created_at.desc())
        .limit(1)
    )
    if per_example is None:
        raise GateClosed(
            f"Commit {commit_id[:12]} of {repo.full_name} has no evaluation of {what}; run an `evaluate` job of it first."
        )
    return per_example
