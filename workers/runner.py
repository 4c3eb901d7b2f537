"""run(job_id): claim, keep the lease alive, fetch inputs, call one function of the library, store, register.

Nothing here holds a database connection while a model computes. A worker may be killed at any line: what it had claimed is claimed
again when its lease ends, and what it had stored but not registered is collected as unused bytes.
"""

import importlib
import logging
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from transformers.utils.logging import disable_progress_bar

from hub.lora.core.bases import Base, WarmBases
from hub.lora.core.built_in import convert_built_in
from hub.lora.core.decompose import CachedSVD
from hub.lora.core.errors import LoraError
from hub.lora.core.memory import NotEnoughMemory
from hub.registry.access.viewer import viewer_of
from hub.registry.bases import base_models
from hub.registry.content import blobs, history, repos
from hub.registry.content.blobs import Incoming
from hub.registry.content.repo_visibility import check_not_wider
from hub.registry.inspection.inspect import Inspection, inspect, require_adapter
from hub.registry.jobs import leases
from hub.registry.jobs.contracts.common import BaseParams, Params, PinnedBase, Result
from hub.registry.jobs.contracts.train import TrainParams
from hub.registry.jobs.kinds import KINDS, Kind
from hub.registry.jobs.leases import CancelRequested, Lease, LeaseLost, TimeLimitReached, Worker
from hub.registry.library import scores
from hub.registry.library.publishing import entries
from hub.registry.models.access import User
from hub.registry.models.content import Commit
from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError
from hub.registry.platform.services import Services, connect
from hub.registry.platform.settings import Settings
from workers.runtime.base_files import BaseChanged, BaseFiles
from workers.runtime.cache import Cache
from workers.runtime.checkpoint_store import StoredCheckpoints
from workers.runtime.teachers import dtype_of
from workers.runtime.work import BaseWork, Outcome, Work

log = logging.getLogger(__name__)


class InputGone(HubError):
    status, code = 409, "input_gone"


Run = Callable[[Work[Params]], Outcome[Result]]


def function_of(kind: Kind) -> Run:
    """The function that does a kind's work, imported when its first job comes."""
    module, _, name = kind.run.partition(":")
    run: Run = getattr(importlib.import_module(module), name)
    return run


@dataclass
class Progress:
    """Called by the library at every step: writes an event, and raises when the work must stop."""

    services: Services
    lease: Lease
    phase: str = "start"
    seq: int = field(init=False)
    last_step: float = field(default_factory=time.monotonic)
    lost: bool = False

    def __post_init__(self) -> None:
        self.seq = self.lease.next_seq

    def __call__(self, step: int, total: int, numbers: Mapping[str, float]) -> None:
        if self.lost:
            raise LeaseLost
        with transaction(self.services.sessions) as session:
            leases.record(session, self.lease, self.seq, self.phase, step, total, numbers)
        self.seq += 1
        self.last_step = time.monotonic()

    def enter(self, phase: str) -> None:
        """Begin a part of the work with a name of its own."""
        self.phase = phase
        self(0, 0, {})


class Heartbeat(threading.Thread):
    """Renews the lease until stopped. No step for too long ends the process: a stuck one would hold the worker for ever."""

    def __init__(self, services: Services, progress: Progress, stall_seconds: float) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.services, self.progress, self.stall_seconds = services, progress, stall_seconds
        self.ended = threading.Event()

    def run(self) -> None:
        lease_seconds = self.services.settings.lease_seconds
        while not self.ended.wait(lease_seconds / 3):
            if time.monotonic() - self.progress.last_step > self.stall_seconds:
                log.error("no progress; ending this process", extra={"job_id": str(self.progress.lease.job_id)})
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                with transaction(self.services.sessions) as session:
                    if not leases.renew(session, self.progress.lease, lease_seconds):
                        self.progress.lost = True
                        return
            except OperationalError:
                log.warning("lease not renewed; trying again", exc_info=True)

    def __enter__(self) -> "Heartbeat":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.ended.set()
        self.join()


class Runner:
    """One per worker process: its services, its cache of inputs, and the base models that stay warm between jobs."""

    def __init__(self, settings: Settings, name: str = "unnamed") -> None:
        disable_progress_bar()  # of transformers, when it loads a model: a worker's log holds one JSON object a line
        self.services = connect(settings)
        self.cache = Cache(settings.cache_dir, self.services.storage)
        self.bases = WarmBases()
        device = f"cuda {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "cpu"
        self.worker = Worker(name, device)
        self.files = BaseFiles(self.cache.bases, settings.base_cache_bytes)
        self._in_use: set[Path] = set()  # of its folders, by the job that runs

    def run(self, job_id: uuid.UUID) -> None:
        """Run the job whose turn it is in this one's queue; a message that comes twice or too late does nothing."""
        # Asked again where another worker took the very job meanwhile, as this message may stand for one that still waits.
        lease = self._claim(job_id) or self._claim(job_id)
        if lease is None:
            return
        job_id = lease.job_id
        log.info("job taken", extra={"job_id": str(job_id), "attempt": lease.attempt})
        progress = Progress(self.services, lease)
        # Whatever stops the work half-way may leave the model half-way too.
        spoilt: str | None = ""
        try:
            with transaction(self.services.sessions) as session:
                job = session.get_one(Job, job_id)
                params = KINDS[job.kind].params.model_validate(job.params)
                spoilt = params.base.id if isinstance(params, BaseParams) else ""
                if leases.unreadable_input(session, job):
                    raise InputGone("An input was deleted or is no longer readable by you; choose another.")
            with (
                Heartbeat(self.services, progress, KINDS[job.kind].stall_seconds),
                tempfile.TemporaryDirectory() as out,
            ):
                outcome = self._work(job, params, progress, Path(out))
                self._register(job, params, lease, outcome)
        except LeaseLost:
            log.info("lease lost; nothing registered", extra={"job_id": str(job_id)})
        except CancelRequested:
            with transaction(self.services.sessions) as session:
                leases.end_cancelled(session, lease)
        except TimeLimitReached as error:
            log.info("time limit reached", extra={"job_id": str(job_id)})
            with transaction(self.services.sessions) as session:
                leases.fail(session, lease, error.code, str(error))
        except Exception as error:
            # The one place where any error of a job becomes its row's: the worker itself goes on to the next.
            code = self._fail(lease, error)
            if code == NotEnoughMemory.code:
                spoilt = None  # the bases that are kept warm may have been in the way: the next try has all the memory
        else:
            self.files.release(self.bases.folders)
            return
        self.bases.drop(spoilt)
        self.files.release(self.bases.folders)

    def _claim(self, job_id: uuid.UUID) -> Lease | None:
        with transaction(self.services.sessions) as session:
            return leases.claim_fairly(session, job_id, self.worker, self.services.settings.lease_seconds)

    def _work(self, job: Job, params: Params, progress: Progress, out: Path) -> Outcome[Result]:
        progress.enter("load")
        self._in_use.clear()
        folder_of = partial(self._folder, progress=progress)
        base = self._base(job, params, folder_of) if isinstance(params, BaseParams) else None
        with tempfile.TemporaryDirectory() as scratch:

            def place(stage: str) -> StoredCheckpoints:
                return StoredCheckpoints(self.services, progress.lease, stage.replace(" ", "-"), Path(scratch))

            work = Work(
                job_id=job.id,
                params=params,
                out=out,
                fetch=self._fetch,
                hashes=self._hashes,
                progress=progress,
                place=place,
                decompose=CachedSVD(self.cache.decompositions),
                folder_of=folder_of,
                settings=self.services.settings,
            )
            if base is not None and isinstance(params, BaseParams):
                work = BaseWork(**vars(work) | {"params": params}, base=base)
            return function_of(KINDS[job.kind])(work)

    def _base(self, job: Job, params: BaseParams, folder_of: Callable[[PinnedBase], Path]) -> Base:
        """The base, loaded only if it is not warm. What searches and trains takes all the memory there is, so no other stays beside it."""
        pinned, four_bit = params.base, isinstance(params, TrainParams) and params.load_in_4bit
        folder = folder_of(pinned)
        for _ in range(2):
            base = self.bases.get(
                folder, id=pinned.id, dtype=dtype_of(pinned), four_bit=four_bit, alone=job.queue == "gpu"
            )
            if base.fingerprint == pinned.fingerprint:
                return base
            self.bases.drop(base.id)  # it may have been warm since before its folder was changed and registered again
        raise BaseChanged(f"The weights of {base.id} are not those that were registered; register it again.")

    def _folder(self, pinned: PinnedBase, *, progress: Progress) -> Path:
        if pinned.path:
            return Path(pinned.path)
        if not pinned.upstream:
            return convert_built_in(self.cache.bases / "built-in")
        with transaction(self.services.sessions) as session:
            token = base_models.token(session, pinned.id)
        with closing(self.services.upstream.with_token(token)) as theirs:
            folder = self.files.get(theirs, pinned, progress, self._release_unused)
        self._in_use.add(folder)
        return folder

    def _release_unused(self) -> None:
        """Of what is warm without need, so that its files can be evicted."""
        self.bases.drop()
        self.files.release(self._in_use)

    def _fetch(self, commit_id: str) -> Path:
        with transaction(self.services.sessions) as session:
            commit = session.get_one(Commit, commit_id)
            files = repos.files(session, commit)
            if commit.tree is None:
                raise InputGone(f"The files of commit {commit_id[:12]} are gone; choose another.")
        return self.cache.folder(commit.tree, files)

    def _hashes(self, commit_id: str) -> dict[str, str]:
        with transaction(self.services.sessions) as session:
            commit = session.get_one(Commit, commit_id)
            return {entry.path: entry.sha256 for entry in repos.files(session, commit)}

    def _register(self, job: Job, params: Params, lease: Lease, outcome: Outcome[Result]) -> None:
        """Store the bytes, then write result and success in one transaction: both or neither, and only with the lease."""
        with ExitStack() as stack:
            paths = sorted(p for p in outcome.folder.rglob("*") if p.is_file()) if outcome.folder else []
            files = [
                blobs.hash_file(str(path.relative_to(outcome.folder or path)), stack.enter_context(path.open("rb")))
                for path in paths
            ]
            with transaction(self.services.sessions) as session:
                known = base_models.known(session)
            inspection = inspect({file.path: file for file in files}, known)
            if files:
                if outcome.adapter:
                    require_adapter(inspection)
                blobs.store(self.services.sessions, self.services.storage, job.namespace, files)
            with transaction(self.services.sessions) as session:
                leases.succeed(session, lease, outcome.result.model_dump(mode="json"))
                if files:
                    commit_id = self._publish(session, job, params, outcome, files, inspection)
                    scores.keep_own(session, commit_id, outcome.scores)
                    for measured in outcome.scores:
                        scores.keep(session, measured, commit_id=commit_id, job_id=job.id)
                for commit, measured in outcome.other_scores:
                    scores.keep(session, measured, commit_id=commit, job_id=job.id)
        log.info("job succeeded", extra={"job_id": str(job.id)})

    def _publish(
        self,
        session: Session,
        job: Job,
        params: Params,
        outcome: Outcome[Result],
        files: Sequence[Incoming],
        inspection: Inspection,
    ) -> str:
        """The id of the commit that holds the files."""
        owner = session.get_one(User, job.owner_id)
        repo = repos.ensure(session, viewer_of(owner), "model", params.result_repo, job.visibility)
        check_not_wider(repo, job.visibility)
        return history.publish(
            session,
            repo,
            entries(files),
            author_id=owner.id,
            message=outcome.message,
            inspection=inspection,
            parents=outcome.parents,
            job_id=job.id,
        ).id

    def _fail(self, lease: Lease, error: Exception) -> str:
        code, message = explain(error)
        log.error("job failed", extra={"job_id": str(lease.job_id), "code": code}, exc_info=error)
        with transaction(self.services.sessions) as session:
            leases.fail(session, lease, code, message)
        return code


def explain(error: Exception) -> tuple[str, str]:
    """An error's code and a sentence for the job's owner."""
    if isinstance(error, LoraError | HubError):
        return error.code, str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return (
            NotEnoughMemory.code,
            "The worker ran out of memory; use fewer or shorter examples, or a worker with more.",
        )
    return (
        "internal_error",
        f"The worker failed in a way that is our fault ({type(error).__name__}); its log says more.",
    )
