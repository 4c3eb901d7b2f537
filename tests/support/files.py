"""Small real files for tests: PEFT folders and data sets, written by hand without torch."""

import json
import random
import struct
from collections.abc import Mapping
from typing import Any

TINY = "tests/tiny-base"
LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj")
WIDTH = 8


def safetensors(tensors: Mapping[str, tuple[tuple[int, ...], bytes]], dtype: str = "F32") -> bytes:
    """The bytes of a safetensors file: name -> (shape, raw values)."""
    header: dict[str, Any] = {}
    body = b""
    for name, (shape, raw) in sorted(tensors.items()):
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def floats(count: int, seed: int) -> bytes:
    source = random.Random(seed)
    return struct.pack(f"<{count}f", *(source.uniform(-1, 1) for _ in range(count)))


def peft_folder(
    *, rank: int = 2, seed: int = 0, base: str | None = TINY, width: int = WIDTH, **config: Any
) -> dict[str, bytes]:
    """The files of a sound LoRA adapter of a tiny base."""
    tensors = {}
    for index, layer in enumerate(LAYERS):
        name = f"base_model.model.{layer}"
        tensors[f"{name}.lora_A.weight"] = ((rank, width), floats(rank * width, seed * 100 + index))
        tensors[f"{name}.lora_B.weight"] = ((width, rank), floats(rank * width, seed * 100 + index + 50))
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
        **config,
    }
    card = "---\nlicense: apache-2.0\nlibrary_name: peft\ntags: [tiny, test]\n---\n# A tiny adapter\n"
    return {
        "adapter_model.safetensors": safetensors(tensors),
        "adapter_config.json": json.dumps(settings).encode(),
        "README.md": card.encode(),
    }


def examples_file(count: int = 3) -> bytes:
    return "".join(json.dumps({"input": f"in {i}", "target": f"out {i}"}) + "\n" for i in range(count)).encode()
