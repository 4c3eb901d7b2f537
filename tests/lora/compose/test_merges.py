"""hub.lora.compose.merges against PEFT's add_weighted_adapter, and what it refuses."""

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from hub.lora.compose.forms import IncompatibleModules
from hub.lora.compose.merges import UnusableDensity, merge_modules
from hub.lora.core.adapter import Adapter, Pair, UnsupportedAdapter, read
from hub.lora.core.bases import Base
from hub.vocabulary import MERGES, Merge
from tests.lora.conftest import MakeAdapter

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

WEIGHTS = [0.7, -0.4, 1.3]


def delta(pair: Pair) -> Tensor:
    return pair.scaling * pair.b @ pair.a


@pytest.fixture(scope="module")
def folders(make_adapter: MakeAdapter) -> list[Path]:
    return [make_adapter(f"module{seed}", seed=seed, rank=4, alpha=2 * seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def modules(folders: list[Path]) -> list[Adapter]:
    return [read(folder) for folder in folders]


def in_peft(base: Base, folders: list[Path]) -> PeftModel:
    model = PeftModel.from_pretrained(copy.deepcopy(base.model), folders[0], adapter_name=folders[0].name)
    for folder in folders[1:]:
        model.load_adapter(folder, adapter_name=folder.name)
    return model


@pytest.mark.parametrize("merge", [merge for merge in MERGES if "dare" not in merge])
def test_a_merge_is_pefts(tiny_base: Base, folders: list[Path], modules: list[Adapter], merge: Merge) -> None:
    model = in_peft(tiny_base, folders)
    model.add_weighted_adapter(
        [each.name for each in folders], WEIGHTS, "merged", combination_type=merge, density=0.6, svd_rank=3
    )
    found = merge_modules(tiny_base, modules, WEIGHTS, merge, density=0.6, rank=3)
    for path, pair in found.adapter.pairs.items():
        expected = model.get_submodule(f"base_model.model.{path}").get_delta_weight("merged")
        torch.testing.assert_close(delta(pair), expected, rtol=1e-3, atol=1e-4)
    assert found.weights == {module.name: weight for module, weight in zip(modules, WEIGHTS, strict=True)}
    if merge.endswith("_svd"):
        assert found.truncation_error is not None
        assert found.truncation_error > 0.05
    else:
        assert found.truncation_error is None


@pytest.mark.parametrize("merge", ["dare_linear", "dare_ties"])
def test_dare_draws_what_peft_draws(tiny_base: Base, folders: list[Path], modules: list[Adapter], merge: Merge) -> None:
    # PEFT draws for the new adapter's initial values as well, so its inner function is called at the same random state.
    path = "model.layers.0.self_attn.q_proj"
    tuner = in_peft(tiny_base, folders).base_model
    layer = tuner.model.get_submodule(path)
    first = [Adapter(module.name, module.config, {path: module.pairs[path]}) for module in modules]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        a, b = tuner._generalized_task_arithmetic_weighted_adapter(
            merge, [folder.name for folder in folders], WEIGHTS, layer, 0.6, "total"
        )
    found = merge_modules(tiny_base, first, WEIGHTS, merge, density=0.6, seed=7).adapter.pairs[path]
    torch.testing.assert_close((found.a, found.b), (a, b))
    other = merge_modules(tiny_base, first, WEIGHTS, merge, density=0.6, seed=8).adapter.pairs[path]
    assert not torch.equal(found.a, other.a)


def test_a_draw_leaves_the_random_state_alone(tiny_base: Base, modules: list[Adapter]) -> None:
    before = torch.get_rng_state()
    merge_modules(tiny_base, modules, WEIGHTS, "dare_ties_svd")
    assert torch.equal(before, torch.get_rng_state())


def test_what_has_no_meaning_is_refused(tiny_base: Base, modules: list[Adapter], make_adapter: MakeAdapter) -> None:
    wide = read(make_adapter("wide", seed=4, rank=6))
    with pytest.raises(IncompatibleModules, match="needs equal ranks"):
        merge_modules(tiny_base, [modules[0], wide], [1.0, 1.0], "ties")
    cut = merge_modules(tiny_base, [modules[0], wide], [1.0, 1.0], "ties_svd").adapter
    assert {pair.rank for pair in cut.pairs.values()} == {6}
    with pytest.raises(IncompatibleModules, match="3 adapters and 1 weights"):
        merge_modules(tiny_base, modules, [1.0], "ties")
    with pytest.raises(UnsupportedAdapter, match="DoRA"):
        merge_modules(tiny_base, [read(make_adapter("strong", use_dora=True))], [1.0], "linear")
    for density in (0.0, 1.0):
        with pytest.raises(UnusableDensity, match=f"density {density}"):
            merge_modules(tiny_base, modules, WEIGHTS, "ties", density=density)
