"""What changed between two commits of a repo: files, facts, findings, sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.registry.content import repos, trees
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, TreeEntry

MAX_FILES = 200

# The facts of an adapter that are compared, in the order in which they are listed.
COMPARED = (
    *("base_model", "method", "ranks", "alphas", "scaling", "target_modules", "layers", "dtype", "parameters"),
    *("flags", "template", "licence", "tags"),
)


@dataclass(frozen=True)
class FileChange:
    """Sizes in bytes; None where the file is not there."""

    path: str
    before: int | None
    after: int | None


@dataclass(frozen=True)
class FactChange:
    """A fact of one folder that differs. `what` is "adapter" where the whole adapter was added or removed."""

    folder: str
    what: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Changes:
    before: Commit
    after: Commit
    files: list[FileChange]
    more_files: bool
    size_before: int
    size_after: int
    facts: list[FactChange]
    findings_gone: list[Mapping[str, object]]
    findings_new: list[Mapping[str, object]]

    @property
    def none(self) -> bool:
        return not (self.files or self.facts or self.findings_gone or self.findings_new)


def between(session: Session, before: Commit, after: Commit) -> Changes:
    files = _files(session, before, after)
    old, new = (repos.facts(session, commit) for commit in (before, after))
    gone, come = _findings(old, new), _findings(new, old)
    return Changes(
        before=before,
        after=after,
        files=files[:MAX_FILES],
        more_files=len(files) > MAX_FILES,
        size_before=trees.totals(session, before)[1],
        size_after=trees.totals(session, after)[1],
        facts=_facts(old, new),
        findings_gone=gone,
        findings_new=come,
    )


def _files(session: Session, before: Commit, after: Commit) -> list[FileChange]:
    old, new = (
        select(TreeEntry.path, TreeEntry.sha256, TreeEntry.size).where(TreeEntry.tree == commit.tree).subquery()
        for commit in (before, after)
    )
    path = func.coalesce(old.c.path, new.c.path)
    rows = session.execute(
        select(path, old.c.size, new.c.size)
        .select_from(old.join(new, old.c.path == new.c.path, full=True))
        .where(old.c.sha256.is_distinct_from(new.c.sha256))
        .order_by(path)
        .limit(MAX_FILES + 1)
    )
    return [FileChange(*row) for row in rows]


def _facts(old: Sequence[AdapterFacts], new: Sequence[AdapterFacts]) -> list[FactChange]:
    was, now = ({facts.folder: facts for facts in rows} for rows in (old, new))
    changes = []
    for folder in sorted(was.keys() | now.keys()):
        if folder not in was or folder not in now:
            changes.append(FactChange(folder, "adapter", folder in was, folder in now))
            continue
        before, after = was[folder].facts, now[folder].facts
        changes += [
            FactChange(folder, what, before.get(what), after.get(what))
            for what in COMPARED
            if before.get(what) != after.get(what)
        ]
    return changes


def _findings(these: Sequence[AdapterFacts], others: Sequence[AdapterFacts]) -> list[Mapping[str, object]]:
    """Findings of these facts that the others lack."""
    known = [finding for facts in others for finding in facts.findings]
    return [finding for facts in these for finding in facts.findings if finding not in known]
