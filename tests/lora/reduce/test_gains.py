"""hub.lora.reduce.gains: the identity against autograd, predictions against measured changes, edits that leave every bit as it was."""

import pytest
import torch

from hub.lora.core.bases import Base
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.reduce.gains import (
    BLOCKS,
    SHARES,
    Cut,
    cut_weight,
    edited,
    gains,
    gradients,
    kept_count,
    matrices,
    slopes,
)
from hub.vocabulary import CutScore
from tests.lora.reduce.edits import EXAMPLES, PATH, assert_untouched, bits


def test_gradients_are_autograds_and_leave_the_base_alone(tiny_base: Base) -> None:
    before = bits(tiny_base)
    one, three = (encode_batches(tiny_base, EXAMPLES[:count], "plain") for count in (1, 3))
    batches = [*one, *encode_batches(tiny_base, EXAMPLES[1:], "plain")]
    layers = matrices(tiny_base)
    assert len(layers) == 14, "two blocks of seven; the output layer is none"
    found = gradients(tiny_base, batches, layers)
    assert_untouched(tiny_base, before)
    weight = layers[PATH].weight
    nudge = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        losses = []
        for step in (1e-3, -1e-3):
            weight.add_(step * nudge)
            losses.append(mean_loss(tiny_base, three))
            weight.copy_(before[f"{PATH}.weight"])
    slope = (losses[0] - losses[1]) / 2e-3
    assert float((found[PATH] * nudge).sum()) == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize("blocks", [1, 4])
def test_a_slope_is_the_derivative_with_respect_to_a_singular_value(tiny_base: Base, blocks: int) -> None:
    """Against autograd through U diag(sigma) V^T, block by block."""
    layer, batches = matrices(tiny_base)[PATH], encode_batches(tiny_base, EXAMPLES, "plain")
    gradient = gradients(tiny_base, batches, {PATH: layer})[PATH]
    found = slopes(layer.weight, gradient, blocks)
    parts = [torch.linalg.svd(rows, full_matrices=False) for rows in layer.weight.detach().tensor_split(blocks)]
    sigmas = [sigma.clone().requires_grad_(True) for _, sigma, _ in parts]
    rebuilt = torch.cat([(u * sigma) @ vt for (u, _, vt), sigma in zip(parts, sigmas, strict=True)])
    with torch.enable_grad():
        expected = torch.autograd.grad((rebuilt * gradient).sum(), sigmas)
    for (sigma, slope), (_, given, _), wanted in zip(found, parts, expected, strict=True):
        torch.testing.assert_close(sigma, given)
        torch.testing.assert_close(slope, wanted, rtol=1e-4, atol=1e-6)


def test_predicted_gains_go_with_the_measured_ones(tiny_base: Base) -> None:
    layers, batches = matrices(tiny_base), encode_batches(tiny_base, EXAMPLES, "plain")
    slope = gradients(tiny_base, batches, layers)
    before = mean_loss(tiny_base, batches)
    predicted: list[float] = []
    measured: list[float] = []
    for path, layer in layers.items():
        sigma = torch.linalg.svdvals(layer.weight)
        share = (len(sigma) - 1) / len(sigma)  # the smallest value alone, where the first order is good
        predicted += gains(layer.weight, slope[path], shares=[share], blocks=[1]).values()
        with edited(layers, [Cut(path, share, 1)]):
            measured.append(before - mean_loss(tiny_base, batches))
    correlation = torch.corrcoef(torch.tensor([predicted, measured]))[0, 1]
    assert correlation > 0.9
    assert max(measured) - min(measured) > 0.02, "there is something to predict"


def test_a_cut_is_the_nearest_matrix_of_that_rank_in_each_block() -> None:
    weight = torch.randn(10, 6, generator=torch.Generator().manual_seed(2))
    assert torch.linalg.matrix_rank(cut_weight(weight, Cut("", 0.5, 1))) == 3
    for rows, given in zip(cut_weight(weight, Cut("", 0.4, 3)).tensor_split(3), weight.tensor_split(3), strict=True):
        sigma = torch.linalg.svdvals(given)
        count = kept_count(sigma, 0.4)
        assert torch.linalg.matrix_rank(rows) == count
        # Eckart and Young: no matrix of that rank is nearer.
        assert float((given - rows).norm()) == pytest.approx(float(sigma[count:].norm()), rel=1e-4)
    torch.testing.assert_close(cut_weight(weight, Cut("", 1.0, 2)), weight)


@pytest.mark.parametrize(("length", "share", "count"), [(10, 0.9, 9), (10, 0.01, 1), (576, 0.05, 28), (7, 1.0, 7)])
def test_a_share_is_rounded_down_but_not_to_nothing(length: int, share: float, count: int) -> None:
    assert kept_count(torch.ones(length), share) == count


@pytest.mark.parametrize("score", ["tail_taylor", "grad_sum", "neg_count"])
def test_scores_are_what_they_are_called(score: CutScore) -> None:
    generator = torch.Generator().manual_seed(3)
    weight, gradient = torch.randn(8, 5, generator=generator), torch.randn(8, 5, generator=generator)
    found = gains(weight, gradient, score=score)
    assert found.keys() == {(share, count) for share in SHARES for count in BLOCKS if count <= 8}
    u, sigma, vt = torch.linalg.svd(weight, full_matrices=False)
    slope = [float(u[:, i] @ gradient @ vt[i]) for i in range(5)]
    tail = range(3, 5)
    expected = {
        "tail_taylor": sum(float(sigma[i]) * slope[i] for i in tail),
        "grad_sum": sum(slope[i] for i in tail),
        "neg_count": sum(slope[i] > 0 for i in tail) / 2,
    }
    assert found[0.6, 1] == pytest.approx(expected[score], rel=1e-4)


def test_edits_are_undone_bit_for_bit_even_after_an_error(tiny_base: Base) -> None:
    before, layers = bits(tiny_base), matrices(tiny_base)

    def fail() -> None:
        with edited(layers, [Cut(path, 0.2, 2) for path in layers]):
            assert not torch.equal(layers[PATH].weight, before[f"{PATH}.weight"])
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail()
    assert_untouched(tiny_base, before)
