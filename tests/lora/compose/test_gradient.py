"""hub.lora.compose.gradient: the gradient against finite differences, known optima, and what a search must not do to the base."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from hub.lora.compose.composition import Composition, NoFiniteLoss
from hub.lora.compose.forms import Mixture, mix
from hub.lora.compose.gradient import GradientSearch, compose_by_gradient, loss_and_gradient
from hub.lora.core import losses
from hub.lora.core.adapter import Adapter, Pair, applied, read
from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, OnProgress
from hub.lora.core.losses import encode_batches, mean_loss
from hub.vocabulary import Form
from tests.lora.conftest import MakeAdapter
from tests.tiny_models import likely_letters

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

FORMS: tuple[Form, ...] = ("sum", "product")


@pytest.fixture(scope="module")
def modules(make_adapter: MakeAdapter) -> list[Adapter]:
    return [read(make_adapter(f"twin{seed}", seed=seed)) for seed in (11, 12, 13)]


def taught(base: Base, teacher: Adapter, count: int = 8) -> list[Example]:
    prompts = [f"question {number}: what?" for number in range(count)]
    with applied(base.model, teacher):
        return [Example(prompt, likely_letters(base, prompt, 12)) for prompt in prompts]


def loss_of(base: Base, adapter: Adapter | None, examples: Sequence[Example]) -> float:
    with applied(base.model, adapter):
        return mean_loss(base, encode_batches(base, examples, "plain"))


def searched(
    base: Base,
    modules: Sequence[Adapter],
    examples: Sequence[Example],
    *,
    on_progress: OnProgress = lambda *_: None,
    **changes: Any,
) -> Composition:
    settings: dict[str, Any] = {"form": "sum", "template": "plain", "l1": 0.0}
    search = GradientSearch(**settings | changes)
    return compose_by_gradient(base, modules, examples, search, on_progress=on_progress)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("per_layer", [False, True])
def test_the_gradient_is_the_slope(
    tiny_base: Base, modules: list[Adapter], form: Form, per_layer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "BATCH_SIZE", 3)
    examples = taught(tiny_base, modules[0], count=5)
    batches = encode_batches(tiny_base, examples, "plain")
    mixture = Mixture(modules, form, tiny_base.device)
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(3, 2, generator=generator) if per_layer else torch.rand(3, generator=generator)
    loss, gradient = loss_and_gradient(tiny_base, mixture, batches, weights)
    assert loss == pytest.approx(loss_of(tiny_base, mix(tiny_base, modules, weights, form, "x"), examples), rel=1e-5)
    for index in range(weights.numel()):
        step = torch.zeros(weights.numel())
        step[index] = 2e-3
        up, down = (
            loss_of(tiny_base, mix(tiny_base, modules, weights + sign * step.view_as(weights), form, "x"), examples)
            for sign in (1, -1)
        )
        assert float(gradient.flatten()[index]) == pytest.approx((up - down) / 4e-3, rel=0.02, abs=2e-3)


def test_zero_is_stationary_for_the_product_and_not_for_the_sum(tiny_base: Base, modules: list[Adapter]) -> None:
    batches = encode_batches(tiny_base, taught(tiny_base, modules[0]), "plain")
    slopes = {
        form: loss_and_gradient(tiny_base, Mixture(modules, form, tiny_base.device), batches, torch.zeros(3))[1]
        for form in FORMS
    }
    assert not slopes["product"].any()
    assert slopes["sum"].abs().max() > 0.01


@pytest.mark.parametrize(("form", "known"), [("sum", [0.4, -0.7, 0.2]), ("product", [0.9, 0.6, 0.0])])
def test_it_finds_a_known_optimum(tiny_base: Base, modules: list[Adapter], form: Form, known: list[float]) -> None:
    teacher = mix(tiny_base, modules, known, form, "teacher")
    examples = taught(tiny_base, teacher)
    at_zero, at_known = loss_of(tiny_base, None, examples), loss_of(tiny_base, teacher, examples)
    assert at_zero > at_known + 1
    found = searched(tiny_base, modules, examples, form=form, budget=60)
    assert found.loss is not None
    assert found.loss < at_known + 0.1 * (at_zero - at_known)
    assert loss_of(tiny_base, found.adapter, examples) == pytest.approx(found.loss, rel=1e-4)
    assert found.loss == min(each.loss for each in found.trace if each.loss is not None)


def test_weights_by_layer_fit_what_weights_by_module_cannot(tiny_base: Base, modules: list[Adapter]) -> None:
    known = torch.tensor([[1.2, -0.8], [-0.6, 0.9], [0.0, 0.0]])
    teacher = mix(tiny_base, modules, known, "sum", "teacher")
    examples = taught(tiny_base, teacher)
    by_module = searched(tiny_base, modules, examples, budget=60)
    by_layer = searched(tiny_base, modules, examples, budget=60, per_layer=True)
    assert by_layer.loss is not None
    assert by_module.loss is not None
    assert by_layer.loss < by_module.loss - 0.1
    assert by_layer.by_layer is not None
    assert list(by_layer.by_layer["twin11"]) == ["model.layers.0", "model.layers.1"]
    for name, weight in by_layer.weights.items():
        assert weight == pytest.approx(sum(by_layer.by_layer[name].values()) / 2)
    assert loss_of(tiny_base, by_layer.adapter, examples) == pytest.approx(by_layer.loss, rel=1e-4)


def test_the_penalty_sets_useless_weights_to_exactly_zero(tiny_base: Base, modules: list[Adapter]) -> None:
    examples = taught(tiny_base, modules[0])
    found = searched(tiny_base, modules, examples, l1=30.0, budget=30)
    assert not any(found.weights.values()), "a penalty that no gain can outweigh"
    zero = [not any(each.weights) for each in found.trace]
    assert all(zero[zero.index(True) :]), "and zero is never left again"
    spared = searched(tiny_base, modules, examples, l1=0.05, budget=30)
    assert spared.objective == pytest.approx((spared.loss or 0) + 0.05 * sum(map(abs, spared.weights.values())) / 3)
    assert any(spared.weights.values())


def test_bounds_patience_and_time_hold(tiny_base: Base, modules: list[Adapter]) -> None:
    examples = taught(tiny_base, modules[0])
    bounded = searched(tiny_base, modules, examples, bound=0.2, budget=10, patience=None)
    assert len(bounded.trace) == 10
    assert max(abs(weight) for each in bounded.trace for weight in each.weights) == pytest.approx(0.2)
    stale = [each.objective or 0.0 for each in searched(tiny_base, modules, examples, budget=50, patience=1).trace]
    assert len(stale) < 50, "Adam overshoots sooner"
    assert stale == [*sorted(stale[:-1], reverse=True), stale[-1]]
    assert stale[-1] >= stale[-2], "one evaluation without a new best"
    assert len(searched(tiny_base, modules, examples, seconds=1e-9).trace) == 1


def test_cancelling_leaves_the_base_as_it_was(tiny_base: Base, modules: list[Adapter]) -> None:
    class Cancelled(Exception):
        pass

    def cancel(step: int, total: int, values: dict[str, float]) -> None:
        assert total == 10
        if step == 3:
            raise Cancelled

    before = {key: tensor.clone() for key, tensor in tiny_base.model.state_dict().items()}
    with pytest.raises(Cancelled):
        searched(tiny_base, modules, [Example("a", "b")], on_progress=cancel)
    assert all(torch.equal(tensor, before[key]) for key, tensor in tiny_base.model.state_dict().items())
    assert not any(layer._forward_hooks for layer in tiny_base.model.modules())
    assert not any(parameter.requires_grad for parameter in tiny_base.model.parameters())


def test_a_loss_that_is_not_finite_ends_at_the_best_point_before(tiny_base: Base, modules: list[Adapter]) -> None:
    pairs = {path: Pair(pair.a * 1e30, pair.b * 1e30, 1.0) for path, pair in modules[1].pairs.items()}
    with pytest.raises(NoFiniteLoss):
        searched(tiny_base, [Adapter("broken", {}, pairs)], [Example("a", "b")], form="product")
