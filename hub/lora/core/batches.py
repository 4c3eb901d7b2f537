"""What a training run reads, decided before its first step: which examples fit, which are for validation, and which batch comes when."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, Tokens, tokenize

POOL = 50  # batches whose examples are sorted by length together: enough for like lengths, few enough to stay random


@dataclass(frozen=True)
class Fitting:
    """The examples that are short enough, as tokens, and how many were left out because they are not."""

    rows: list[Tokens]
    too_long: int


def fitting(base: Base, examples: Sequence[Example], template: str, max_length: int) -> Fitting:
    rows = [tokenize(base.tokenizer, example, template) for example in examples]
    kept = [row for row in rows if len(row) <= max_length]
    return Fitting(kept, len(rows) - len(kept))


def split(examples: Sequence[Example], share: float, seed: int, at_most: int) -> tuple[list[Example], list[Example]]:
    """(for training, for validation), drawn at random; examples of one input stay together, or validation would measure memory."""
    inputs = sorted({example.input for example in examples})
    random.Random(seed).shuffle(inputs)  # noqa: S311 - a reproducible draw
    validated = set(inputs[: min(round(len(inputs) * share), at_most, len(inputs) - 1)])
    return (
        [example for example in examples if example.input not in validated],
        [example for example in examples if example.input in validated],
    )


def rounds(lengths: Sequence[int], batch_size: int, count: int, seed: int) -> list[list[list[int]]]:
    """`count` rounds over the examples, each a list of batches of indices in which every example comes once.

    The examples of a batch are of like length, so that little is padded; which of them come together, and when, is random.
    """
    generator = torch.Generator().manual_seed(seed)
    return [_round(lengths, batch_size, generator) for _ in range(count)]


def _round(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> list[list[int]]:
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches = []
    for start in range(0, len(order), POOL * batch_size):
        pool = sorted(order[start : start + POOL * batch_size], key=lambda index: lengths[index])
        batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def plan(
    lengths: Sequence[int], *, batch_size: int, accumulation: int, steps: int | None, epochs: int, seed: int
) -> list[list[list[int]]]:
    """Per step its batches. `steps` of them, or as many as `epochs` rounds give; the last step of all may have fewer batches."""
    per_round = -(-len(lengths) // batch_size)
    count = epochs if steps is None else -(-steps * accumulation // per_round)
    batches = [batch for each in rounds(lengths, batch_size, count, seed) for batch in each]
    grouped = [batches[at : at + accumulation] for at in range(0, len(batches), accumulation)]
    return grouped[:steps]
