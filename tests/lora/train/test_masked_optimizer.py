"""AdamW on some elements: bit for bit what AdamW does to them, and not one bit for the others."""

import pytest
import torch
from torch import Tensor, nn

from hub.lora.train.masked_optimizer import Active, PackedAdamW, state_bytes, without_gradient_outside

SHAPES = [(7, 3), (4, 5), (3,), (2, 8)]
RATE, BETAS, EPSILON, DECAY = 0.01, (0.9, 0.99), 1e-8, 0.1
SETTINGS = {"lr": RATE, "betas": BETAS, "eps": EPSILON, "weight_decay": DECAY}


def parameters(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def dense_adamw(values: list[nn.Parameter]) -> torch.optim.AdamW:
    return torch.optim.AdamW(values, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, foreach=False)


def masks() -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    some = [torch.rand(shape, generator=generator) < 0.4 for shape in SHAPES]
    return [*some[:2], torch.zeros(SHAPES[2], dtype=torch.bool), torch.ones(SHAPES[3], dtype=torch.bool)]


def loss(values: list[nn.Parameter], step: int) -> Tensor:
    """Gradients that change from step to step and depend on every element."""
    parts = [(torch.cos(each * (step + 1)) * (each - 1).square()).sum() for each in values]
    return torch.stack(parts).sum()


def test_active_elements_move_as_in_adamw_and_the_others_not_by_one_bit() -> None:
    ours, theirs, start = parameters(), parameters(), parameters()
    chosen = masks()
    packed = PackedAdamW([{"params": ours, **SETTINGS}], dict(zip(ours, chosen, strict=True)))
    dense = dense_adamw(theirs)
    for step in range(25):
        for values, optimizer in ((ours, packed), (theirs, dense)):
            optimizer.zero_grad()
            torch.autograd.backward(loss(values, step))
        for other, mask in zip(theirs, chosen, strict=True):
            other.grad = other.grad * mask if other.grad is not None else None
        packed.step()
        dense.step()
        with torch.no_grad():
            # A dense AdamW that is given zeros still decays what is to be frozen; put back, it is the masked AdamW.
            for other, first, mask in zip(theirs, start, chosen, strict=True):
                assert mask.all() or not torch.equal(other[~mask], first[~mask])
                other[~mask] = first[~mask]
    for one, other, first, mask in zip(ours, theirs, start, chosen, strict=True):
        assert torch.equal(one, other), "bit for bit"
        assert torch.equal(one[~mask].view(torch.int32), first[~mask].view(torch.int32))
        assert (one[mask] != first[mask]).all()


def test_momentum_of_an_earlier_phase_does_not_move_what_is_frozen_now() -> None:
    """Two phases with masks of their own: each has an optimiser of its own, so nothing is left over."""
    values = parameters()
    first = PackedAdamW([{"params": values, **SETTINGS}], dict(zip(values, masks(), strict=True)))
    torch.autograd.backward(loss(values, 0))
    first.step()
    between = [each.detach().clone() for each in values]
    others = [~mask for mask in masks()]
    second = PackedAdamW([{"params": values, **SETTINGS}], dict(zip(values, others, strict=True)))
    torch.autograd.backward(loss(values, 1))
    second.step()
    for each, before, mask in zip(values, between, others, strict=True):
        assert torch.equal(each[~mask], before[~mask])


def test_state_exists_for_active_elements_alone() -> None:
    values, chosen = parameters(), masks()
    packed = PackedAdamW([{"params": values, **SETTINGS}], dict(zip(values, chosen, strict=True)))
    torch.autograd.backward(loss(values, 0))
    packed.step()
    active = sum(int(mask.sum()) for mask in chosen)
    bits = sum(-(-mask.numel() // 8) for mask in chosen)
    assert state_bytes(packed) == 2 * 4 * active + bits
    dense = dense_adamw(values)
    dense.step()
    assert state_bytes(dense) == 2 * 4 * sum(each.numel() for each in values)
    assert values[2] not in packed.state, "nothing of it is active"
    for each, mask in zip(values, chosen, strict=True):
        if mask.any():
            assert packed.state[each]["exp_avg"].shape == (int(mask.sum()),)


def test_a_state_that_was_kept_goes_on_with_the_same_bits() -> None:
    whole, stopped = parameters(), parameters()
    one = PackedAdamW([{"params": whole, **SETTINGS}], dict(zip(whole, masks(), strict=True)))
    two = PackedAdamW([{"params": stopped, **SETTINGS}], dict(zip(stopped, masks(), strict=True)))
    for step in range(6):
        if step == 3:
            kept = two.state_dict()
            two = PackedAdamW([{"params": stopped, **SETTINGS}], dict(zip(stopped, masks(), strict=True)))
            two.load_state_dict(kept)
        for values, optimizer in ((whole, one), (stopped, two)):
            optimizer.zero_grad()
            torch.autograd.backward(loss(values, step))
            optimizer.step()
    for each, other in zip(whole, stopped, strict=True):
        assert torch.equal(each, other)


def test_gradients_are_zero_outside_within_the_block_only() -> None:
    values, chosen = parameters(), masks()
    with without_gradient_outside(dict(zip(values, chosen, strict=True))):
        torch.autograd.backward(loss(values, 0))
    for each, mask in zip(values, chosen, strict=True):
        assert each.grad is not None
        assert not each.grad[~mask].any()
        assert each.grad[mask].all()
        each.grad = None
    torch.autograd.backward(loss(values, 0))
    assert all(each.grad is not None and each.grad.all() for each in values)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 100])
def test_bits_come_back_as_the_mask(size: int) -> None:
    mask = torch.rand(size, generator=torch.Generator().manual_seed(size)) < 0.5
    active = Active.of(mask, torch.device("cpu"))
    assert active.bits.nbytes == -(-size // 8)
    assert torch.equal(active.mask(), mask)
