"""Importances against their definition, example by example and element by element."""

import pytest
import torch

from hub.lora.core.bases import Base
from hub.lora.core.batches import fitting
from hub.lora.core.examples import Example, Tokens, pad, target_loss
from hub.lora.par.importance import PROBE, layout, moments, passes, score
from hub.lora.par.partition import NothingToPartition
from hub.lora.train.trainable_layers import Shape, TrainableLayers, trainable_layers
from hub.vocabulary import Init, PartitionStart

EXAMPLES = [Example(f"say {number}", f"it is {number}" * (1 + number % 3)) for number in range(5)]


def shape(init: Init = "default") -> Shape:
    return Shape(2, 4.0, ("q_proj", "down_proj"), 0.0, init, False, False)


def rows(base: Base) -> list[Tokens]:
    return fitting(base, EXAMPLES, "plain", 1024).rows


def gradients(layers: TrainableLayers, row: Tokens) -> dict[str, torch.Tensor]:
    layers.base.model.zero_grad()
    torch.autograd.backward(target_loss(layers.base.model, pad(layers.base.tokenizer, [row])))
    return {name: each.grad.clone() for name, each in layers.parameters().items() if each.grad is not None}


def test_at_pissas_start_it_is_the_papers_formula_element_by_element(tiny_base: Base) -> None:
    with trainable_layers(tiny_base, shape("pissa"), None, 0) as layers:
        each = [gradients(layers, row) for row in rows(tiny_base)]
        found = score(layers, rows(tiny_base), "pissa", lambda: None)
        assert found.keys() == layers.parameters().keys()
        for name, phi in layers.parameters().items():
            values = phi.detach().flatten().tolist()
            per_example = [gradient[name].flatten().tolist() for gradient in each]
            for index, value in enumerate(values):
                mean = sum(gradient[index] for gradient in per_example) / len(each)
                square = sum(gradient[index] ** 2 for gradient in per_example) / len(each)
                wanted = abs(mean * value - 0.5 * square * value**2)
                assert found[name].flatten()[index].item() == pytest.approx(wanted, rel=1e-3, abs=1e-8)


def test_the_first_order_term_is_what_the_loss_does_when_an_element_shrinks(tiny_base: Base) -> None:
    with trainable_layers(tiny_base, shape("pissa"), None, 0) as layers:
        name, phi = next(iter(layers.parameters().items()))
        before = moments(layers, rows(tiny_base), lambda: None)
        terms = before.gradient[name].flatten() * phi.data.flatten()
        flat, index = phi.data.view(-1), int(terms.abs().argmax())
        flat[index] *= 0.99
        change = moments(layers, rows(tiny_base), lambda: None).loss - before.loss
        assert change == pytest.approx(-0.01 * terms[index].item(), rel=0.1)


def test_a_probe_scores_both_factors_in_balance_and_leaves_the_layers_as_they_were(tiny_base: Base) -> None:
    with trainable_layers(tiny_base, shape(), None, 0) as layers:
        before = {name: each.detach().clone() for name, each in layers.parameters().items()}
        started = moments(layers, rows(tiny_base), lambda: None)
        found = score(layers, rows(tiny_base), "probe", lambda: None)
        for name, each in layers.parameters().items():
            assert torch.equal(each, before[name])
        steepness = sum(float(each.square().sum()) for name, each in started.gradient.items() if "lora_B" in name)
        rate = PROBE * started.loss / steepness
        for path in layers.layers:
            a, b = (f"{path}.lora_{factor}.default.weight" for factor in "AB")
            assert not started.gradient[a].any(), "with B at zero A has no gradient"
            assert found[a].sum() > 0
            # To first order an element of B counts rate * g^2.
            first_order = rate * started.gradient[b].square()
            assert torch.corrcoef(torch.stack([found[b].flatten(), first_order.flatten()]))[0, 1] > 0.95
            assert found[b].sum().item() == pytest.approx(first_order.sum().item(), rel=0.2)
            # The signed sums of the two factors agree: sum(A * dA) = sum(B * dB), and A's terms partly cancel in it.
            assert found[a].sum() >= 0.8 * found[b].sum()


def test_what_does_not_depend_on_the_lora_cannot_be_scored(tiny_base: Base) -> None:
    with (
        trainable_layers(tiny_base, shape("a_zero"), None, 0) as layers,
        pytest.raises(NothingToPartition, match="gradient of B"),
    ):
        score(layers, rows(tiny_base), "probe", lambda: None)


@pytest.mark.parametrize("start", ["pissa", "probe"])
def test_every_example_is_reported_once_a_pass(tiny_base: Base, start: PartitionStart) -> None:
    calls: list[None] = []
    with trainable_layers(tiny_base, shape("pissa" if start == "pissa" else "default"), None, 0) as layers:
        score(layers, rows(tiny_base), start, lambda: calls.append(None))
        assert layout(layers).size == sum(each.numel() for each in layers.parameters().values())
    assert len(calls) == passes(start) * len(EXAMPLES)
