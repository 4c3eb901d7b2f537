"""Batches that are encoded once, and the mean loss of a base over them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hub.lora.core.bases import Base
from hub.lora.core.examples import Batch, Example, encode, target_loss

BATCH_SIZE = 16  # examples per forward pass


def encode_batches(
    base: Base, examples: Sequence[Example], template: str, batch_size: int | None = None
) -> list[Batch]:
    """The examples as batches of at most `batch_size` (BATCH_SIZE), encoded once for all evaluations."""
    size = batch_size or BATCH_SIZE
    starts = range(0, len(examples), size)
    return [encode(base.tokenizer, examples[start : start + size], template) for start in starts]


def mean_loss(base: Base, batches: Sequence[Batch]) -> float:
    """Mean negative log-likelihood per target token (nats), over all batches together."""
    return weighted_mean(base, batches, target_loss, lambda batch: batch.target_tokens)


def weighted_mean(
    base: Base,
    batches: Sequence[Batch],
    loss: Callable[[PreTrainedModel, Batch], Tensor],
    weight: Callable[[Batch], int],
) -> float:
    """The mean of a batch loss (a scalar) over batches, weighted by `weight`; no gradient is kept."""
    total, weights = 0.0, 0
    with torch.inference_mode():
        for batch in batches:
            count = weight(batch)
            total += float(loss(base.model, batch)) * count
            weights += count
    return total / weights
