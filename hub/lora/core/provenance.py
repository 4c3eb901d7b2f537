"""The environment that a result's bytes depend on besides its inputs."""

import platform
from dataclasses import dataclass
from importlib.metadata import version

import torch

from hub.lora.core.bases import Base
from hub.version import VERSION

LIBRARIES = ("torch", "transformers", "peft", "nevergrad", "numpy", "safetensors", "tokenizers")


@dataclass(frozen=True)
class BaseIdentity:
    id: str
    fingerprint: str
    task_type: str


@dataclass(frozen=True)
class Surroundings:
    base: BaseIdentity
    device: str
    versions: dict[str, str]  # by library


def surroundings(base: Base) -> Surroundings:
    """The base, the device and the libraries that a computation used, for a result's manifest."""
    versions = {"loraloom": VERSION, "python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    device = f"{base.device.type}, {base.dtype}, {torch.get_num_threads()} threads"
    return Surroundings(BaseIdentity(base.id, base.fingerprint, base.task_type), device, versions)
