"""The data of a training run, planned before its first step: the examples that fit, those for validation, and the order of batches."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, Tokens, tokenize

POOL = 50  # batches whose examples are sorted by length together: enough for similar lengths, few enough to stay random


@dataclass(frozen=True)
class Fitting:
    """The examples that are short enough, as tokens, and how many were too long."""

    rows: list[Tokens]
    too_long: int


def fitting(base: Base, examples: Sequence[Example], template: str, max_length: int) -> Fitting:
    rows = [tokenize(base.tokenizer, example, template) for example in examples]
    short = [row for row in rows if len(row) <= max_length]
    return Fitting(short, len(rows) - len(short))


def split(examples: Sequence[Example], share: float, seed: int, at_most: int) -> tuple[list[Example], list[Example]]:
    """(training, validation), drawn at random. Examples with the same input stay together, or validation would measure memory."""
    inputs = sorted({example.input for example in examples})
    random.Random(seed).shuffle(inputs)  # noqa: S311 - a reproducible draw
    validated = set(inputs[: min(round(len(inputs) * share), at_most, len(inputs) - 1)])
    return (
        [example for example in examples if example.input not in validated],
        [example for example in examples if example.input in validated],
    )


def rounds(lengths: Sequence[int], batch_size: int, count: int, seed: int) -> list[list[list[int]]]:
    """`count` epochs, each a list of batches of indices that contains every example once.

    The examples of a batch have similar lengths, so that little is padded. Their grouping and order are random.
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
    """The batches of each step: `steps` of them, or `epochs` passes over the examples. The last step may have fewer batches."""
    per_round = -(-len(lengths) // batch_size)
    count = epochs if steps is None else -(-steps * accumulation // per_round)
    batches = [batch for batches in rounds(lengths, batch_size, count, seed) for batch in batches]
    grouped = [batches[at : at + accumulation] for at in range(0, len(batches), accumulation)]
    return grouped[:steps]
