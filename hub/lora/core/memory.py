"""Memory checks: refuse work that cannot fit, and translate an allocation that fails into advice on what to lower."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from hub.formats.ranged_file import LocalFile
from hub.formats.safetensors_header import read_header
from hub.lora.core.errors import LoraError

if TYPE_CHECKING:
    from hub.lora.core.bases import Base  # bases imports this module

# Values per token and layer that are kept for the backward pass, in widths of the layer. A lower bound (inputs of norms and products,
# the halves of the gated product), so that nothing is refused that could have worked.
_WIDTHS = 8
_INNER_WIDTHS = 4


class NotEnoughMemory(LoraError):
    code = "out_of_memory"


def weights_bytes(weights: Sequence[Path], dtype: torch.dtype | None, *, four_bit: bool) -> int:
    """The least memory that these safetensors files need, in bytes: in this dtype, as they are stored, or in four bits."""
    tensors = [tensor for path in weights for tensor in read_header(LocalFile(path)).tensors.values()]
    values = sum(math.prod(tensor.shape) for tensor in tensors)
    stored = sum(tensor.end - tensor.start for tensor in tensors)
    return values // 2 if four_bit else values * dtype.itemsize if dtype else stored


def check_weights(needed: int, device: torch.device) -> None:
    """Raise NotEnoughMemory if weights of this many bytes certainly do not fit."""
    free = available(device)
    if needed > free:
        raise NotEnoughMemory(
            f"The base's weights need {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free on this worker. Choose a smaller base, "
            "or a worker with more memory."
        )


def check_memory(base: "Base", length: int, batch_size: int) -> None:
    """Raise NotEnoughMemory if the longest batch certainly does not fit beside the base."""
    config = base.model.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    values = config.num_hidden_layers * (_WIDTHS * config.hidden_size + _INNER_WIDTHS * inner)
    needed = batch_size * length * values * base.dtype.itemsize
    free = available(base.device)
    if needed > free:
        raise NotEnoughMemory(
            f"A batch of {batch_size} examples of {length} tokens needs at least {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
            "free. Lower batch_size (and raise accumulation instead), or lower max_length."
        )


def available(device: torch.device) -> int:
    """Free memory in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


@contextmanager
def translate_out_of_memory(batch_size: int, max_length: int) -> Iterator[None]:
    """Within the block, raise NotEnoughMemory in place of a failed allocation."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # On the CPU torch raises a plain RuntimeError.
        if (
            isinstance(error, RuntimeError)
            and "allocate memory" not in str(error)
            and "out of memory" not in str(error)
        ):
            raise
        raise NotEnoughMemory(
            f"Memory ran out in the middle. Lower batch_size ({batch_size}; raise accumulation instead) or max_length ({max_length})."
        ) from error
