"""Training under a mask, and what must hold of it on any device."""

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from hub.lora.core.bases import Base
from hub.lora.core.examples import Example
from hub.lora.par.importance import layout
from hub.lora.train.loop import Recipe, Trained, train_layers
from hub.lora.train.masks import Mask
from hub.lora.train.trainable_layers import TrainableLayers, trainable_layers
from tests.lora.runs import Cancelled, CheckpointFolder, ignore_progress, unchanged

EXAMPLES = [Example(f"say {word}", word[:2]) for word in ("alpha", "beta", "gamma", "delta", "epsilon")]
RECIPE = Recipe(rank=4, alpha=8, init="pissa", learning_rate=1e-2, steps=8, batch_size=3, weight_decay=0.1)


def mask_of(layers: TrainableLayers, share: float) -> Mask:
    elements = layout(layers)
    return Mask.of(elements, numpy.random.default_rng(0).random(elements.size) < share)


def fit(layers: TrainableLayers, mask: Mask, **keywords: Any) -> Trained:
    return train_layers(
        layers, EXAMPLES, RECIPE, template="plain", mask=mask, **{"on_progress": ignore_progress, **keywords}
    )


def values(layers: TrainableLayers) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in layers.parameters().items()}


def check_frozen_elements_keep_their_bits(tiny_base: Base) -> None:
    kept = {}
    for share in (0.25, 1.0):
        with unchanged(tiny_base), trainable_layers(tiny_base, RECIPE.shape, None, 0) as layers:
            mask, before = mask_of(layers, share), values(layers)
            trained = fit(layers, mask)
            assert trained.losses[-1] < trained.losses[0]
            for name, chosen in mask.tensors().items():
                after = layers.parameters()[name]
                assert torch.equal(after[~chosen].view(torch.int32), before[name][~chosen].view(torch.int32))
                assert (after[chosen] != before[name][chosen]).float().mean() > 0.9
            assert trained.optimizer_bytes == 8 * len(mask) + sum(-(-each.numel() // 8) for each in before.values())
            kept[share] = trained.optimizer_bytes
    assert kept[0.25] < 0.3 * kept[1.0]


def check_a_stopped_run_ends_with_the_same_bits(tiny_base: Base, tmp_path: Path) -> None:
    with trainable_layers(tiny_base, RECIPE.shape, None, 0) as layers:
        fit(layers, mask_of(layers, 0.4))
        whole = values(layers)
    with trainable_layers(tiny_base, RECIPE.shape, None, 0) as layers, pytest.raises(Cancelled):
        fit(layers, mask_of(layers, 0.4), checkpoints=CheckpointFolder(tmp_path, killed_after=5))
    heard: list[int] = []
    with trainable_layers(tiny_base, RECIPE.shape, None, 0) as layers:
        fit(
            layers,
            mask_of(layers, 0.4),
            checkpoints=CheckpointFolder(tmp_path),
            on_progress=lambda step, *_: heard.append(step),
        )
        assert heard[0] > 4
        for name, each in values(layers).items():
            assert torch.equal(each, whole[name])
