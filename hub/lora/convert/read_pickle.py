"""Tensors from a pickle, without running any of its code."""

import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hub.formats.errors import printable
from hub.lora.core.errors import LoraError

# Exceptions that torch's restricted unpickler was seen to raise on damaged files.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


class UnreadablePickle(LoraError):
    """The file does not hold tensors alone: it is damaged, or it asks for code to be run, which was not done."""

    code = "unreadable_pickle"


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file that torch.save wrote. Raises UnreadablePickle.

    No code of the file is run: torch's restricted unpickler builds tensors and containers only.
    """
    state = _state_dict(_load(path))
    _check_tensors(state, path)
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


def _load(path: Path) -> Any:
    try:
        _refuse_compressed(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        fault = f"asks for {code[1]}, which is not a tensor" if code else "holds more than tensors"
        raise UnreadablePickle(
            f"{path.name} {fault}; nothing of it was run. Load it where you trust it and save the tensors alone."
        ) from error
    except _DAMAGED as error:
        raise UnreadablePickle(
            f"{path.name} cannot be read as a file that torch.save wrote; fetch it again where it came from."
        ) from error


def _refuse_compressed(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > 2 * path.stat().st_size:
        raise UnreadablePickle(f"{path.name} is packed, which torch.save never does; save its tensors again.")


def _state_dict(content: Any) -> Any:
    """The state dict inside the wrappers that the examples of loralib and Lightning save it in."""
    for wrapper in ("model_state_dict", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return content


def _check_tensors(state: Any, path: Path) -> None:
    if not isinstance(state, dict) or not state:
        raise UnreadablePickle(f"{path.name} holds no named tensors; save the state dict of the LoRA matrices.")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            raise UnreadablePickle(
                f"{path.name}: its entry {printable(str(name))} is not a plain tensor; save the state dict of the LoRA matrices alone."
            )
    if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > 4 * path.stat().st_size:
        raise UnreadablePickle(
            f"{path.name} claims to hold far more numbers than it has bytes; save its tensors again."
        )
