"""The objective of a reduction: the loss of choosing wrongly where every example has choices, else the loss of the target's tokens.

A model answers a question with choices by the likeliest one. So what counts is how much likelier the right choice is than the others,
not how likely it is. Whole answers are compared, as `evaluate`'s metric "choice" does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from hub.lora.core.bases import Base
from hub.lora.core.examples import IGNORED, Batch, Example, encode, target_loss, target_losses
from hub.lora.core.losses import BATCH_SIZE, encode_batches, weighted_mean


@dataclass(frozen=True)
class Choices(Batch):
    """A batch in which each row is a question with one of its choices.

    `places`, (questions, most choices), has the rows of each question, the right one first, and -1 where it has fewer choices.
    """

    places: Tensor


def batches_of(base: Base, examples: Sequence[Example], template: str, rows: int = BATCH_SIZE) -> list[Batch]:
    """The examples encoded once for all measurements: as questions with choices if all of them have choices, else by their targets.

    A batch has at most `rows` rows, one per choice, except where one question alone has more choices.
    """
    if not has_choices(examples):
        return encode_batches(base, examples, template, rows)
    batches: list[Batch] = []
    pending: list[Example] = []
    for example in examples:
        if pending and sum(len(set(other.choices)) for other in (*pending, example)) > rows:
            batches.append(_choices(base, pending, template))
            pending = []
        pending.append(example)
    return [*batches, _choices(base, pending, template)] if pending else batches


def _choices(base: Base, examples: Sequence[Example], template: str) -> Choices:
    answers: list[Example] = []
    rows: list[list[int]] = []  # of each question
    for example in examples:
        ordered = [example.target, *sorted(set(example.choices) - {example.target})]
        rows.append(list(range(len(answers), len(answers) + len(ordered))))
        answers += [Example(example.input, choice) for choice in ordered]
    batch = encode(base.tokenizer, answers, template)
    most = max(len(own) for own in rows)
    places = torch.tensor([[*own, *[-1] * (most - len(own))] for own in rows])
    return Choices(batch.input_ids, batch.attention_mask, batch.labels, places)


def has_choices(examples: Sequence[Example]) -> bool:
    """Whether every example has at least two choices, the target among them."""
    return all(len(set(example.choices)) > 1 and example.target in example.choices for example in examples)


def weight(batch: Batch) -> int:
    """The weight of a batch in a mean: its questions, or its target tokens."""
    return len(batch.places) if isinstance(batch, Choices) else batch.target_tokens


def loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """A differentiable scalar in nats: the mean negative log-probability of the right choice among all, or that of a target token."""
    if not isinstance(batch, Choices):
        return target_loss(model, batch)
    per_token = target_losses(model, batch)
    whole = per_token * (batch.labels != IGNORED).sum(1).to(per_token.device)  # of the whole answer
    places = batch.places.to(per_token.device)
    likelihoods = (-whole)[places.clamp(min=0)].masked_fill(places < 0, float("-inf"))
    return functional.cross_entropy(likelihoods, torch.zeros(len(places), dtype=torch.long, device=per_token.device))


def mean_loss(base: Base, batches: Sequence[Batch]) -> float:
    """The mean of `loss` over all batches together."""
    return weighted_mean(base, batches, loss, weight)
