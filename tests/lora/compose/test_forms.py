"""hub.lora.compose.forms: truncation against a dense SVD and PEFT's, weights by layer against the definition."""

import copy
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from hub.lora.compose.composition import compose_at_weights
from hub.lora.compose.forms import Mixture, mix, truncate
from hub.lora.core.adapter import Adapter, Pair, UnsupportedAdapter, applied, read, write
from hub.lora.core.bases import Base
from tests.lora.conftest import MakeAdapter

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def delta(pair: Pair) -> Tensor:
    return pair.scaling * pair.b @ pair.a


@pytest.fixture(scope="module")
def folders(make_adapter: MakeAdapter) -> list[Path]:
    return [make_adapter(f"module{seed}", seed=seed, rank=4, alpha=6) for seed in (1, 2, 3)]


# Ranks of 12 together are below every layer's 16 and 32 rows; those of 18 are not below the 16 rows of v_proj.
@pytest.mark.parametrize("ranks", [(4, 4, 4), (7, 6, 5)])
@pytest.mark.parametrize("rank", [1, 5, 100])
def test_a_truncation_is_the_nearest_of_its_rank(
    tiny_base: Base, make_adapter: MakeAdapter, ranks: tuple[int, ...], rank: int
) -> None:
    modules = [read(make_adapter(f"module{seed}", seed=seed, rank=each)) for seed, each in enumerate(ranks)]
    whole = mix(tiny_base, modules, [0.7, -1.1, 0.4], "sum", "whole")
    cut = truncate(whole, rank)
    lost, total, errors = 0.0, 0.0, []
    for path, pair in whole.pairs.items():
        dense = delta(pair)
        u, values, v = torch.linalg.svd(dense, full_matrices=False)
        nearest = (u * values)[:, :rank] @ v[:rank]
        torch.testing.assert_close(delta(cut.adapter.pairs[path]), nearest, rtol=1e-4, atol=2e-4)
        assert cut.adapter.pairs[path].rank == min(rank, pair.rank, *dense.shape)
        missing = float((dense - nearest).square().sum())
        errors.append(math.sqrt(missing / float(dense.square().sum())))
        lost, total = lost + missing, total + float(dense.square().sum())
    assert cut.error == pytest.approx(math.sqrt(lost / total), abs=1e-5)
    assert cut.worst == pytest.approx(max(errors), abs=1e-5)
    assert (cut.error < 1e-5) == (rank == 100), "a cut below the rank loses something, and one above it nothing"


def test_a_truncation_is_pefts(tiny_base: Base, folders: list[Path]) -> None:
    weights = [0.7, -0.4, 1.3]
    model = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), folders[0], adapter_name=folders[0].name)
    for folder in folders[1:]:
        model.load_adapter(folder, adapter_name=folder.name)
    model.add_weighted_adapter([each.name for each in folders], weights, "merged", combination_type="svd", svd_rank=3)
    found = compose_at_weights(tiny_base, [read(folder) for folder in folders], weights, form="svd", rank=3)
    assert found.truncation_error is not None
    assert 0.1 < found.truncation_error < 1
    assert found.settings == {"search": "none", "form": "svd", "rank": 3}
    for path, pair in found.adapter.pairs.items():
        layer = model.get_submodule(f"base_model.model.{path}")
        torch.testing.assert_close(delta(pair), layer.get_delta_weight("merged"), rtol=1e-4, atol=1e-5)


def test_the_rank_of_a_cut_is_the_largest_of_the_modules(tiny_base: Base, make_adapter: MakeAdapter) -> None:
    modules = [read(make_adapter("small", seed=1, rank=2)), read(make_adapter("large", seed=2, rank=5))]
    found = compose_at_weights(tiny_base, modules, [1.0, 1.0], form="svd")
    assert {pair.rank for pair in found.adapter.pairs.values()} == {5}
    assert found.settings["rank"] == 5


def test_nothing_can_be_cut_and_written(tiny_base: Base, folders: list[Path], tmp_path: Path) -> None:
    found = compose_at_weights(tiny_base, [read(folder) for folder in folders], [0.0, 0.0, 0.0], form="svd")
    assert found.truncation_error == 0
    write(found.adapter, tmp_path, dtype=torch.float32)
    assert all(not delta(pair).any() for pair in read(tmp_path).pairs.values())


def test_what_is_no_plain_pair_cannot_be_cut(tiny_base: Base, make_adapter: MakeAdapter) -> None:
    with pytest.raises(UnsupportedAdapter, match=r"strong: it uses DoRA"):
        truncate(read(make_adapter("strong", use_dora=True)), 2)


def test_weights_by_layer_weigh_each_layer_alone(
    tiny_base: Base, folders: list[Path], make_adapter: MakeAdapter
) -> None:
    modules = [read(folder) for folder in folders[:2]]
    modules.append(read(make_adapter("first", seed=9, layers_to_transform=[0], layers_pattern="layers")))
    weights = torch.tensor([[0.5, 0.0], [-1.0, 0.3], [2.0, 7.0]])
    found = mix(tiny_base, modules, weights, "sum", "mixed")
    assert Mixture(modules, "sum", tiny_base.device).layers == ["model.layers.0", "model.layers.1"]
    for layer, column in (("model.layers.0", 0), ("model.layers.1", 1)):
        for name in ("q_proj", "v_proj"):
            path = f"{layer}.self_attn.{name}"
            members = [
                (module, row[column]) for module, row in zip(modules, weights, strict=True) if path in module.pairs
            ]
            expected = sum(float(weight) * delta(module.pairs[path]) for module, weight in members)
            torch.testing.assert_close(delta(found.pairs[path]), expected)
            assert found.pairs[path].rank == 4 * sum(bool(weight) for _, weight in members)


def test_layers_are_in_the_order_of_their_numbers(tiny_base: Base) -> None:
    paths = [
        "model.layers.10.mlp",
        "model.layers.2.mlp",
        "decoder.block.0.layer.1.q",
        "encoder.block.0.layer.1.q",
        "head",
    ]
    pairs = {path: Pair(torch.ones(1, 2), torch.ones(2, 1), 1.0) for path in paths}
    layers = Mixture([Adapter("any", {}, pairs)], "sum", tiny_base.device).layers
    assert layers == ["decoder.block.0", "encoder.block.0", "head", "model.layers.2", "model.layers.10"]


def test_a_cut_adapter_computes_what_it_says(tiny_base: Base, folders: list[Path], tmp_path: Path) -> None:
    found = compose_at_weights(tiny_base, [read(folder) for folder in folders], [0.9, 0.5, -0.6], form="svd", rank=6)
    write(found.adapter, tmp_path, dtype=torch.float32)
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9]])
    stock = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), tmp_path).eval()
    with torch.no_grad(), applied(tiny_base.model, found.adapter):
        torch.testing.assert_close(tiny_base.model(tokens).logits, stock(tokens).logits, rtol=1e-5, atol=1e-4)
