"""The environment that a result's bytes depend on besides its inputs."""

import platform
from importlib.metadata import version

import torch

from hub.lora.core.bases import Base
from hub.version import VERSION

LIBRARIES = ("torch", "transformers", "peft", "nevergrad", "numpy", "safetensors", "tokenizers")


def surroundings(base: Base) -> dict[str, object]:
    """The base, the device and the versions of libraries that a computation used, for a manifest."""
    versions = {"loraloom": VERSION, "python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    return {
        "base": {"id": base.id, "fingerprint": base.fingerprint, "task_type": base.task_type},
        "device": f"{base.device.type}, {base.dtype}, {torch.get_num_threads()} threads",
        "versions": versions,
    }
