"""Trees of files for tests of inspection: made by hand, or by PEFT on a tiny Llama, and changed to have one defect."""

import json
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model
from torch import nn

from hub.formats.adapter_config import CONFIG, WEIGHTS
from hub.registry.inspection.checks import KnownBase
from hub.registry.inspection.facts import InspectedAdapter
from hub.registry.inspection.inspect import Inspection, inspect
from tests.support.files import LAYERS, TINY, peft_folder, safetensors
from tests.tiny_models import llama

BASE = KnownBase(TINY, ("team/alias",), {**dict.fromkeys(LAYERS, (8, 8)), "lm_head": (8, 40)})
A0, B0 = f"base_model.model.{LAYERS[0]}.lora_A.weight", f"base_model.model.{LAYERS[0]}.lora_B.weight"

Files = dict[str, bytes]


@dataclass
class Bytes:
    data: bytes
    reads: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append(length)
        return self.data[offset : offset + length]


def look(files: Files, *bases: KnownBase) -> Inspection:
    return inspect({path: Bytes(data) for path, data in files.items()}, bases or (BASE,))


def codes(files: Files, *bases: KnownBase) -> list[str]:
    return [item.code for item in look(files, *bases).findings]


def only(inspection: Inspection) -> InspectedAdapter:
    (facts,) = inspection.adapters
    return facts


def config(files: Files, **changes: Any) -> Files:
    return {**files, CONFIG: json.dumps({**json.loads(files[CONFIG]), **changes}).encode()}


Tensors = dict[str, tuple[tuple[int, ...], bytes]]


def tensors_of(data: bytes) -> Tensors:
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    return {name: (tuple(info["shape"]), body[slice(*info["data_offsets"])]) for name, info in header.items()}


def weights(files: Files, change: Callable[[Tensors], Tensors]) -> Files:
    return {**files, WEIGHTS: safetensors(change(tensors_of(files[WEIGHTS])))}


def renamed(files: Files, old: str, new: str) -> Files:
    return weights(files, lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()})


def without(files: Files, *names: str) -> Files:
    return {path: data for path, data in files.items() if path not in names}


def plus(files: Files, **tensors: tuple[tuple[int, ...], bytes]) -> Files:
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    return weights(files, lambda found: {**found, **named})


SOUND = peft_folder()
ZERO = weights(
    SOUND,
    lambda t: {k: (shape, b"\0\0\0\x80" * (len(raw) // 4) if "lora_B" in k else raw) for k, (shape, raw) in t.items()},
)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    layers = model.named_modules()
    return {name: (m.in_features, m.out_features) for name, m in layers if isinstance(m, nn.Linear)}


LLAMA = KnownBase("tiny/llama", (), shapes_of(llama()))


def saved(folder: Path, **lora: Any) -> Files:
    """What PEFT writes for an adapter of the tiny Llama, with B drawn at random."""
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": LLAMA.id, **lora}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about embeddings that are saved and biases that cannot be merged, as we want
        model = get_peft_model(llama(), LoraConfig(**settings))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter)
        model.save_pretrained(folder)
    config_ = json.loads((folder / CONFIG).read_bytes())
    (folder / CONFIG).write_text(json.dumps({**config_, "base_model_name_or_path": LLAMA.id}))
    return {CONFIG: (folder / CONFIG).read_bytes(), WEIGHTS: (folder / WEIGHTS).read_bytes()}
