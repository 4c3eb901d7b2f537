"""Evaluate a base on examples, alone or with an adapter: scores per example, and their means with 95 % intervals."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from hub.formats.report import Estimate
from hub.intervals import bootstrap_interval, share_interval
from hub.lora.core.adapter import Adapter, applied
from hub.lora.core.bases import Base
from hub.lora.core.errors import LoraError
from hub.lora.core.examples import (
    IGNORED,
    Example,
    OnProgress,
    contains,
    encode,
    exact_match,
    generate,
    numeric_match,
    target_losses,
    tokenize,
)
from hub.vocabulary import Metric

_OF_ANSWERS: dict[Metric, Callable[[str, str], bool]] = {
    "exact_match": exact_match,
    "contains": contains,
    "numeric": numeric_match,
}


class NoExamples(LoraError):
    code = "no_examples"


class NoChoices(LoraError):
    code = "no_choices"


@dataclass(frozen=True)
class Scores:
    """Metric -> one value per example, in the examples' order: 1.0 is right and 0.0 is wrong; a target loss is in nats per token.

    `answers` are the generated answers, empty if no metric needs them. `prompt_tokens` is the mean length of a prompt, and
    `seconds` the mean time per answer, in batches.
    """

    values: dict[Metric, list[float]]
    answers: list[str]
    seed: int = 0  # of the bootstrap
    prompt_tokens: float = 0.0
    seconds: float = 0.0

    @property
    def estimates(self) -> dict[Metric, Estimate]:
        return {
            metric: Estimate(
                *(bootstrap_interval(values, seed=self.seed) if metric == "target_loss" else share_interval(values))
            )
            for metric, values in self.values.items()
        }


def evaluate(
    base: Base,
    adapter: Adapter | None,
    examples: Sequence[Example],
    *,
    template: str,
    metrics: Sequence[Metric],
    max_new_tokens: int = 32,
    batch_size: int = 32,
    seed: int = 0,
    shots: Sequence[Example] = (),
    on_progress: OnProgress,
) -> Scores:
    """Score the base with `adapter` (None: alone) on examples, in batches of inputs of similar length.

    `shots` are solved examples before every input (in-context learning, arXiv 2005.14165, section 2). An answer then ends at its first
    blank line, where the model would continue with another example.

    The metrics "exact_match", "contains" and "numeric" compare the greedy answer. "choice" is right when the target has the highest
    log-likelihood of all choices as the whole answer, its end included; "target_loss" is the target's negative log-likelihood per token.
    After each batch `on_progress(examples done, examples, means so far)` may raise to stop, and the base is as it was.
    Raises NoExamples, or NoChoices when an example does not have its target among its choices.
    """
    _check(examples, metrics)
    prompted = [_with_shots(shots, example) for example in examples] if shots else examples
    evaluation = _Evaluation(base, template, metrics, max_new_tokens, batch_size, bool(shots), prompted)
    order = sorted(range(len(prompted)), key=lambda index: len(prompted[index].input))
    with applied(base.model, adapter):
        for start in range(0, len(order), batch_size):
            evaluation.add(order[start : start + batch_size])
            done = order[: start + batch_size]
            on_progress(len(done), len(prompted), evaluation.means(done))
    tokens = sum(len(tokenize(base.tokenizer, example, template).prompt) for example in prompted)
    count = len(prompted)
    return Scores(evaluation.values, evaluation.answers, seed, tokens / count, evaluation.seconds / count)


class _Evaluation:
    """The scores of the batches so far. With shots in the prompts, an answer ends at its first blank line."""

    def __init__(
        self,
        base: Base,
        template: str,
        metrics: Sequence[Metric],
        max_new_tokens: int,
        batch_size: int,
        with_shots: bool,
        examples: Sequence[Example],
    ) -> None:
        self.base, self.template, self.metrics, self.examples = base, template, metrics, examples
        self.max_new_tokens, self.batch_size, self.with_shots = max_new_tokens, batch_size, with_shots
        self.generates = any(metric in _OF_ANSWERS for metric in metrics)
        self.values: dict[Metric, list[float]] = {metric: [0.0] * len(examples) for metric in metrics}
        self.answers = [""] * len(examples) if self.generates else []
        self.seconds = 0.0

    def add(self, indices: Sequence[int]) -> None:
        """Score the examples at these indices as one batch."""
        if self.generates:
            self._generate(indices)
        for metric in self.metrics:
            for index, value in zip(indices, self._scores(metric, indices), strict=True):
                self.values[metric][index] = value

    def means(self, indices: Sequence[int]) -> dict[str, float]:
        return {
            str(metric): sum(values[index] for index in indices) / len(indices)
            for metric, values in self.values.items()
        }

    def _generate(self, indices: Sequence[int]) -> None:
        inputs = [self.examples[index].input for index in indices]
        started = time.perf_counter()
        answers = generate(
            self.base, inputs, self.template, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size
        )
        self.seconds += time.perf_counter() - started
        for index, answer in zip(indices, answers, strict=True):
            self.answers[index] = answer.partition("\n\n")[0].strip() if self.with_shots else answer

    def _scores(self, metric: Metric, indices: Sequence[int]) -> list[float]:
        batch = [self.examples[index] for index in indices]
        if metric == "target_loss":
            return _losses(self.base, batch, self.template)
        if metric == "choice":
            return _choices(self.base, batch, self.template, self.batch_size)
        matches = _OF_ANSWERS[metric]
        return [float(matches(self.answers[index], self.examples[index].target)) for index in indices]


def _with_shots(shots: Sequence[Example], example: Example) -> Example:
    """The same question after solved examples in the format of the plain template."""
    solved = "".join(f"{shot.input}\nAnswer: {shot.target}\n\n" for shot in shots)
    return replace(example, input=solved + example.input)


def _check(examples: Sequence[Example], metrics: Sequence[Metric]) -> None:
    if not examples:
        raise NoExamples("There are no examples to evaluate on. Give at least one.")
    for number, example in enumerate(examples, 1):
        if "choice" in metrics and example.target not in example.choices:
            raise NoChoices(
                f"Example {number} does not have its target among its choices. Add them, or drop the metric choice."
            )


def _losses(base: Base, examples: Sequence[Example], template: str) -> list[float]:
    """Mean negative log-likelihood per target token of each example."""
    with torch.inference_mode():
        return target_losses(base.model, encode(base.tokenizer, examples, template)).tolist()


def _choices(base: Base, examples: Sequence[Example], template: str, batch_size: int) -> list[float]:
    """1.0 where the target is the likeliest choice of its example. Whole answers are compared, so each token counts."""
    answers = [Example(example.input, choice) for example in examples for choice in example.choices]
    losses: list[float] = []
    for start in range(0, len(answers), batch_size):
        batch = encode(base.tokenizer, answers[start : start + batch_size], template)
        tokens = (batch.labels != IGNORED).sum(1)
        with torch.inference_mode():
            losses += (target_losses(base.model, batch).cpu() * tokens).tolist()
    right, start = [], 0
    for example in examples:
        end = start + len(example.choices)
        by_choice = dict(zip(example.choices, losses[start:end], strict=True))
        right.append(float(min(by_choice, key=by_choice.__getitem__) == example.target))
        start = end
    return right
