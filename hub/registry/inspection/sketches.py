"""A short vector of every module's update, made when its files are inspected, by which alike modules are found in any number of them."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from hub.formats.adapter_config import CONFIG, MAX_CONFIG_BYTES, WEIGHTS, parse_config, scaling_of
from hub.formats.ranged_file import RangedFile
from hub.formats.safetensors_header import TensorInfo, read_header
from hub.formats.tensor_names import parse_key
from hub.similarity import Factors, sketch

NONE = b""  # looked at, and there is nothing that a sketch could tell
# Some ten seconds of work each: of weights, and of rows and columns of the layers that they change.
MAX_BYTES = 1 << 29
MAX_LINES = 1 << 25
BLOCK = 16 << 20  # read at once, as each read may be a request to S3

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def sketch_of(files: Mapping[str, RangedFile], folder: str) -> bytes:
    """The sketch of a sound PEFT folder, float32 little-endian; NONE where its pairs are no update of the base.

    That is so after an initialisation that rewrote the base, without a linear layer, in a dtype that is no plain floating-point number, or
    above the limits. Of a DoRA or of saved modules, only the low-rank pairs count. Raises FormatError for files that inspection refuses.
    """
    at = f"{folder}/" if folder else ""
    weights = files[at + WEIGHTS]
    config = parse_config(files[at + CONFIG].read(0, MAX_CONFIG_BYTES + 1))
    if config.changes_base or weights.size > MAX_BYTES:
        return NONE
    halves: dict[str, dict[str, TensorInfo]] = {}
    for name, tensor in read_header(weights).tensors.items():
        key = parse_key(name)
        if key.part in ("A", "B") and not key.ignored and len(tensor.shape) == 2 and tensor.dtype in _DTYPES:
            halves.setdefault(key.module, {})[key.part] = tensor
    pairs = {module: half for module, half in halves.items() if len(half) == 2}
    if sum(half["A"].shape[1] + half["B"].shape[0] for half in pairs.values()) > MAX_LINES:
        return NONE
    blocks = _Blocks(weights)

    def layers() -> Iterator[tuple[str, Factors]]:
        for module, half in sorted(pairs.items(), key=lambda item: item[1]["A"].start):
            yield module, Factors(blocks.matrix(half["A"]), blocks.matrix(half["B"]), scaling_of(config, module))

    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # weights may be anything, and what is not finite is left out below
        found = sketch(layers())
    if not np.isfinite(found).all() or not found.any():
        return NONE
    return found.astype("<f4").tobytes()


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
        held = np.frombuffer(self.data[tensor.start - self.start : tensor.end - self.start], _DTYPES[tensor.dtype])
        if tensor.dtype == "BF16":  # the upper half of a float32
            held = (held.astype(np.uint32) << 16).view(np.float32)
        return held.reshape(tensor.shape).astype(np.float32)
