"""Attention that trains to the same bits every time, on a card as on the processor.

On a card torch's fused attention adds the parts of a gradient in whatever order they are ready, unless it is told to use only what is
deterministic. Told so for everything, torch refuses operations that have no such way, and matrix products altogether where an environment
variable was not set before the first one; so it is told so for the backward pass of attention alone. cuDNN's attention, which torch
prefers on Hopper, has no such way, and plans anew for each length of batch, of which there are many here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.backends import cuda
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_KIND = "sdpa"  # what transformers calls torch's attention


@contextmanager
def repeatable_attention(device: torch.device) -> Iterator[None]:
    """Within the block every model on a card trains so; on the processor it does anyway."""
    if device.type != "cuda":
        yield
        return
    usual, with_cudnn = ALL_ATTENTION_FUNCTIONS[_KIND], cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    strict, lenient = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )

    def attend(module: nn.Module, *given: Any, **options: Any) -> Any:
        output, weights = usual(module, *given, **options)
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
    """The backward pass of the fused attention that gave an output; between them its shape was changed, no more. None of any other."""
    while node is not None and not node.name().startswith("ScaledDotProduct"):
        node = node.next_functions[0][0] if len(node.next_functions) == 1 else None
    return node
