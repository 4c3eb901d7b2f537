"""What of the surroundings a result depends on."""

import platform
from importlib.metadata import version

LIBRARIES = ("torch", "transformers", "peft", "nevergrad", "numpy", "safetensors", "tokenizers")


def library_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
