"""A base's folder, read by its headers, says what PyTorch says of the loaded model; and what is missing is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hub.registry.bases import base_folder
from hub.registry.bases.base_folder import BadBase
from tests.support.files import safetensors
from tests.tiny_models import gpt2, llama


def linear_layers(model: nn.Module) -> dict[str, tuple[int, int]]:
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            found[name] = (layer.in_features, layer.out_features)
        elif isinstance(layer, Conv1D):
            found[name] = (layer.weight.shape[0], layer.weight.shape[1])
    return found


@pytest.mark.parametrize("model", [llama(), llama(tie_word_embeddings=True), gpt2()], ids=["untied", "tied", "gpt2"])
def test_every_linear_layer_has_the_shape_that_pytorch_gives_it(tmp_path: Path, model: PreTrainedModel) -> None:
    model.save_pretrained(tmp_path)
    shapes = base_folder.read(tmp_path).shapes
    expected = linear_layers(model)
    assert len(expected) >= 9
    assert {name: shapes.get(name) for name in expected} == expected


def test_a_model_in_several_files_is_read_whole(tmp_path: Path) -> None:
    model = llama()
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="10KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert base_folder.read(tmp_path / "many").shapes == base_folder.read(tmp_path / "one").shapes


def test_the_fingerprint_follows_the_weights_and_not_the_place(tmp_path: Path) -> None:
    model = llama()
    for place in ("here", "there"):
        model.save_pretrained(tmp_path / place)
    before = base_folder.read(tmp_path / "here").fingerprint
    assert before == base_folder.read(tmp_path / "there").fingerprint
    weights = tmp_path / "there" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert base_folder.read(tmp_path / "there").fingerprint != before


WEIGHTS = safetensors({"layer.weight": ((2, 2), bytes(16))})


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "needs config.json and safetensors"),
        ({"config.json": b"{}"}, "needs config.json and safetensors"),
        ({"model.safetensors": WEIGHTS}, "needs config.json and safetensors"),
        ({"config.json": b"{}", "pytorch_model.bin": b"\x80\x04."}, "needs config.json and safetensors"),
        ({"config.json": b"{", "model.safetensors": WEIGHTS}, "is not JSON"),
        ({"config.json": b"\xff\xfe", "model.safetensors": WEIGHTS}, "is not JSON"),
        ({"config.json": b"[]", "model.safetensors": WEIGHTS}, "is not a JSON object"),
        ({"config.json": b"{}", "model.safetensors": WEIGHTS[:-1]}, "cannot be read"),
        ({"config.json": b"{}", "model.safetensors": b"version https://git-lfs"}, "cannot be read"),
    ],
)
def test_what_is_no_base_is_refused_with_the_reason(tmp_path: Path, files: dict[str, bytes], reason: str) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BadBase, match=reason) as refused:
        base_folder.read(tmp_path)
    assert str(tmp_path) in refused.value.message


def test_a_folder_that_is_not_there_is_no_base(tmp_path: Path) -> None:
    with pytest.raises(BadBase, match="absent"):
        base_folder.read(tmp_path / "absent")


def config_of(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in {**config, **changes}.items() if v is not None}))


def test_embeddings_are_tied_unless_a_head_was_saved_or_the_config_says_no(tmp_path: Path) -> None:
    llama(tie_word_embeddings=True).save_pretrained(tmp_path)
    config_of(tmp_path, tie_word_embeddings=None)
    assert base_folder.read(tmp_path).shapes["lm_head"] == (16, 40)
    config_of(tmp_path, tie_word_embeddings=False)
    assert "lm_head" not in base_folder.read(tmp_path).shapes
