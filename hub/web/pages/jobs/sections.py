"""Sections of a finished job's page. A section is a context with a template of its own, made from the result of one kind of job."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from markupsafe import Markup

from hub.drawing import svg
from hub.drawing.heat import RegionMap, partition_maps
from hub.drawing.plot import reward_plot, search_plot, training_plot
from hub.formats.report import Estimate
from hub.registry.jobs.contracts.common import Params, Result, ScoreRow, TrainingCurve
from hub.registry.jobs.contracts.compose import ComposeResult
from hub.registry.jobs.contracts.convert import Converted, ConvertResult
from hub.registry.jobs.contracts.evaluate import EvaluateResult
from hub.registry.jobs.contracts.generate import GenerateParams, GenerateResult
from hub.registry.jobs.contracts.par import ParResult, PartitionSizes, Split
from hub.registry.jobs.contracts.reduce import ComponentTrial, Cut, CutTrial, Kept, Loss, ReduceResult, Size
from hub.registry.jobs.contracts.train import RateSearch, TrainResult, TrainSettings

# What an arm is called in a heading where that is not its name in plain words; those of the result itself come first.
ARM_TITLES = {"module": "This adapter", "par": "This adapter", "lora": "Plain LoRA"}
OWN_ARMS = ("module", "par")

T = TypeVar("T")


@dataclass(frozen=True)
class Section:
    """Its template reads it as `section`."""

    template: ClassVar[str]

    def __init_subclass__(cls, template: str) -> None:
        cls.template = template


@dataclass(frozen=True)
class Curve:
    """`picture` is empty where there are too few steps to draw."""

    name: str
    title: str
    picture: Markup


def result_sections(params: Params | None, result: Result | None) -> list[Section]:
    match result:
        case ComposeResult():
            return list(_composition(result))
        case TrainResult():
            return list(_training(result))
        case ParResult():
            return list(_par_training(result))
        case ReduceResult():
            return list(_reduction(result))
        case EvaluateResult(scores=[_, *_] as scores):
            return [Scores(scores)]
        case ConvertResult():
            return [Conversion(result.converted)]
        case GenerateResult():
            prompt = params.prompt if isinstance(params, GenerateParams) else ""
            return [Answers(prompt, result.answers.base, result.answers.adapter)]
        case _:
            return []


def _own_first(by_arm: Mapping[str, T]) -> list[tuple[str, T]]:
    return sorted(by_arm.items(), key=lambda item: (item[0] not in OWN_ARMS, item[0]))


def _title(arm: str) -> str:
    return ARM_TITLES.get(arm) or arm.replace("_", " ").capitalize()


# --- compose ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weight:
    name: str  # of an adapter, with its folder
    href: str
    value: float


@dataclass(frozen=True)
class Weights(Section, template="jobs/sections/weights.html"):
    weights: Sequence[Weight]  # the largest first
    by_layer: bool
    truncation_error: float | None


@dataclass(frozen=True)
class Search(Section, template="jobs/sections/search.html"):
    picture: Markup
    evaluations: int
    seconds: float


def _composition(result: ComposeResult) -> Iterator[Section]:
    if result.weights:
        weights = [_weight(name, value) for name, value in result.weights.items()]
        weights.sort(key=lambda weight: -abs(weight.value))
        yield Weights(weights, result.by_layer is not None, result.truncation_error)
    if picture := search_plot((point.step, point.loss, point.best) for point in result.trace):
        yield Search(picture, result.evaluations, result.search_seconds)


def _weight(name: str, value: float) -> Weight:
    """An adapter's name in a result ends with its commit: `starter/plurals/folder@0123abcd`."""
    path, _, commit = name.partition("@")
    repo = "/".join(path.split("/")[:2])
    return Weight(path, f"/adapters/{repo}?revision={commit}", value)


# --- train and par ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training(Section, template="jobs/sections/training.html"):
    curves: Sequence[Curve]
    settings: TrainSettings | None = None
    searches: Sequence[tuple[str, RateSearch]] = ()  # by title: of learning rates
    tokens_per_second: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Reinforcement(Section, template="jobs/sections/reinforcement.html"):
    curves: Sequence[Curve]


@dataclass(frozen=True)
class Systems(Section, template="jobs/sections/systems.html"):
    split: Split
    measure: str
    accuracy: Sequence[tuple[str, Mapping[str, Estimate]]]  # by arm, in the report's order


@dataclass(frozen=True)
class Partition(Section, template="jobs/sections/partition.html"):
    partition: PartitionSizes
    maps: Sequence[RegionMap]
    largest_share: float


def _training(result: TrainResult) -> Iterator[Section]:
    if result.curve:
        yield Training(
            curves=_loss_curves(result.curve),
            settings=result.settings,
            searches=[(_title(arm), search) for arm, search in _own_first(result.search)],
            tokens_per_second=result.tokens_per_second,
            seconds=result.training_seconds,
        )


def _loss_curves(curves: Mapping[str, TrainingCurve]) -> list[Curve]:
    return [
        Curve(arm, _title(arm), training_plot(curve.every, curve.losses, curve.validations))
        for arm, curve in _own_first(curves)
    ]


def _par_training(result: ParResult) -> Iterator[Section]:
    if result.curve:
        yield Training(_loss_curves(result.curve))
    if result.rewards:
        yield Reinforcement(
            [
                Curve(arm, _title(arm), reward_plot(curve.every, [step["reward"] for step in curve.steps]))
                for arm, curve in _own_first(result.rewards)
            ]
        )
    if result.split and result.partition:
        arms = result.accuracy.arms if result.accuracy else {}
        names = [arm.name for arm in result.report.arms if arm.name in arms] if result.report else []
        measure = result.accuracy.measure if result.accuracy else ""
        yield Systems(result.split, measure, [(name, arms[name]) for name in names])
        largest, maps = partition_maps(result.partition.matrices)
        yield Partition(result.partition, maps, largest)


# --- reduce -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cuts(Section, template="jobs/sections/cuts.html"):
    loss: Loss
    cuts: Sequence[Cut]
    size: Size | None  # of the factors
    spectra: Sequence[Markup]


@dataclass(frozen=True)
class Gains(Section, template="jobs/sections/gains.html"):
    picture: Markup
    gains: Sequence[tuple[str, float]]  # by matrix, the largest first


@dataclass(frozen=True)
class SmallerAdapter(Section, template="jobs/sections/smaller_adapter.html"):
    loss: Loss
    components: Kept
    parameters: Kept
    trials: Sequence[ComponentTrial]


@dataclass(frozen=True)
class CutTrials(Section, template="jobs/sections/cut_trials.html"):
    loss: Loss
    trials: Sequence[CutTrial]


def _reduction(result: ReduceResult) -> Iterator[Section]:
    if result.cuts is not None:
        # The drawings escape the text in them.
        spectra = [Markup(svg.spectrum(matrix.path, matrix.values, matrix.kept)) for matrix in result.spectra]  # noqa: S704
        yield Cuts(result.loss, result.cuts, result.size, spectra)
    if result.matrices:
        picture = Markup(svg.gains(result.matrices, [cut.path for cut in result.cuts or ()]))  # noqa: S704
        yield Gains(picture, sorted(result.matrices.items(), key=lambda item: -item[1]))
    if result.components and result.parameters:
        trials = [trial for trial in result.trials if isinstance(trial, ComponentTrial)]
        yield SmallerAdapter(result.loss, result.components, result.parameters, trials)
    if cut_trials := [trial for trial in result.trials if isinstance(trial, CutTrial)]:
        yield CutTrials(result.loss, cut_trials)


# --- evaluate, convert and generate -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores(Section, template="jobs/sections/scores.html"):
    scores: Sequence[ScoreRow]


@dataclass(frozen=True)
class Conversion(Section, template="jobs/sections/conversion.html"):
    converted: Converted


@dataclass(frozen=True)
class Answers(Section, template="jobs/sections/answers.html"):
    prompt: str
    base: str
    adapter: str | None
