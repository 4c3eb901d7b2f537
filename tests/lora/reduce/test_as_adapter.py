"""hub.lora.reduce.as_adapter: stock PEFT gives the reduced base's logits on the untouched one."""

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from hub.lora.core.adapter import read, write
from hub.lora.core.bases import Base
from hub.lora.reduce.as_adapter import as_adapter, merged_into_base
from hub.lora.reduce.gains import Cut, edited, matrices
from hub.lora.reduce.rows import row_groups
from tests.lora.conftest import MakeAdapter

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CUTS = (
    Cut("model.layers.0.mlp.up_proj", 0.8, 1),
    Cut("model.layers.1.self_attn.q_proj", 0.3, 4),
    Cut("model.layers.1.mlp.down_proj", 0.05, 2),
    Cut("model.layers.0.mlp.gate_proj", 0.2, 4, "subspace"),
)


def test_stock_peft_makes_the_reduced_base_of_the_untouched_one(tiny_base: Base, tmp_path: Path) -> None:
    ids = torch.arange(40).view(2, 20) + 50
    with torch.inference_mode():
        with edited(matrices(tiny_base), CUTS):
            expected = tiny_base.model(ids).logits
        alone = tiny_base.model(ids).logits
    write(as_adapter(tiny_base, CUTS), tmp_path / "reduction", dtype=torch.float32)
    model = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), tmp_path / "reduction").eval()
    with torch.inference_mode():
        found = model(ids).logits
    largest = float(expected.abs().max())
    assert float((found - expected).abs().max()) < 1e-5 * largest
    assert float((found - alone).abs().max()) > 0.01 * largest, "the cuts change something"


def test_a_base_with_an_adapter_merged_is_handed_back_whole(
    tiny_base: Base, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    """Layers that were only cut, only adapted, and both."""
    module = read(make_adapter("under", targets=["q_proj", "v_proj"]))
    before = {name: tensor.clone() for name, tensor in tiny_base.model.state_dict().items()}
    ids = torch.arange(40).view(2, 20) + 50
    with torch.inference_mode(), merged_into_base(tiny_base, module), edited(matrices(tiny_base), CUTS):
        expected = tiny_base.model(ids).logits
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_base.model.state_dict().items())
    write(as_adapter(tiny_base, CUTS, module), tmp_path / "reduction", dtype=torch.float32)
    model = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), tmp_path / "reduction").eval()
    with torch.inference_mode():
        found = model(ids).logits
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_its_ranks_are_those_of_the_tails(tiny_base: Base) -> None:
    ranks = {path: pair.rank for path, pair in as_adapter(tiny_base, CUTS).pairs.items()}
    # 48 x 32 keeps 25 of 32; 4 blocks of 8 x 32 keep 2 of 8; 2 blocks of 16 x 48 keep the one that is the least.
    assert list(ranks.values())[:3] == [7, 4 * 6, 2 * 15]
    sizes = [len(rows) for rows in row_groups(matrices(tiny_base)[CUTS[3].path].weight, 4, "subspace")]
    assert list(ranks.values())[3] == sum(min(size, 32) - max(1, int(0.2 * min(size, 32))) for size in sizes)
