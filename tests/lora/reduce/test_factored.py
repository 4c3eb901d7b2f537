"""hub.lora.reduce.factored: the small form computes what the reduced base computes, at the size that it says."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hub.lora.core.bases import Base
from hub.lora.reduce.factored import FILE, FactorsUnfit, load, write
from hub.lora.reduce.gains import Cut, edited, matrices

CUTS = (
    Cut("model.layers.0.mlp.up_proj", 0.2, 1),
    Cut("model.layers.1.self_attn.q_proj", 0.3, 4),
    Cut("model.layers.1.mlp.down_proj", 0.9, 2),  # factors would be larger than the matrix
)
BY_SUBSPACE = tuple(replace(cut, grouping="subspace") for cut in CUTS)


@pytest.mark.parametrize("cuts", [CUTS, BY_SUBSPACE])
def test_the_untouched_base_with_the_factors_is_the_reduced_base(
    tiny_base: Base, tmp_path: Path, cuts: tuple[Cut, ...]
) -> None:
    ids = torch.arange(40).view(2, 20) + 50
    with torch.inference_mode(), edited(matrices(tiny_base), cuts):
        expected = tiny_base.model(ids).logits
    size = write(tiny_base, cuts, tmp_path)
    model = copy.deepcopy(tiny_base.model)
    load(model, tmp_path)
    with torch.inference_mode():
        found = model(ids).logits
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    stored = load_file(tmp_path / FILE)
    assert (
        sum(tensor.numel() for name, tensor in stored.items() if not name.endswith("order")) == size.after < size.before
    )
    assert size.before == 48 * 32 + 32 * 32 + 32 * 48
    if cuts == BY_SUBSPACE:
        return
    # 48 x 32 at 6 values, four blocks of 8 x 32 at 2 values, 32 x 48 whole.
    assert size.after == 6 * (48 + 32) + 4 * 2 * (8 + 32) + 32 * 48


@pytest.mark.parametrize(
    "other", [lambda model: setattr(model.model.layers[0].mlp, "up_proj", nn.Linear(32, 40)), None]
)
def test_factors_of_another_base_are_refused_and_change_nothing(tiny_base: Base, tmp_path: Path, other: object) -> None:
    write(tiny_base, CUTS, tmp_path)
    model = copy.deepcopy(tiny_base.model)
    if callable(other):
        other(model)
    else:
        del model.model.layers[1]
    before = [name for name, _ in model.named_modules()]
    with pytest.raises(FactorsUnfit, match="load the base that was reduced"):
        load(model, tmp_path)
    assert [name for name, _ in model.named_modules()] == before
