"""The mean loss of a base over examples, in batches that are encoded once."""

from collections.abc import Sequence

import torch

from hub.lora.core.bases import Base
from hub.lora.core.examples import IGNORED, Batch, Example, encode, target_loss

BATCH_SIZE = 16  # examples per forward pass


def encoded(base: Base, examples: Sequence[Example], template: str) -> list[Batch]:
    """The examples as batches of at most BATCH_SIZE, encoded once for all evaluations."""
    starts = range(0, len(examples), BATCH_SIZE)
    return [encode(base.tokenizer, examples[start : start + BATCH_SIZE], template) for start in starts]


def mean_loss(base: Base, batches: Sequence[Batch]) -> float:
    """Mean negative log-likelihood per target token, over all batches together."""
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for batch in batches:
            count = int((batch.labels != IGNORED).sum())
            total += float(target_loss(base.model, batch)) * count
            tokens += count
    return total / tokens
