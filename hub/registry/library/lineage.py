"""A commit's lineage as a graph: its inputs and the commits made from it, two generations each way, as far as the viewer may see.

The rule of `provenance` holds for every edge. An input that the viewer may not see keeps its role and weight and loses its name, and its
own inputs are left out. A descendant that they may not see is left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.models.adapters import Lineage
from hub.registry.models.content import Commit, Ref, Repo

GENERATIONS = 2
MAX_DESCENDANTS = 40  # of one generation


@dataclass(frozen=True)
class Member:
    """A commit in the graph. `key` is its id, or an invented key for a hidden input. `lost`: deleted, or without its files."""

    key: str
    generation: int  # below zero: an ancestor; zero: the commit itself
    type: str  # "model" or "dataset"
    repo: str | None
    commit: str | None
    version: str | None
    lost: bool


@dataclass(frozen=True)
class Line:
    parent: str
    child: str
    role: str
    weight: float | None


@dataclass(frozen=True)
class Family:
    members: list[Member]
    lines: list[Line]
    more: bool  # some generation has more descendants than are shown

    def parents(self, key: str) -> list[tuple[Member, Line]]:
        members = {member.key: member for member in self.members}
        return [(members[line.parent], line) for line in self.lines if line.child == key]

    def children(self, key: str) -> list[tuple[Member, Line]]:
        members = {member.key: member for member in self.members}
        return [(members[line.child], line) for line in self.lines if line.parent == key]


def family(session: Session, viewer: Viewer | None, repo: Repo, commit: Commit) -> Family:
    itself = Member(commit.id, 0, repo.type, repo.full_name, commit.id, None, lost=False)
    members = {itself.key: itself}
    lines: list[Line] = []
    frontier = [commit.id]
    for generation in range(1, GENERATIONS + 1):
        relatives = _parents(session, viewer, frontier, -generation)
        members |= {member.key: member for member, _ in relatives if member.key != commit.id}
        lines += [line for _, line in relatives]
        frontier = [member.key for member, _ in relatives if member.commit]
    frontier, more = [commit.id], False
    for generation in range(1, GENERATIONS + 1):
        relatives = _children(session, viewer, frontier, generation)
        more = more or len(relatives) > MAX_DESCENDANTS
        members |= {member.key: member for member, _ in relatives[:MAX_DESCENDANTS]}
        lines += [line for _, line in relatives[:MAX_DESCENDANTS]]
        frontier = [member.key for member, _ in relatives[:MAX_DESCENDANTS]]
    return Family(_with_versions(session, members.values()), lines, more)


def _parents(
    session: Session, viewer: Viewer | None, children: Sequence[str], generation: int
) -> list[tuple[Member, Line]]:
    lost = or_(Repo.deleted_at.is_not(None), Commit.tree.is_(None))
    seen = and_(Repo.deleted_at.is_(None), permissions.readable(viewer))
    rows = session.execute(
        select(Lineage, Repo, lost, seen)
        .join(Commit, Commit.id == Lineage.parent)
        .join(Repo, Repo.id == Commit.repo_id)
        .where(Lineage.child.in_(children))
        .order_by(Lineage.role.desc(), Lineage.weight.desc().nulls_last(), Lineage.parent)
    )
    relatives = []
    for number, (line, repo, is_lost, is_seen) in enumerate(rows):
        key = line.parent if is_seen else f"hidden{generation}.{number}"
        name, commit_id = (repo.full_name, line.parent) if is_seen else (None, None)
        member = Member(key, generation, repo.type, name, commit_id, None, lost=is_lost)
        relatives.append((member, Line(key, line.child, line.role, line.weight)))
    return relatives


def _children(
    session: Session, viewer: Viewer | None, parents: Sequence[str], generation: int
) -> list[tuple[Member, Line]]:
    rows = session.execute(
        select(Lineage, Repo)
        .join(Commit, Commit.id == Lineage.child)
        .join(Repo, Repo.id == Commit.repo_id)
        .where(Lineage.parent.in_(parents), Repo.deleted_at.is_(None), permissions.readable(viewer))
        .order_by(Commit.created_at.desc(), Lineage.child)
        .limit(MAX_DESCENDANTS + 1)
    )
    return [
        (
            Member(line.child, generation, repo.type, repo.full_name, line.child, None, lost=False),
            Line(line.parent, line.child, line.role, line.weight),
        )
        for line, repo in rows
    ]


def _with_versions(session: Session, members: Iterable[Member]) -> list[Member]:
    nodes = list(members)
    commits = [member.commit for member in nodes if member.commit]
    query = select(Ref.commit_id, Ref.name).where(Ref.commit_id.in_(commits), Ref.kind == "version")
    versions: dict[str, str] = dict(iter(session.execute(query)))
    return [
        Member(node.key, node.generation, node.type, node.repo, node.commit, versions.get(node.commit or ""), node.lost)
        for node in nodes
    ]
