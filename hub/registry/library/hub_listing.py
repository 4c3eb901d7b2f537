"""Lists of repos for Hugging Face clients: filtered by tags, sorted by a time, in keyset pages."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from hub.registry.access import permissions
from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.content import text_index
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, Ref, Repo, TreeEntry
from hub.registry.platform.cursors import decode_cursor, encode_cursor
from hub.registry.platform.errors import InvalidInput
from hub.vocabulary import MAIN, RepoType

Sort = Literal["created", "modified"]

# PEFT's task names -> Hugging Face's.
PIPELINES = {
    "CAUSAL_LM": "text-generation",
    "SEQ_2_SEQ_LM": "text2text-generation",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}


@dataclass(frozen=True)
class Filters:
    tags: Sequence[str] = ()  # all must apply
    author: str | None = None
    text: str | None = None  # every word must occur, in the name or in an adapter's base, tags or description
    pipeline: str | None = None


@dataclass(frozen=True)
class Row:
    repo: Repo
    commit: Commit  # main's head
    facts: Sequence[AdapterFacts]  # of its adapters, by folder


def listing(
    session: Session,
    viewer: Viewer | None,
    repo_type: RepoType,
    filters: Filters,
    *,
    sort: Sort,
    limit: int,
    cursor: str | None,
) -> tuple[list[Row], str | None]:
    """A page of the repos that the viewer may read, newest first, and the next cursor. Raises InvalidInput for a foreign cursor."""
    when = Repo.created_at if sort == "created" else Repo.updated_at
    query = (
        select(Repo, Commit)
        .join(Ref, Ref.repo_id == Repo.id)
        .join(Commit, Commit.id == Ref.commit_id)
        .where(Ref.name == MAIN, Repo.type == repo_type, Repo.deleted_at.is_(None), permissions.readable(viewer))
        .where(*_matching(session, filters))
        .order_by(when.desc(), Repo.id)
        .limit(limit + 1)
    )
    if cursor:
        at, after = _decode(cursor)
        query = query.where(or_(when < at, and_(when == at, Repo.id > after)))
    rows = [(repo, commit) for repo, commit in session.execute(query)]
    facts = _facts(session, [commit.id for _, commit in rows])
    page = [Row(repo, commit, facts.get(commit.id, [])) for repo, commit in rows[:limit]]
    if len(rows) <= limit:
        return page, None
    last = page[-1].repo
    at = last.created_at if sort == "created" else last.updated_at
    return page, encode_cursor(at.isoformat(), str(last.id))


def _matching(session: Session, filters: Filters) -> list[ColumnElement[bool]]:
    """The conditions on repos, one for each filter."""
    conditions = []
    if filters.author:
        conditions.append(Repo.namespace == filters.author)
    names = base_models.names(session)
    conditions += [_has(_tagged(tag, names)) for tag in filters.tags]
    if filters.pipeline:
        tasks = [task for task, pipeline in PIPELINES.items() if pipeline == filters.pipeline]
        on_card = AdapterFacts.facts["card"]["pipeline_tag"].astext == filters.pipeline
        conditions.append(_has(or_(AdapterFacts.task.in_(tasks), on_card)))
    for word in (filters.text or "").lower().split():
        name = func.lower(Repo.namespace + "/" + Repo.name)
        conditions.append(or_(name.contains(word, autoescape=True), _has(text_index.has_word(word))))
    return conditions


def _has(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    listed = (AdapterFacts.current, ~AdapterFacts.deleted, AdapterFacts.repo_id == Repo.id)
    return select(AdapterFacts.commit_id).where(*listed, condition).exists()


def _tagged(tag: str, names: Mapping[str, str]) -> ColumnElement[bool]:
    """The condition that an adapter carries a tag; `tags` below lists the tags that it carries."""
    kind, _, value = tag.partition(":")
    if kind == "base_model":
        base = value.removeprefix("adapter:")
        return AdapterFacts.base == names.get(base, base)
    if kind == "license":
        return AdapterFacts.licence == value
    if tag in ("peft", "safetensors"):
        return AdapterFacts.commit_id.is_not(None)
    return or_(
        AdapterFacts.tags.contains([tag]),
        AdapterFacts.method == tag,
        func.lower(AdapterFacts.facts["peft_type"].astext) == tag,
    )


def tags(adapters: Sequence[AdapterFacts]) -> list[str]:
    """The tags of a repo's adapters: first those derived from their files, then those of their cards."""
    tags = ["peft", "safetensors"] if adapters else []
    for adapter in adapters:
        tags += [str(adapter.facts["peft_type"]).lower(), adapter.method]
        for base in dict.fromkeys([adapter.base_model, adapter.base_id]):
            if base:
                tags += [f"base_model:{base}", f"base_model:adapter:{base}"]
        if adapter.facts["licence"]:
            tags.append(f"license:{adapter.facts['licence']}")
        tags += adapter.tags
    return list(dict.fromkeys(tags))


def pipeline(adapters: Sequence[AdapterFacts]) -> str | None:
    for adapter in adapters:
        on_card = adapter.facts["card"].get("pipeline_tag")
        task = on_card if isinstance(on_card, str) else PIPELINES.get(adapter.facts["task_type"] or "")
        if task:
            return task
    return None


def _facts(session: Session, commits: Sequence[str]) -> Mapping[str, list[AdapterFacts]]:
    by_commit: dict[str, list[AdapterFacts]] = {}
    for row in session.scalars(
        select(AdapterFacts).where(AdapterFacts.commit_id.in_(commits)).order_by(AdapterFacts.folder)
    ):
        by_commit.setdefault(row.commit_id, []).append(row)
    return by_commit


def _decode(cursor: str) -> tuple[datetime, uuid.UUID]:
    try:
        at, repo_id = decode_cursor(cursor)
        return datetime.fromisoformat(at), uuid.UUID(repo_id)
    except ValueError:
        raise InvalidInput(f"The cursor {cursor!r} is not one that this hub gave; begin without a cursor.") from None


def owned(session: Session, viewer: Viewer, namespace: str) -> list[tuple[Repo, int]]:
    """A namespace's repos that the viewer may see, by name, each with the bytes of all its commits. Shared files count once."""
    files = (
        select(Commit.repo_id, TreeEntry.sha256, TreeEntry.size)
        .join(TreeEntry, TreeEntry.tree == Commit.tree)
        .join(Repo, Repo.id == Commit.repo_id)
        .where(Repo.namespace == namespace)
        .distinct()
        .subquery()
    )
    used = select(files.c.repo_id, func.sum(files.c.size).label("bytes")).group_by(files.c.repo_id).subquery()
    rows = session.execute(
        select(Repo, func.coalesce(used.c.bytes, 0))
        .outerjoin(used, used.c.repo_id == Repo.id)
        .where(Repo.namespace == namespace, Repo.deleted_at.is_(None), permissions.readable(viewer))
        .order_by(Repo.name, Repo.type)
    )
    return [(repo, int(size)) for repo, size in rows]
