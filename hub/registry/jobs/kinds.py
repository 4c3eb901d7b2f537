"""The kinds of job, each registered once: everything that lists kinds, or does something by kind, reads this table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from hub.registry.jobs import sizes
from hub.registry.jobs.contracts.common import Manifest, Params, Result
from hub.registry.jobs.contracts.compose import ComposeManifest, ComposeParams, ComposeResult
from hub.registry.jobs.contracts.convert import ConvertManifest, ConvertParams, ConvertResult
from hub.registry.jobs.contracts.evaluate import EvaluateParams, EvaluateResult
from hub.registry.jobs.contracts.generate import GenerateParams, GenerateResult
from hub.registry.jobs.contracts.par import ParManifest, ParParams, ParResult
from hub.registry.jobs.contracts.reduce import ReduceManifest, ReduceParams, ReduceResult
from hub.registry.jobs.contracts.train import TrainManifest, TrainParams, TrainResult
from hub.registry.jobs.requests.common import Request
from hub.registry.jobs.requests.compose import ComposeRequest
from hub.registry.jobs.requests.convert import ConvertRequest
from hub.registry.jobs.requests.evaluate import EvaluateRequest
from hub.registry.jobs.requests.generate import GenerateRequest
from hub.registry.jobs.requests.par import ParRequest
from hub.registry.jobs.requests.reduce import ReduceRequest
from hub.registry.jobs.requests.train import TrainRequest
from hub.registry.models.jobs import Job
from hub.vocabulary import JOB_KINDS, JobKind, QueueName

Size = Callable[[sizes.Settings, int, int], float]  # settings, bytes of examples and of held-out examples


@dataclass(frozen=True)
class Kind:
    """Everything that belongs to one kind of job.

    `run` is "module:function" in `workers`, which only a worker imports. A kind that reports no step for `stall_seconds` is stuck, and
    its worker ends itself. `card` is the template of its results' model card, None where nothing is published. Its form, or where it is
    started instead, is in `hub.web.pages.jobs.forms.kinds`.
    """

    name: JobKind
    title: str
    queue: QueueName
    stall_seconds: float
    request: type[Request]
    params: type[Params]
    result: type[Result]
    run: str
    size: Size
    manifest: type[Manifest] | None = None
    card: str | None = None


# Training reports nothing while it validates, and the first step of PiSSA waits for a decomposition of every layer: hence 1800.
_ALL = (
    Kind(
        name="compose",
        title="Compose",
        queue="gpu",
        stall_seconds=600.0,
        request=ComposeRequest,
        params=ComposeParams,
        result=ComposeResult,
        manifest=ComposeManifest,
        run="workers.kinds.compose:run",
        size=sizes.composition,
        card="compose.md.j2",
    ),
    Kind(
        name="train",
        title="Train",
        queue="gpu",
        stall_seconds=1800.0,
        request=TrainRequest,
        params=TrainParams,
        result=TrainResult,
        manifest=TrainManifest,
        run="workers.kinds.train:run",
        size=sizes.training,
        card="train.md.j2",
    ),
    Kind(
        name="par",
        title="LoRA-PAR",
        queue="gpu",
        stall_seconds=1800.0,
        request=ParRequest,
        params=ParParams,
        result=ParResult,
        manifest=ParManifest,
        run="workers.kinds.par:run",
        size=sizes.par_training,
        card="par.md.j2",
    ),
    Kind(
        name="reduce",
        title="Reduce",
        queue="gpu",
        stall_seconds=1800.0,
        request=ReduceRequest,
        params=ReduceParams,
        result=ReduceResult,
        manifest=ReduceManifest,
        run="workers.kinds.reduce:run",
        size=sizes.reduction,
        card="reduce.md.j2",
    ),
    Kind(
        name="evaluate",
        title="Evaluate",
        queue="interactive",
        stall_seconds=600.0,
        request=EvaluateRequest,
        params=EvaluateParams,
        result=EvaluateResult,
        run="workers.kinds.evaluate:run",
        size=sizes.evaluation,
    ),
    Kind(
        name="convert",
        title="Convert",
        queue="interactive",
        stall_seconds=300.0,
        request=ConvertRequest,
        params=ConvertParams,
        result=ConvertResult,
        manifest=ConvertManifest,
        run="workers.kinds.convert:run",
        size=sizes.same_for_all,
        card="convert.md.j2",
    ),
    Kind(
        name="generate",
        title="Generate",
        queue="interactive",
        stall_seconds=300.0,
        request=GenerateRequest,
        params=GenerateParams,
        result=GenerateResult,
        run="workers.kinds.generate:run",
        size=sizes.same_for_all,
    ),
)

KINDS: Mapping[JobKind, Kind] = {kind.name: kind for name in JOB_KINDS for kind in _ALL if kind.name == name}

if TYPE_CHECKING:
    JobRequest = Request
else:  # what the API accepts: the request of any kind, told apart by its field `kind`
    JobRequest = Annotated[reduce(or_, (kind.request for kind in KINDS.values())), Field(discriminator="kind")]


def params_of(job: Job) -> Params | None:
    """A job's params as their model. None where they are no longer kept, as a day after a job of the kind generate has ended."""
    return KINDS[job.kind].params.model_validate(job.params) if job.params else None


def result_of(job: Job) -> Result | None:
    """A job's result as its model. None where there is none yet, or it is no longer kept."""
    return KINDS[job.kind].result.model_validate(job.result) if job.result else None
