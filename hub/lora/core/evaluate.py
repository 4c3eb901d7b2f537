"""How well a base answers examples, alone or with an adapter: each example's scores, and their means with 95 % intervals."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

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
class Estimate:
    """A mean over examples with its 95 % interval: Wilson's for shares of right answers, the bootstrap's for losses."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """Per metric one value an example, in the examples' order: 1.0 is right and 0.0 is wrong, a target loss is in nats per token.

    `answers` is what the model wrote, empty when no metric looked at it; `prompt_tokens` is the mean length of what it was asked, and
    `seconds` the time an answer took, in batches.
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
    """Score the base with `adapter` (None: alone) on examples, in batches of inputs of like length.

    `shots` are shown, solved, before every input (in-context learning, arXiv 2005.14165, section 2); an answer then ends at its first
    blank line, where the model would go on with a further example of its own.

    The metrics "exact_match", "contains" and "numeric" look at the greedy answer. "choice" is right when of all choices the target
    has the highest log-likelihood as the whole answer, its end included; "target_loss" is that of the target per token, negated.
    After each batch `on_progress(examples done, examples, means so far)` may raise to stop, with the base as it was.
    Raises NoExamples, or NoChoices when an example has none to choose from.
    """
    _check(examples, metrics)
    examples = [_after(shots, example) for example in examples] if shots else examples
    answering = any(metric in _OF_ANSWERS for metric in metrics)
    values: dict[Metric, list[float]] = {metric: [0.0] * len(examples) for metric in metrics}
    answers = [""] * len(examples) if answering else []
    seconds = 0.0
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].input))
    with applied(base.model, adapter):
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = [examples[index] for index in indices]
            if answering:
                inputs = [example.input for example in batch]
                started = time.perf_counter()
                given = generate(base, inputs, template, max_new_tokens=max_new_tokens, batch_size=batch_size)
                seconds += time.perf_counter() - started
                for index, answer in zip(indices, given, strict=True):
                    answers[index] = answer.partition("\n\n")[0].strip() if shots else answer
            for metric in metrics:
                if metric == "target_loss":
                    found = _losses(base, batch, template)
                elif metric == "choice":
                    found = _choices(base, batch, template, batch_size)
                else:
                    found = [float(_OF_ANSWERS[metric](answers[index], examples[index].target)) for index in indices]
                for index, value in zip(indices, found, strict=True):
                    values[metric][index] = value
            done = order[: start + batch_size]
            means = {str(metric): sum(values[metric][index] for index in done) / len(done) for metric in metrics}
            on_progress(len(done), len(examples), means)
    asked = sum(len(tokenize(base.tokenizer, example, template).prompt) for example in examples)
    return Scores(values, answers, seed, asked / len(examples), seconds / len(examples))


def _after(shots: Sequence[Example], example: Example) -> Example:
    """The same question after solved ones, written as the plain template writes them."""
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
    asked = [Example(example.input, choice) for example in examples for choice in example.choices]
    losses: list[float] = []
    for start in range(0, len(asked), batch_size):
        batch = encode(base.tokenizer, asked[start : start + batch_size], template)
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
