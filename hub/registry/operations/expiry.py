"""Rows whose time has come: old answers of jobs, and repos that can no longer be restored."""

from datetime import timedelta

from sqlalchemy import delete, exists, func, null, select, update
from sqlalchemy.orm import Session

from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, Ref, Repo
from hub.registry.models.jobs import Job, JobEvent, JobInput
from hub.registry.operations.garbage import BATCH


def expire_answers(session: Session) -> None:
    """Answers of `generate` jobs are kept for a day, and so are their prompts."""
    old = select(Job.id).where(
        Job.kind == "generate", Job.finished_at < func.now() - timedelta(hours=24), Job.params != {}
    )
    session.execute(delete(JobEvent).where(JobEvent.job_id.in_(old)))
    session.execute(update(Job).where(Job.id.in_(old)).values(result=null(), params={}, request=null()))


def purge(session: Session, after: timedelta) -> int:
    """Give up repos whose time to be restored is over: the name is free again, the commits stay as ancestors without files.

    A tree that a waiting or running job pinned stays until that job has ended.
    """
    old = session.scalars(
        select(Repo).where(Repo.deleted_at < func.now() - after, Repo.purged_at.is_(None)).limit(BATCH)
    ).all()
    for repo in old:
        session.execute(delete(Ref).where(Ref.repo_id == repo.id))
        session.execute(delete(AdapterFacts).where(AdapterFacts.repo_id == repo.id))
        repo.name, repo.purged_at = f"purged-{repo.id}", func.now()
    session.flush()
    live = exists().where(
        JobInput.commit_id == Commit.id, JobInput.job_id == Job.id, Job.state.in_(("queued", "running"))
    )
    purged = select(Repo.id).where(Repo.purged_at.is_not(None))
    session.execute(
        update(Commit)
        .where(Commit.repo_id.in_(purged), Commit.tree.is_not(None), ~live)
        .values(tree=None)
        .execution_options(synchronize_session=False)
    )
    return len(old)
