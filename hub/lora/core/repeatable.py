"""Deterministic attention: a training gives the same bits every time, on a GPU as on the CPU.

On a GPU, torch's fused attention sums the parts of a gradient in any order unless deterministic algorithms are on. With them on for all
operations, torch refuses those that have no deterministic algorithm, and all matrix products unless an environment variable was set
before the first one. So they are on for the backward pass of attention only. cuDNN's attention, which torch prefers on Hopper, has no
deterministic algorithm, and plans again for each of the many batch lengths here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.backends import cuda
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_KIND = "sdpa"  # transformers' name of torch's attention


@contextmanager
def repeatable_attention(device: torch.device) -> Iterator[None]:
    """Within the block, attention on a GPU is deterministic; on the CPU it always is."""
    if device.type != "cuda":
        yield
        return
    usual, with_cudnn = ALL_ATTENTION_FUNCTIONS[_KIND], cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    strict, lenient = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )

    def attend(module: nn.Module, *inputs: Any, **options: Any) -> Any:
        output, weights = usual(module, *inputs, **options)
        if (fused := _fused(output.grad_fn)) is not None:
            fused.register_prehook(lambda _: torch.use_deterministic_algorithms(True))
            fused.register_hook(lambda *_: torch.use_deterministic_algorithms(strict, warn_only=lenient))
        return output, weights

    ALL_ATTENTION_FUNCTIONS[_KIND] = attend
    cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[_KIND]
        cuda.enable_cudnn_sdp(with_cudnn)
        torch.use_deterministic_algorithms(strict, warn_only=lenient)


def _fused(node: Any) -> Any:
    """The node of fused attention that produced an output, up to changes of shape. None if another operation did."""
    while node is not None and not node.name().startswith("ScaledDotProduct"):
        node = node.next_functions[0][0] if len(node.next_functions) == 1 else None
    return node
