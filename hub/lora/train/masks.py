"""Sets of elements of a LoRA, such as those that a training run may change."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

Bools = NDArray[numpy.bool_]
Floats = NDArray[numpy.float32]


@dataclass(frozen=True)
class Layout:
    """The order of a LoRA's tensors in one vector of `size` elements, by name."""

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    def spans(self) -> dict[str, slice]:
        spans, start = {}, 0
        for name, shape in self.shapes.items():
            spans[name] = slice(start, start + math.prod(shape))
            start += math.prod(shape)
        return spans

    def joined(self, tensors: Mapping[str, Tensor]) -> Floats:
        """All values as one vector (size,), in this layout's order."""
        vector = numpy.empty(self.size, dtype=numpy.float32)
        for name, span in self.spans().items():
            vector[span] = tensors[name].detach().float().cpu().numpy().ravel()
        return vector


@dataclass(frozen=True)
class Mask:
    """A set of elements: bit i of `bits` (ceil(size / 8),), the highest of a byte first, is set if element i is in it."""

    layout: Layout
    bits: NDArray[numpy.uint8]

    @classmethod
    def of(cls, layout: Layout, chosen: Bools) -> "Mask":
        return cls(layout, numpy.packbits(chosen))

    def chosen(self) -> Bools:
        """Whether each element is in the set, (size,)."""
        return numpy.unpackbits(self.bits, count=self.layout.size).view(numpy.bool_)

    def tensors(self) -> dict[str, Tensor]:
        """Tensor name -> bool mask in the tensor's shape."""
        chosen, shapes = self.chosen(), self.layout.shapes
        return {name: torch.from_numpy(chosen[span]).view(shapes[name]) for name, span in self.layout.spans().items()}

    def __len__(self) -> int:
        return int(numpy.bitwise_count(self.bits).sum())
