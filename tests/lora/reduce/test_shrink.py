"""hub.lora.reduce.shrink: costs against the dense gradient, and an adapter that gets smaller by what its task does not need."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hub.lora.core.adapter import Adapter, Pair, UnsupportedAdapter, applied, read, write
from hub.lora.core.bases import Base
from hub.lora.core.examples import IGNORED, Example
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.reduce.gains import gradients, matrices
from hub.lora.reduce.shrink import Shrink, cheapest_first, components, costs, example_slopes, shrink, without
from hub.lora.train.loop import Recipe, train
from hub.vocabulary import ComponentScore
from tests.lora.runs import ignore_progress

EXAMPLES = [Example("first", "one"), Example("a second one", "two"), Example("third", "three and more")]
PLANTED = 4  # components a matrix that do next to nothing


@pytest.fixture(scope="module")
def trained(tiny_base: Base) -> Adapter:
    recipe = Recipe(rank=6, target_modules=["q_proj", "up_proj"], steps=40, learning_rate=1e-2, ratio=1.0)
    made = train(tiny_base, EXAMPLES, recipe, template="plain", on_progress=ignore_progress).adapter
    generator = torch.Generator().manual_seed(4)
    pairs = {
        path: Pair(
            torch.cat([pair.a, torch.randn(PLANTED, pair.a.shape[1], generator=generator)]),
            torch.cat([pair.scaling * pair.b, 1e-4 * torch.randn(len(pair.b), PLANTED, generator=generator)], dim=1),
            1.0,
        )
        for path, pair in made.pairs.items()
    }
    return Adapter(made.name, made.config, pairs)


def test_slopes_are_those_of_the_dense_gradient_at_the_adapted_weights(tiny_base: Base, trained: Adapter) -> None:
    """s_i dL/ds_i = sigma_i u_i^T G v_i, example by example."""
    (batch,) = encode_batches(tiny_base, EXAMPLES, "plain")
    parts = components(trained)
    found = example_slopes(tiny_base, trained, parts, batch)
    layers = {path: layer for path, layer in matrices(tiny_base).items() if path in parts}
    for index, example in enumerate(EXAMPLES):
        alone = encode_batches(tiny_base, [example], "plain")
        with applied(tiny_base.model, trained):
            dense = gradients(tiny_base, alone, layers)
        tokens = int((alone[0].labels != IGNORED).sum())
        for path, part in parts.items():
            expected = tokens * part.sigma * (part.u * (dense[path] @ part.vt.T)).sum(0)
            torch.testing.assert_close(found[path][index], expected, rtol=1e-3, atol=1e-4)


def test_components_add_up_to_the_update(trained: Adapter) -> None:
    whole = without(trained, components(trained), [])
    for path, pair in trained.pairs.items():
        left = whole.pairs[path]
        torch.testing.assert_close(left.b @ left.a, pair.scaling * pair.b @ pair.a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", ["fisher", "energy"])
def test_an_adapter_gets_smaller_within_its_loss_budget(
    tiny_base: Base, trained: Adapter, order: ComponentScore, tmp_path: Path
) -> None:
    batches = encode_batches(tiny_base, EXAMPLES, "plain")
    with applied(tiny_base.model, trained):
        before = mean_loss(tiny_base, batches)
    found = shrink(
        tiny_base,
        trained,
        EXAMPLES,
        Shrink(template="plain", order=order, loss_budget=0.1),
        on_progress=ignore_progress,
    )
    assert (found.given, found.before) == (4 * (6 + PLANTED), before)
    assert found.components == sum(pair.rank for pair in found.adapter.pairs.values()) <= 4 * 6, (
        "what does nothing is gone"
    )
    assert found.loss <= before + 0.1
    write(found.adapter, tmp_path / "smaller", dtype=torch.float32)
    with applied(tiny_base.model, read(tmp_path / "smaller")):
        assert mean_loss(tiny_base, batches) == pytest.approx(found.loss, rel=1e-5)


def test_the_curvature_is_the_mean_of_squared_slopes_and_the_slope_their_sum(tiny_base: Base, trained: Adapter) -> None:
    batches, parts = encode_batches(tiny_base, EXAMPLES, "plain"), components(trained)
    slopes = example_slopes(tiny_base, trained, parts, batches[0])
    tokens = int((batches[0].labels != IGNORED).sum())
    curvature = costs(tiny_base, trained, parts, batches, order="fisher")
    slope = costs(tiny_base, trained, parts, batches, order="tail_taylor")
    for path in parts:
        torch.testing.assert_close(curvature[path], (slopes[path] ** 2).sum(0) / (2 * tokens))
        torch.testing.assert_close(slope[path], -slopes[path].sum(0) / tokens)
    first = {path for path, index in cheapest_first(curvature)[: 4 * PLANTED] if index >= 6}
    assert first == set(parts), "what does nothing costs nothing"


def test_nothing_goes_without_a_budget_and_all_but_one_with_a_large_one(tiny_base: Base, trained: Adapter) -> None:
    tight = shrink(
        tiny_base, trained, EXAMPLES, Shrink(template="plain", loss_budget=-1.0), on_progress=ignore_progress
    )
    assert tight.components == tight.given
    assert tight.loss == tight.before
    loose = shrink(tiny_base, trained, EXAMPLES, Shrink(template="plain", loss_budget=1e6), on_progress=ignore_progress)
    (pair,) = loose.adapter.pairs.values()
    assert (loose.components, pair.rank) == (1, 1)


def test_magnitudes_are_refused(trained: Adapter) -> None:
    pairs = {path: replace(pair, magnitude=torch.ones(len(pair.b))) for path, pair in trained.pairs.items()}
    with pytest.raises(UnsupportedAdapter, match="DoRA"):
        components(Adapter("dora", trained.config, pairs))
