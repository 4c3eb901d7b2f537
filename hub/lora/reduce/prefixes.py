"""Losses of a base that was changed in one block, without computing the blocks before it again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hub.lora.core.bases import Base
from hub.lora.core.examples import Batch
from hub.lora.reduce.objective import loss, weight


class Prefixes:
    """The hidden states that enter each block of the untouched base, so that a trial computes only the blocks from its change on.

    They are computed once for all blocks, with the base's weights at that time, and take (blocks, examples, length, width) of memory.
    """

    def __init__(self, base: Base, batches: Sequence[Batch]) -> None:
        self.base, self.batches = base, batches
        self.blocks = _block_list(base)
        self.states = [self._states(batch) for batch in batches]

    def mean_loss_from(self, path: str) -> float:
        """The mean loss, with everything before the block of the layer `path` taken from the untouched base."""
        start = next((index for index, (name, _) in enumerate(self.blocks) if path.startswith(f"{name}.")), 0)
        total, counted = 0.0, 0
        for batch, states in zip(self.batches, self.states, strict=True):
            count = weight(batch)
            with torch.inference_mode(), self._entered(start, states):
                total += float(loss(self.base.model, batch)) * count
            counted += count
        return total / counted

    def _states(self, batch: Batch) -> list[Tensor]:
        states: list[Tensor] = []
        handles = [
            block.register_forward_pre_hook(lambda _block, inputs: states.append(inputs[0])) for _, block in self.blocks
        ]
        try:
            with torch.inference_mode():
                loss(self.base.model, batch)
        finally:
            for handle in handles:
                handle.remove()
        return states

    @contextmanager
    def _entered(self, start: int, states: Sequence[Tensor]) -> Iterator[None]:
        """Skip the blocks before `start`: each returns its input, and the last one the untouched base's input of the block `start`."""
        skipped = [block for _, block in self.blocks[:start]]
        try:
            for index, block in enumerate(skipped):
                block.forward = _returning(states[start] if index == start - 1 else None)
            yield
        finally:
            for block in skipped:
                del block.forward  # uncovers the forward of the class


def _returning(state: Tensor | None) -> Callable[..., Tensor]:
    return lambda hidden, *_args, **_options: hidden if state is None else state


def _block_list(base: Base) -> list[tuple[str, nn.Module]]:
    """The base's blocks in order: the longest list of modules. Empty for an encoder-decoder, whose two halves are not one sequence."""
    if base.model.config.is_encoder_decoder:
        return []
    lists = [(name, module) for name, module in base.model.named_modules() if isinstance(module, nn.ModuleList)]
    name, blocks = max(lists, key=lambda item: len(item[1]))
    return [(f"{name}.{index}", block) for index, block in enumerate(blocks)]
