"""hub.lora.compose.search against PEFT's exact merge, against the released LoraHub code, and on problems whose answer is known."""

import copy
import hashlib
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lorahub.algorithm import get_final_weights
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from hub.lora.compose.composition import Composition, NoFiniteLoss, compose_at_weights
from hub.lora.compose.forms import IncompatibleModules, Mixture, mix
from hub.lora.compose.population import mean_losses
from hub.lora.compose.search import OptimizerFailed, Search, UnknownOptimizer, compose
from hub.lora.core import losses
from hub.lora.core.adapter import Adapter, Pair, WrongBase, applied, read, write
from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, OnProgress
from hub.lora.core.losses import encode_batches, mean_loss
from hub.vocabulary import Form
from tests.lora.conftest import MakeAdapter
from tests.lora.runs import ignore_progress
from tests.tiny_models import likely_letters

# PEFT 0.21 asks a transformers 5.23 model for a property by its deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

FORMS: tuple[Form, ...] = ("sum", "product")
EXAMPLES = [Example(f"say {word}", word) for word in ("one", "two", "three", "four", "five")]


def deltas(adapter: Adapter) -> dict[str, Tensor]:
    return {path: pair.scaling * pair.b @ pair.a for path, pair in adapter.pairs.items()}


def assert_same_deltas(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for path, delta in expected.items():
        torch.testing.assert_close(ours[path], delta, rtol=1e-5, atol=1e-6, msg=partial("{0}: {1}".format, path))


@pytest.fixture(scope="module")
def folders(make_adapter: MakeAdapter) -> list[Path]:
    """Three modules of unequal rank, alpha, pattern and targets."""
    return [
        make_adapter("plain", seed=1, rank=4, alpha=8),
        make_adapter("narrow", seed=2, rank=2, alpha=6, targets=("q_proj", "down_proj")),
        make_adapter(
            "patterned",
            seed=3,
            rank=3,
            alpha=3,
            rank_pattern={"v_proj": 5},
            alpha_pattern={r"layers\.0\.self_attn\.[qv]_proj": 9},
        ),
    ]


@pytest.fixture(scope="module")
def twins(make_adapter: MakeAdapter) -> list[Adapter]:
    """Three modules alike in everything but their values, as the form 'product' and the released code need them."""
    return [read(make_adapter(f"twin{seed}", seed=seed)) for seed in (11, 12, 13)]


def test_sum_equals_pefts_exact_merge(tiny_base: Base, folders: list[Path]) -> None:
    weights = [0.7, -0.4, 1.3]
    model = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), folders[0], adapter_name="plain")
    for folder in folders[1:]:
        model.load_adapter(folder, adapter_name=folder.name)
    model.add_weighted_adapter([folder.name for folder in folders], weights, "merged", combination_type="cat")
    expected = {
        path.removeprefix("base_model.model."): layer.get_delta_weight("merged")
        for path, layer in model.named_modules()
        if hasattr(layer, "get_delta_weight") and "merged" in layer.lora_A
    }
    ours = mix(tiny_base, [read(folder) for folder in folders], weights, "sum", "merged")
    assert_same_deltas(deltas(ours), expected)


def test_sum_is_exact_with_rslora_and_missing_targets(
    tiny_base: Base, folders: list[Path], make_adapter: MakeAdapter
) -> None:
    # PEFT's own merge is sqrt(r) off here, because the result inherits use_rslora; the definition is the reference.
    stabilised = make_adapter("stabilised", seed=4, rank=4, alpha=2, targets=("up_proj", "q_proj"), use_rslora=True)
    modules = [read(stabilised), *(read(folder) for folder in folders)]
    weights = [1.1, 0.2, -0.9, 0.5]
    expected: dict[str, Tensor] = {}
    for module, weight in zip(modules, weights, strict=True):
        for path, delta in deltas(module).items():
            expected[path] = expected.get(path, torch.zeros_like(delta)) + weight * delta
    ours = mix(tiny_base, modules, weights, "sum", "merged")
    assert_same_deltas(deltas(ours), expected)
    for path, pair in ours.pairs.items():
        assert pair.rank == sum(module.pairs[path].rank for module in modules if path in module.pairs)
        assert pair.scaling == 1.0


def test_product_equals_the_released_code(tiny_base: Base, twins: list[Adapter], tmp_path: Path) -> None:
    weights = [0.6, -0.3, 1.2]
    cache = {}  # what the released code keeps of a module: PEFT's state dict, which is the file's content
    for module in twins:
        write(module, tmp_path / module.name, dtype=torch.float32)
        cache[module.name] = load_file(tmp_path / module.name / "adapter_model.safetensors")
    final = get_final_weights(weights, list(cache), cache)
    (scaling,) = {
        pair.scaling for module in twins for pair in module.pairs.values()
    }  # the released code knows only one
    expected = {
        path: scaling
        * final[f"base_model.model.{path}.lora_B.weight"]
        @ final[f"base_model.model.{path}.lora_A.weight"]
        for path in twins[0].pairs
    }
    ours = mix(tiny_base, twins, weights, "product", "product")
    assert_same_deltas(deltas(ours), expected)
    assert {pair.rank for pair in ours.pairs.values()} == {4}


def test_product_takes_missing_targets_as_zero_and_folds_unequal_scalings(
    tiny_base: Base, make_adapter: MakeAdapter
) -> None:
    one = read(make_adapter("one", seed=21, rank=3, alpha=9, targets=("q_proj", "v_proj")))
    other = read(make_adapter("other", seed=22, rank=3, alpha=1, targets=("q_proj", "o_proj"), use_rslora=True))
    ours = deltas(mix(tiny_base, [one, other], [0.5, -0.8], "product", "mixed"))
    q, v, o = (f"model.layers.1.self_attn.{name}_proj" for name in "qvo")
    a, b = one.pairs[q], other.pairs[q]
    assert a.scaling == 3.0
    assert b.scaling == pytest.approx(1 / math.sqrt(3))
    torch.testing.assert_close(ours[q], (0.5 * 3 * a.b - 0.8 * b.scaling * b.b) @ (0.5 * a.a - 0.8 * b.a))
    torch.testing.assert_close(ours[v], 0.25 * deltas(one)[v])
    torch.testing.assert_close(ours[o], 0.64 * deltas(other)[o])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("index", range(3))
def test_a_unit_vector_gives_that_module(tiny_base: Base, twins: list[Adapter], form: Form, index: int) -> None:
    unit = [float(position == index) for position in range(3)]
    ours = mix(tiny_base, twins, unit, form, "unit")
    assert_same_deltas(deltas(ours), deltas(twins[index]))
    assert {pair.rank for pair in ours.pairs.values()} == {4}, "adapters of weight zero must not cost rank"


@pytest.mark.parametrize("form", FORMS)
def test_all_weights_zero_is_the_base(tiny_base: Base, twins: list[Adapter], form: Form, tmp_path: Path) -> None:
    nothing = mix(tiny_base, twins, [0.0, 0.0, 0.0], form, "nothing")
    assert all(not delta.any() for delta in deltas(nothing).values())
    write(nothing, tmp_path, dtype=torch.float32)
    assert all(not delta.any() for delta in deltas(read(tmp_path)).values())


def test_a_written_mixture_is_what_peft_computes(tiny_base: Base, folders: list[Path], tmp_path: Path) -> None:
    ours = mix(tiny_base, [read(folder) for folder in folders], [0.9, 0.5, -0.6], "sum", "merged")
    write(ours, tmp_path, dtype=torch.float32)
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9]])
    stock = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), tmp_path).eval()
    with torch.no_grad(), applied(tiny_base.model, ours):
        torch.testing.assert_close(tiny_base.model(tokens).logits, stock(tokens).logits, rtol=1e-5, atol=1e-5)
    assert stock.peft_config["default"].base_model_name_or_path == tiny_base.id
    # q and v have more ranks than down_proj, which only one module adapts; every scaling is 1 all the same.
    assert {pair.scaling for pair in read(tmp_path).pairs.values()} == {1.0}


def test_target_modules_are_short_only_where_short_names_are_exact(tiny_base: Base, make_adapter: MakeAdapter) -> None:
    everywhere = read(make_adapter("everywhere", targets=("q_proj", "v_proj")))
    assert mix(tiny_base, [everywhere], [1.0], "sum", "x").config["target_modules"] == ["q_proj", "v_proj"]
    first = read(make_adapter("first", targets=("q_proj",), layers_to_transform=[0], layers_pattern="layers"))
    config = mix(tiny_base, [first], [1.0], "sum", "x").config
    assert config["target_modules"] == ["model.layers.0.self_attn.q_proj"]


def taught(base: Base, teacher: Adapter) -> list[Example]:
    """Prompts with what the teacher would answer, so that few mixtures explain the answers better than it does."""
    prompts = [f"question {number}: what?" for number in range(8)]
    with applied(base.model, teacher):
        return [Example(prompt, likely_letters(base, prompt, 12)) for prompt in prompts]


def loss_of(base: Base, adapter: Adapter | None, examples: Sequence[Example]) -> float:
    with applied(base.model, adapter):
        return mean_loss(base, encode_batches(base, examples, "plain"))


@pytest.mark.parametrize(("form", "known"), [("sum", [0.9, -0.7, 0.0]), ("product", [0.9, -0.6, 0.0])])
@pytest.mark.parametrize("optimizer", ["NGOpt", "CMA"])
@pytest.mark.filterwarnings("ignore:Could not import matplotlib:UserWarning")
def test_search_finds_a_known_optimum(
    tiny_base: Base, twins: list[Adapter], form: Form, known: list[float], optimizer: str
) -> None:
    teacher = mix(tiny_base, twins, known, form, "teacher")
    examples = taught(tiny_base, teacher)
    at_zero, at_known = loss_of(tiny_base, None, examples), loss_of(tiny_base, teacher, examples)
    assert at_zero > at_known + 1, "without distance between start and optimum the search shows nothing"
    found = compose(
        tiny_base,
        twins,
        examples,
        Search(form=form, template="plain", optimizer=optimizer, budget=120, l1=0.0),
        on_progress=ignore_progress,
    )
    assert found.loss is not None
    assert found.loss < at_known + 0.1 * (at_zero - at_known)
    assert loss_of(tiny_base, found.adapter, examples) == pytest.approx(found.loss, rel=1e-4)
    assert found.loss == min(evaluation.loss for evaluation in found.trace if evaluation.loss is not None)
    assert list(found.weights) == [module.name for module in twins]


def small(
    base: Base, modules: Sequence[Adapter], *, on_progress: OnProgress = ignore_progress, **changes: Any
) -> Composition:
    settings: dict[str, Any] = {"form": "sum", "template": "plain", "budget": 12}
    return compose(base, modules, EXAMPLES, Search(**settings | changes), on_progress=on_progress)


def digest(composition: Composition, folder: Path) -> str:
    write(composition.adapter, folder, dtype=torch.float32)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()


def test_the_same_seed_gives_the_same_bytes(tiny_base: Base, twins: list[Adapter], tmp_path: Path) -> None:
    runs = [small(tiny_base, twins, optimizer="OnePlusOne", seed=seed) for seed in (3, 3, 4)]
    same, again, other = (digest(run, tmp_path / str(index)) for index, run in enumerate(runs))
    assert same == again
    assert same != other


def test_objective_and_trace_are_what_they_say(tiny_base: Base, twins: list[Adapter]) -> None:
    heard: list[tuple[int, int, dict[str, float]]] = []
    found = small(tiny_base, twins, bound=0.75, l1=0.3, on_progress=lambda *event: heard.append(event))
    assert [evaluation.step for evaluation in found.trace] == list(range(1, 13))
    best = math.inf
    for evaluation, (step, total, values) in zip(found.trace, heard, strict=True):
        assert all(abs(weight) <= 0.75 for weight in evaluation.weights)
        loss = loss_of(tiny_base, mix(tiny_base, twins, evaluation.weights, "sum", "x"), EXAMPLES)
        assert evaluation.loss == pytest.approx(loss, rel=1e-4)
        assert evaluation.objective == pytest.approx(loss + 0.3 * sum(map(abs, evaluation.weights)) / 3, rel=1e-4)
        best = min(best, evaluation.objective or math.inf)
        assert evaluation.best == best
        assert (step, total) == (evaluation.step, 12)
        assert values == {"objective": evaluation.objective, "loss": evaluation.loss, "best": best}
    assert found.trace[0].weights == (0.0, 0.0, 0.0), "the released search starts from the base alone"
    assert found.objective == best
    assert found.settings["resolved_optimizer"] == "Cobyla"


def test_a_point_asked_for_again_is_not_computed_again(tiny_base: Base, twins: list[Adapter]) -> None:
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    handle = tiny_base.model.get_submodule("model.layers.0").register_forward_pre_hook(count)
    # One weight and a long budget: COBYLA converges, starts again, and comes back to the same points.
    found = small(tiny_base, twins[:1], optimizer="Cobyla", budget=80)
    handle.remove()
    distinct = {evaluation.weights for evaluation in found.trace}
    assert found.evaluations == passes == len(distinct) < 80
    assert sum(evaluation.cached for evaluation in found.trace) == 80 - passes


@pytest.mark.parametrize("form", FORMS)
def test_cancelling_leaves_the_base_as_it_was(tiny_base: Base, twins: list[Adapter], form: Form) -> None:
    class Cancelled(Exception):
        pass

    def cancel(step: int, total: int, values: dict[str, float]) -> None:
        if step == 4:
            raise Cancelled

    before = {key: tensor.clone() for key, tensor in tiny_base.model.state_dict().items()}
    with pytest.raises(Cancelled):
        small(tiny_base, twins, form=form, on_progress=cancel)
    assert all(torch.equal(tensor, before[key]) for key, tensor in tiny_base.model.state_dict().items())
    assert not any(layer._forward_hooks for layer in tiny_base.model.modules())


def scaled(module: Adapter, name: str, factor: float) -> Adapter:
    """Both halves times the factor, so a delta times its square."""
    pairs = {path: Pair(pair.a * factor, pair.b * factor, pair.scaling) for path, pair in module.pairs.items()}
    return Adapter(name, module.config, pairs)


def test_points_without_a_finite_loss_lose(tiny_base: Base, twins: list[Adapter]) -> None:
    # Finite at weight zero, where the search starts; every other weight overflows float32.
    found = small(tiny_base, [twins[0], scaled(twins[1], "overflowing", 1e30)])
    lost = [evaluation for evaluation in found.trace if evaluation.objective is None]
    assert lost
    assert all(evaluation.weights[1] != 0 for evaluation in lost)
    assert found.loss is not None
    assert math.isfinite(found.loss)
    assert found.weights["overflowing"] == 0


def test_no_finite_loss_at_all_is_an_error(tiny_base: Base, twins: list[Adapter]) -> None:
    with pytest.raises(NoFiniteLoss, match="12 combinations of 1 adapters"):
        small(tiny_base, [scaled(twins[0], "broken", math.nan)])


def test_unknown_optimisers_are_refused_with_their_neighbours(tiny_base: Base, twins: list[Adapter]) -> None:
    with pytest.raises(UnknownOptimizer, match=r"'Coblya'.*Cobyla"):
        small(tiny_base, twins, optimizer="Coblya")


def test_optimisers_that_cannot_run_here_are_named(tiny_base: Base, twins: list[Adapter]) -> None:
    with pytest.raises(OptimizerFailed, match=r"(?s)BOBYQA failed .*pybobyqa"):
        small(tiny_base, twins, optimizer="BOBYQA")


def test_modules_that_do_not_fit_together_are_refused(
    tiny_base: Base, twins: list[Adapter], folders: list[Path]
) -> None:
    plain, narrow = read(folders[0]), read(folders[1])
    with pytest.raises(IncompatibleModules, match="no adapter"):
        small(tiny_base, [])
    with pytest.raises(IncompatibleModules, match="twin11 is chosen twice"):
        small(tiny_base, [twins[0], twins[0]])
    with pytest.raises(IncompatibleModules, match=r"plain has rank 4 at .*q_proj and narrow has rank 2.*'sum'"):
        small(tiny_base, [plain, narrow], form="product")
    q = "model.layers.0.self_attn.q_proj"
    foreign = Adapter("foreign", {}, {q: Pair(torch.zeros(4, 64), torch.zeros(64, 4), 1.0)})
    with pytest.raises(WrongBase, match=r"foreign: its delta for .* is 64 x 64, the base's layer is 32 x 32"):
        small(tiny_base, [twins[0], foreign])
    with pytest.raises(IncompatibleModules, match=r"twin11 and foreign adapt .*q_proj in different shapes"):
        mix(tiny_base, [twins[0], foreign], [1.0, 1.0], "sum", "x")


def test_examples_beyond_one_batch_count_by_token(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [Example("a", "b" * length) for length in (1, 30, 2, 17, 5)]
    whole = loss_of(tiny_base, None, examples)
    monkeypatch.setattr(losses, "BATCH_SIZE", 2)
    assert loss_of(tiny_base, None, examples) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_population_in_one_pass_has_the_losses_of_its_members(
    tiny_base: Base, twins: list[Adapter], form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [[0.5, -0.3, 0.2], [0.0, 0.0, 0.0], [-1.1, 0.4, 0.9], [0.0, 1.0, 0.0]]
    monkeypatch.setattr(losses, "BATCH_SIZE", 3)
    batches = encode_batches(tiny_base, EXAMPLES, "plain")
    found = mean_losses(tiny_base, Mixture(twins, form, tiny_base.device), points, batches)
    alone = [loss_of(tiny_base, mix(tiny_base, twins, point, form, "one"), EXAMPLES) for point in points]
    assert found == pytest.approx(alone, rel=1e-5)
    assert max(alone) - min(alone) > 0.1
    assert not any(layer._forward_hooks for layer in tiny_base.model.modules())


@pytest.mark.filterwarnings("ignore:Could not import matplotlib:UserWarning")
def test_populations_are_asked_for_where_the_optimiser_can(tiny_base: Base, twins: list[Adapter]) -> None:
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    handle = tiny_base.model.get_submodule("model.layers.0").register_forward_pre_hook(count)
    found = small(tiny_base, twins, optimizer="CMA", population=5)
    handle.remove()
    assert (passes, found.evaluations) == (3, 12), "12 evaluations in populations of 5, 5 and 2"
    assert [evaluation.step for evaluation in found.trace] == list(range(1, 13))
    with pytest.raises(OptimizerFailed, match="Cobyla"):
        small(tiny_base, twins, optimizer="Cobyla", population=2)


def test_a_search_ends_early_without_a_new_best_or_time(tiny_base: Base, twins: list[Adapter]) -> None:
    stale = small(tiny_base, twins, optimizer="OnePlusOne", budget=200, l1=100.0, patience=7)
    assert len(stale.trace) == 8, "zero is the best by far, so seven more points bring nothing"
    assert not any(stale.weights.values())
    assert len(small(tiny_base, twins, budget=200, seconds=1e-9).trace) == 1


def test_given_weights_need_no_examples(tiny_base: Base, folders: list[Path]) -> None:
    modules = [read(folder) for folder in folders]
    found = compose_at_weights(tiny_base, modules, [0.5, 0.0, -1.0], form="sum")
    assert_same_deltas(deltas(found.adapter), deltas(mix(tiny_base, modules, [0.5, 0.0, -1.0], "sum", "x")))
    assert found.weights == {"plain": 0.5, "narrow": 0.0, "patterned": -1.0}
    assert (found.trace, found.evaluations, found.loss, found.objective) == ([], 0, None, None)
    with pytest.raises(IncompatibleModules, match="3 adapters and 2 weights"):
        compose_at_weights(tiny_base, modules, [0.5, 1.0], form="sum")
