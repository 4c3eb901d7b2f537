"""A short vector of every adapter's update, computed when its files are inspected, by which similar adapters are found."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from hub.formats.adapter_config import scaling_of
from hub.formats.ranged_file import RangedFile
from hub.formats.safetensors_header import TensorInfo
from hub.formats.tensor_names import parse_key
from hub.registry.inspection.parsed_adapter import ParsedAdapter
from hub.similarity import Factors, sketch

NONE = b""  # inspected, and a sketch would say nothing
# Some ten seconds of work each: of weights, and of rows and columns of the layers that they change.
MAX_BYTES = 1 << 29
MAX_LINES = 1 << 25
BLOCK = 16 << 20  # read at once, as each read may be a request to S3

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def sketch_of(adapter: ParsedAdapter) -> bytes:
    """The sketch of a sound adapter, float32 little-endian; NONE where its pairs are no update of the base.

    That is so after an initialisation that rewrote the base, without a linear layer, above the limits, or in a dtype that is not a plain
    floating-point number. Of a DoRA or of saved modules, only the low-rank pairs count.
    """
    if adapter.config.changes_base or adapter.weights.size > MAX_BYTES:
        return NONE
    pairs = _linear_pairs(adapter.tensors)
    if sum(pair["A"].shape[1] + pair["B"].shape[0] for pair in pairs.values()) > MAX_LINES:
        return NONE
    blocks = _Blocks(adapter.weights)

    def layers() -> Iterator[tuple[str, Factors]]:
        for module, pair in sorted(pairs.items(), key=lambda item: item[1]["A"].start):
            scaling = scaling_of(adapter.config, module)
            yield module, Factors(blocks.matrix(pair["A"]), blocks.matrix(pair["B"]), scaling)

    # Weights may be any numbers; a sketch that is not finite is dropped below.
    with np.errstate(over="ignore", invalid="ignore"):
        vector = sketch(layers())
    if not np.isfinite(vector).all() or not vector.any():
        return NONE
    return vector.astype("<f4").tobytes()


def _linear_pairs(tensors: Mapping[str, TensorInfo]) -> dict[str, dict[str, TensorInfo]]:
    """Module -> its A and B, of linear layers that PEFT reads."""
    halves: dict[str, dict[str, TensorInfo]] = {}
    for name, tensor in tensors.items():
        key = parse_key(name)
        if key.part in ("A", "B") and not key.ignored and len(tensor.shape) == 2 and tensor.dtype in _DTYPES:
            halves.setdefault(key.module, {})[key.part] = tensor
    return {module: pair for module, pair in halves.items() if len(pair) == 2}


class _Blocks:
    """Reads tensors in the order of the file, a large piece at a time."""

    def __init__(self, file: RangedFile) -> None:
        self.file = file
        self.start = 0
        self.data = b""

    def matrix(self, tensor: TensorInfo) -> npt.NDArray[np.float32]:
        if not self.start <= tensor.start <= tensor.end <= self.start + len(self.data):
            self.start = tensor.start
            self.data = self.file.read(
                tensor.start, max(tensor.end - tensor.start, min(BLOCK, self.file.size - tensor.start))
            )
        data = self.data[tensor.start - self.start : tensor.end - self.start]
        numbers = np.frombuffer(data, _DTYPES[tensor.dtype])
        if tensor.dtype == "BF16":  # the upper half of a float32
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        return numbers.reshape(tensor.shape).astype(np.float32)
