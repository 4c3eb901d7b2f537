"""The kind `reduce`: what a worker reads, what the job keeps, and what loraloom.json says."""

from collections.abc import Sequence

from hub.formats.report import Absent, Report
from hub.registry.datasets.examples import PinnedExamples
from hub.registry.jobs.contracts.common import (
    BaseParams,
    ComputedManifest,
    Contract,
    Number,
    PinnedModule,
    Result,
)
from hub.vocabulary import ComponentScore, CutScore, Grouping, ReducedForm, Subject, VariantName

PER_TOKEN, PER_QUESTION = "nats per target token", "nats per choice between answers"


class ReduceParams(BaseParams):
    """Of a base, `form`, `variant`, `top` and `budget` are set; of an adapter, `module` and `loss_budget`."""

    result: str
    subject: Subject
    module: Absent[PinnedModule] = None
    examples: PinnedExamples
    held_out: Absent[PinnedExamples] = None
    form: Absent[ReducedForm] = None
    variant: Absent[VariantName] = None
    score: CutScore | ComponentScore
    top: Absent[int] = None
    budget: Absent[int] = None
    loss_budget: Absent[float] = None
    seed: int = 0

    @property
    def result_repo(self) -> str:
        return self.result

    @property
    def learnt(self) -> Sequence[PinnedExamples]:
        return [self.examples]

    @property
    def measured(self) -> PinnedExamples | None:
        return self.held_out


class ReduceSettings(Contract):
    """As they were asked for, and how many examples decided."""

    subject: Subject
    form: Absent[ReducedForm] = None
    variant: Absent[VariantName] = None
    score: CutScore | ComponentScore
    top: Absent[int] = None
    budget: Absent[int] = None
    loss_budget: Absent[Number] = None
    seed: int = 0
    examples: int


class Cut(Contract):
    """`share` of the singular values of each of `blocks` groups of rows is kept; `adapter_rank` where an adapter says it."""

    path: str
    share: Number
    blocks: int
    grouping: Grouping = "contiguous"
    adapter_rank: Absent[int] = None


class CutTrial(Contract):
    """`predicted` is the gain by the score, None where nothing was predicted."""

    cuts: list[Cut]
    predicted: float | None
    loss: float
    kept: bool


class ComponentTrial(Contract):
    """The loss of the adapter with so many `components`."""

    components: int
    loss: float


class Kept(Contract):
    given: int
    kept: int


class Loss(Contract):
    """On the examples, before and after the reduction."""

    before: float
    after: float
    unit: str = PER_TOKEN


class Size(Contract):
    """Parameters of the matrices that were cut, before and after."""

    before: int
    after: int


class Spectrum(Contract):
    """The singular values of a matrix that was cut, in falling order, of which the first `kept` stay."""

    path: str
    kept: int
    values: list[float]


class Reduced(Contract):
    """Of a base: `cuts`, `trials` of cuts, the best predicted gain of each matrix, and `size` where factors were written.

    Of an adapter: `components`, `parameters`, `trials` of components, and `ranks` by matrix.
    """

    cuts: Absent[list[Cut]] = None
    components: Absent[Kept] = None
    parameters: Absent[Kept] = None
    loss: Loss
    trials: list[CutTrial | ComponentTrial] = []
    matrices: Absent[dict[str, float]] = None
    size: Absent[Size] = None
    ranks: Absent[dict[str, int]] = None


class ReduceResult(Reduced, Result):
    settings: ReduceSettings
    report: Report | None = None
    warnings: list[str] = []
    spectra: list[Spectrum] = []


class ReduceManifest(Reduced, ComputedManifest):
    settings: ReduceSettings
    report: Report | None
    warnings: list[str]
