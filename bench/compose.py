"""One evaluation of LoraHub's search (new weights for 10 modules, then the loss on 8 examples): ours beside the two usual ways.

Both peers compute the same composition as ours (the losses are compared first, or the figures would say nothing): the `lorahub`
package sums the matrices in Python and loads them into a PEFT model, PEFT itself merges with add_weighted_adapter("cat"). All work
on the same base in the same dtype, the same encoded batch, and the starter modules.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lorahub.algorithm import get_final_weights
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel
from transformers.utils import logging

from bench.harness import Cell, alternating
from hub.lora.adapter import Adapter, applied, read
from hub.lora.bases import BUILT_IN_ID, BUILT_IN_SHA256, Base, convert_built_in, load
from hub.lora.compose import Form, Mixture, encoded, mean_loss
from hub.lora.examples import Batch, Example
from hub.starter.tasks import DEMO, TEMPLATE

ROOT = Path(__file__).parent.parent
MODULES = sorted(path.parent for path in (ROOT / "hub/starter/modules").glob("*/adapter_config.json"))
EXAMPLES = [Example(pair.input, pair.target) for pair in DEMO.train[:8]]
REPEATS = 7

Evaluation = Callable[[Sequence[float]], float]


def cells() -> list[Cell]:
    return [
        Cell(
            measure="one evaluation, form product, 10 modules, 8 examples",
            unit="s",
            run=lambda: _medians(_ours("product"), _lorahub()),
            peer_name=f"lorahub {version('lorahub')}",
            target=2.0,
        ),
        Cell(
            measure="one evaluation, form sum, 10 modules, 8 examples",
            unit="s",
            run=lambda: _medians(_ours("sum"), _peft()),
            peer_name=f"PEFT {version('peft')}, add_weighted_adapter",
            target=2.0,
        ),
    ]


def _medians(ours: Evaluation, peer: Evaluation) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(0)

    def weights() -> list[float]:
        return (torch.rand(len(MODULES), generator=generator) * 2 - 1).tolist()

    point = weights()
    # Both round to bfloat16 on their way, in other places.
    torch.testing.assert_close(ours(point), peer(point), rtol=0.02, atol=0.02)
    seconds = alternating([lambda: ours(weights()), lambda: peer(weights())], repeats=REPEATS, warm_up=2)
    return seconds[0], seconds[1]


def _loaded() -> Base:
    logging.disable_progress_bar()
    return load(convert_built_in(ROOT / "data/bench" / BUILT_IN_SHA256[:12]), id=BUILT_IN_ID)


_base = cache(_loaded)


def _ours(form: Form) -> Evaluation:
    base = _base()
    mixture = Mixture([read(folder) for folder in MODULES], form, base.device)
    batches = encoded(base, EXAMPLES, TEMPLATE)

    def evaluate(weights: Sequence[float]) -> float:
        with applied(base.model, Adapter("composition", {}, mixture.pairs(weights))):
            return mean_loss(base, batches)

    return evaluate


def _peft_model() -> tuple[Any, Batch]:
    """A PEFT model of its own with the first module, and the batch."""
    fresh = _loaded()
    (batch,) = encoded(fresh, EXAMPLES, TEMPLATE)
    return PeftModel.from_pretrained(fresh.model, MODULES[0], adapter_name=MODULES[0].name).eval(), batch


def _loss(model: PreTrainedModel, batch: Batch) -> float:
    with torch.no_grad():
        return float(
            model(
                input_ids=batch.input_ids.to(model.device),
                attention_mask=batch.attention_mask.to(model.device),
                labels=batch.labels.to(model.device),
            ).loss
        )


def _lorahub() -> Evaluation:
    model, batch = _peft_model()
    names = [folder.name for folder in MODULES]
    state = {folder.name: load_file(folder / "adapter_model.safetensors", model.device.type) for folder in MODULES}

    def evaluate(weights: Sequence[float]) -> float:
        set_peft_model_state_dict(model, get_final_weights(weights, names, state), adapter_name=names[0])
        return _loss(model, batch)

    return evaluate


def _peft() -> Evaluation:
    warnings.filterwarnings("ignore", message="Adapter mixed was active which is now deleted")
    model, batch = _peft_model()
    names = [folder.name for folder in MODULES]
    for folder in MODULES[1:]:
        model.load_adapter(folder, adapter_name=folder.name)

    def evaluate(weights: Sequence[float]) -> float:
        if "mixed" in model.peft_config:
            model.delete_adapter("mixed")
        model.add_weighted_adapter(names, list(weights), "mixed", combination_type="cat")
        model.set_adapter("mixed")
        return _loss(model, batch)

    return evaluate
