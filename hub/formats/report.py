"""A report: a result beside what it is compared with, measured on the same held-out examples. Jobs, manifests and pages have it alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from hub.vocabulary import METRICS, Metric

Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=1_000)]

T = TypeVar("T")


def is_none(value: object) -> bool:
    return value is None


# A field that JSON leaves out where it has no value, as opposed to one that is null there.
Absent = Annotated[T | None, Field(exclude_if=is_none)]


@dataclass(frozen=True)
class Estimate:
    """A mean over examples with its 95 % interval: Wilson's for shares of right answers, the bootstrap's for losses and differences."""

    mean: Finite
    low: Finite
    high: Finite


class Figures(BaseModel):
    """An estimate for each metric that was measured: shares from 0 to 1, `target_loss` in nats per target token."""

    model_config = ConfigDict(frozen=True)

    exact_match: Absent[Estimate] = None
    contains: Absent[Estimate] = None
    numeric: Absent[Estimate] = None
    choice: Absent[Estimate] = None
    target_loss: Absent[Estimate] = None

    @property
    def estimates(self) -> Mapping[Metric, Estimate]:
        """In the vocabulary's order."""
        found = {metric: self.of(metric) for metric in METRICS}
        return {metric: estimate for metric, estimate in found.items() if estimate}

    def of(self, metric: Metric) -> Estimate | None:
        estimate: Estimate | None = getattr(self, metric)
        return estimate


class Arm(Figures):
    """One thing that was measured. `prompt_tokens` and `seconds_an_answer` are means: what the arm costs whoever uses it."""

    name: Name
    made_by: dict[str, JsonValue] = {}
    prompt_tokens: Absent[Finite] = None
    seconds_an_answer: Absent[Finite] = None


class Comparison(Figures):
    """The result minus the arm `against`, example by example."""

    against: Name


class Report(BaseModel):
    """`strongest`, `beats` and `examples` are a composition's: its strongest control, whether it beats that, and how many examples it
    was made from."""

    model_config = ConfigDict(frozen=True)

    held_out: int
    arms: list[Arm] = Field(min_length=1, max_length=50)
    comparisons: list[Comparison] = Field(max_length=50)
    verdict: Annotated[str, Field(max_length=10_000)]
    strongest: Absent[str] = None
    beats: Absent[bool] = None
    examples: Absent[int] = None

    @model_validator(mode="after")
    def alike(self) -> "Report":
        metrics = self.arms[0].estimates.keys()
        if not metrics or any(arm.estimates.keys() != metrics for arm in self.arms):
            raise ValueError("every arm must be measured, and by the same metrics")
        return self
