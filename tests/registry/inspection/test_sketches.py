"""Sketches of real files: what torch reads is what is measured, in every dtype; what cannot be read is left out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from hub.formats.adapter_config import CONFIG, WEIGHTS
from hub.formats.ranged_file import LocalFile
from hub.registry.inspection import sketches
from hub.registry.inspection.parsed_adapter import parse_folder
from hub.similarity import Factors, sketch
from tests.support.files import LAYERS, peft_folder


def sketch_files(tmp_path: Path, files: dict[str, bytes], folder: str = "") -> bytes:
    found = {}
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
        found[path] = LocalFile(tmp_path / path)
    adapter = parse_folder(found, folder)
    assert adapter is not None
    return sketches.sketch_of(adapter)


def direct(files: dict[str, bytes], scaling: float) -> np.ndarray:
    """The same from the tensors that torch reads."""
    tensors = {name: tensor.float().numpy() for name, tensor in load(files[WEIGHTS]).items()}
    return sketch(
        (
            layer,
            Factors(
                tensors[f"base_model.model.{layer}.lora_A.weight"],
                tensors[f"base_model.model.{layer}.lora_B.weight"],
                scaling,
            ),
        )
        for layer in LAYERS
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_file_is_read_as_torch_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    files = peft_folder(rank=4, lora_alpha=10)
    files[WEIGHTS] = save({name: tensor.to(dtype) for name, tensor in load(files[WEIGHTS]).items()})
    expected = direct(files, 2.5)
    found = np.frombuffer(sketch_files(tmp_path, files), "<f4")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert np.linalg.norm(found) > 1


def test_a_folder_of_its_own_and_small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches, "BLOCK", 100)
    files = {f"deep/er/{path}": data for path, data in peft_folder(rank=4).items()}
    found = np.frombuffer(sketch_files(tmp_path, files, "deep/er"), "<f4")
    np.testing.assert_allclose(found, direct(peft_folder(rank=4), 1.0), rtol=1e-5, atol=1e-4)


def test_what_is_no_update_of_the_base_has_no_sketch(tmp_path: Path) -> None:
    assert sketch_files(tmp_path, peft_folder(init_lora_weights="pissa")) == sketches.NONE
    files = peft_folder()
    for change in (torch.zeros_like, lambda tensor: tensor * float("inf"), lambda tensor: tensor.to(torch.int8)):
        changed = {name: change(tensor) for name, tensor in load(files[WEIGHTS]).items()}
        assert sketch_files(tmp_path, {**files, WEIGHTS: save(changed)}) == sketches.NONE


def test_what_would_take_too_long_has_no_sketch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = peft_folder()
    assert CONFIG in files
    monkeypatch.setattr(sketches, "MAX_LINES", 31)  # two layers of 8 rows and 8 columns have 32
    assert sketch_files(tmp_path, files) == sketches.NONE
    monkeypatch.setattr(sketches, "MAX_LINES", 32)
    assert sketch_files(tmp_path, files) != sketches.NONE
