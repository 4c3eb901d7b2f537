"""What a reduction is to lower: where every example has choices, the loss of choosing wrongly, and else the loss of the target's tokens.

A model answers a question with choices by the likeliest one, so what counts there is not how likely the right choice is but how much
likelier than the others. Whole answers are compared, as `evaluate`'s metric "choice" does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from hub.lora.core.bases import Base
from hub.lora.core.examples import IGNORED, Batch, Example, encode, target_loss, target_losses
from hub.lora.core.losses import BATCH_SIZE


@dataclass(frozen=True)
class Choices(Batch):
    """A batch of which each row is a question with one of its choices.

    `places`, (questions, most choices), has the rows of each question, the right one first, and -1 where it has fewer choices.
    """

    places: Tensor


def batches_of(base: Base, examples: Sequence[Example], template: str, rows: int = BATCH_SIZE) -> list[Batch]:
    """The examples encoded once for all measurements: as questions with choices if all of them are, else by their targets.

    A batch has at most `rows` rows, a row a choice, except where one question alone has more choices.
    """
    if not has_choices(examples):
        starts = range(0, len(examples), rows)
        return [encode(base.tokenizer, examples[start : start + rows], template) for start in starts]
    found: list[Batch] = []
    waiting: list[Example] = []
    for example in examples:
        if waiting and sum(len(set(other.choices)) for other in (*waiting, example)) > rows:
            found.append(_choices(base, waiting, template))
            waiting = []
        waiting.append(example)
    return [*found, _choices(base, waiting, template)] if waiting else found


def _choices(base: Base, examples: Sequence[Example], template: str) -> Choices:
    asked: list[Example] = []
    each: list[list[int]] = []
    for example in examples:
        ordered = [example.target, *sorted(set(example.choices) - {example.target})]
        each.append(list(range(len(asked), len(asked) + len(ordered))))
        asked += [Example(example.input, choice) for choice in ordered]
    batch = encode(base.tokenizer, asked, template)
    most = max(len(places) for places in each)
    places = torch.tensor([[*found, *[-1] * (most - len(found))] for found in each])
    return Choices(batch.input_ids, batch.attention_mask, batch.labels, places)


def has_choices(examples: Sequence[Example]) -> bool:
    """Whether every example has at least two choices, the target among them."""
    return all(len(set(example.choices)) > 1 and example.target in example.choices for example in examples)


def weight(batch: Batch) -> int:
    """How much a batch counts in a mean: its questions, or its target tokens."""
    return len(batch.places) if isinstance(batch, Choices) else int((batch.labels != IGNORED).sum())


def loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """A scalar in nats, differentiable: the mean negative log-probability of the right choice among all, or that of a target token."""
    if not isinstance(batch, Choices):
        return target_loss(model, batch)
    each = target_losses(model, batch)
    whole = each * (batch.labels != IGNORED).sum(1).to(each.device)  # of the whole answer
    places = batch.places.to(each.device)
    likelihoods = (-whole)[places.clamp(min=0)].masked_fill(places < 0, float("-inf"))
    return functional.cross_entropy(likelihoods, torch.zeros(len(places), dtype=torch.long, device=each.device))


def mean_loss(base: Base, batches: Sequence[Batch]) -> float:
    """Over all batches together."""
    counts = [weight(batch) for batch in batches]
    with torch.inference_mode():
        total = sum(float(loss(base.model, batch)) * count for batch, count in zip(batches, counts, strict=True))
    return total / sum(counts)
