"""Read a base model from its files' headers alone: the shapes of its layers and a fingerprint of its weights."""

import json
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.formats.errors import FormatError
from hub.formats.ranged_file import LocalFile, RangedFile
from hub.formats.safetensors_header import fingerprint, read_header
from hub.registry.platform.errors import InvalidInput

# GPT-2's Conv1D keeps its weights as (in, out), where a linear layer keeps (out, in).
TRANSPOSED = {"gpt2": ("c_attn", "c_proj", "c_fc", "q_attn")}
# What the architectures call the embedding that a tied lm_head shares.
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "shared")


class BadBase(InvalidInput):
    code = "bad_base"


@dataclass(frozen=True)
class BaseFolder:
    shapes: Mapping[str, tuple[int, int]]  # layer -> (in, out)
    fingerprint: str


def read(folder: Path) -> BaseFolder:
    """Read a folder on this machine. Raises BadBase, which names what is missing."""
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not weights or not (folder / "config.json").is_file():
        raise BadBase(f"{folder} is not a base model here: it needs config.json and safetensors weights.")
    files = {str(path): LocalFile(path) for path in weights}
    return describe(str(folder), (folder / "config.json").read_bytes(), files)


def describe(
    where: str, config_file: bytes, weights: Mapping[str, RangedFile], pool: Executor | None = None
) -> BaseFolder:
    """Describe a base from the content of config.json and its weights by name, wherever they are. Raises BadBase."""
    config = _config(f"config.json of {where}", config_file)
    transposed = TRANSPOSED.get(config.get("model_type", ""), ())
    shapes = {}
    for path, file in weights.items():
        try:
            header = read_header(file)
        except FormatError as error:
            raise BadBase(f"{path} cannot be read: {error}") from error
        for name, tensor in header.tensors.items():
            layer, _, kind = name.rpartition(".")
            if kind == "weight" and len(tensor.shape) == 2:
                out, width = tensor.shape
                shapes[layer] = (out, width) if layer.endswith(transposed) else (width, out)
    embedding = next((shape for layer, shape in shapes.items() if layer.endswith(EMBEDDINGS)), None)
    # Tied embeddings are saved once; a config that does not speak of them means transformers' default, which is tied.
    if config.get("tie_word_embeddings", True) and embedding:
        shapes.setdefault("lm_head", embedding)
    return BaseFolder(shapes, fingerprint(weights.values(), pool))


def _config(name: str, content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as error:
        raise BadBase(f"{name} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise BadBase(f"{name} is not a JSON object.")
    return config
