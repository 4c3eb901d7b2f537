"""One evaluation of LoraHub's search (new weights for 10 modules, then the loss on 8 examples): ours beside the two usual ways.

Both peers compute the same composition as ours (the losses are compared first, or the figures would say nothing): the `lorahub`
package sums the matrices in Python and loads them into a PEFT model, PEFT itself merges with add_weighted_adapter("cat"). All work
on the same base in the same dtype, the same encoded batch, and the starter modules. Every evaluation ends with the same forward
pass of the base, which takes most of the time; that bounds the ratio.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from lorahub.algorithm import default_get_loss, get_score
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import logging

from bench.harness import Cell, alternating
from hub.lora.adapter import Adapter, applied, read
from hub.lora.bases import BUILT_IN_ID, BUILT_IN_SHA256, Base, convert_built_in, load
from hub.lora.compose import encoded, mean_loss
from hub.lora.examples import Example
from hub.lora.forms import Form, Mixture
from hub.starter.tasks import DEMO, TEMPLATE

ROOT = Path(__file__).parent.parent
MODULES = sorted(path.parent for path in (ROOT / "hub/starter/modules").glob("*/adapter_config.json"))
EXAMPLES = [Example(pair.input, pair.target) for pair in DEMO.train[:8]]
REPEATS = 15

Evaluation = Callable[[Sequence[float]], float]


def cells() -> list[Cell]:
    return [
        Cell(
            measure=f"one evaluation, form product, {len(MODULES)} modules, {len(EXAMPLES)} examples",
            unit="s",
            run=lambda: _medians(_ours("product"), _lorahub()),
            peer_name=f"lorahub {version('lorahub')}",
            target=2.0,
        ),
        Cell(
            measure=f"one evaluation, form sum, {len(MODULES)} modules, {len(EXAMPLES)} examples",
            unit="s",
            run=lambda: _medians(_ours("sum"), _peft()),
            peer_name=f"PEFT {version('peft')}, add_weighted_adapter",
            target=2.0,
        ),
        Cell(
            measure=f"{len(MODULES)} module folders made ready to search",
            unit="s",
            run=lambda: _two(alternating([_ours_ready, _lorahub_ready()], repeats=REPEATS)),
            peer_name=f"PEFT {version('peft')}, from_pretrained for each as lorahub does",
        ),
    ]


def _medians(ours: Evaluation, peer: Evaluation) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(0)

    def weights() -> list[float]:
        return (torch.rand(len(MODULES), generator=generator) * 2 - 1).tolist()

    point = weights()
    # Ours computes the pairs in the base's bfloat16, PEFT in float32.
    torch.testing.assert_close(ours(point), peer(point), rtol=0.02, atol=0.02)
    return _two(alternating([lambda: ours(weights()), lambda: peer(weights())], repeats=REPEATS, warm_up=2))


def _two(seconds: Sequence[float]) -> tuple[float, float]:
    ours, peer = seconds
    return ours, peer


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


def _ours_ready() -> Mixture:
    return Mixture([read(folder) for folder in MODULES], "product", _base().device)


def _lorahub_ready() -> Callable[[], object]:
    """What lorahub's load_base_model_and_lora_modules does once it has the base (there always an encoder-decoder)."""
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
    warnings.filterwarnings("ignore", message="You are trying to modify a model with PEFT for a second time")
    warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute in the model")
    model = _loaded().model

    def ready() -> dict[str, dict[str, Tensor]]:
        models = {folder.name: PeftModel.from_pretrained(model, folder) for folder in MODULES}
        # Without the question about embeddings, which would be asked of a hub over the network.
        return {name: get_peft_model_state_dict(peft, save_embedding_layers=False) for name, peft in models.items()}

    return ready


def _peft_model(name: str) -> tuple[Any, dict[str, Tensor]]:
    """A PEFT model of its own with the first module, and what it is called with."""
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
    fresh = _loaded()
    (batch,) = encoded(fresh, EXAMPLES, TEMPLATE)
    columns = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
    return PeftModel.from_pretrained(fresh.model, MODULES[0], adapter_name=name).eval(), columns


def _lorahub() -> Evaluation:
    """The package's own `get_score`, which makes a DataLoader for every evaluation and divides the loss by the number of examples."""
    warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true")
    model, columns = _peft_model("default")
    state = {folder.name: load_file(folder / "adapter_model.safetensors", model.device.type) for folder in MODULES}
    rows = {name: column.tolist() for name, column in columns.items()}
    dataset = Dataset.from_dict({**rows, "input": [example.input for example in EXAMPLES]})

    def evaluate(weights: Sequence[float]) -> float:
        score = get_score(weights, model, state, dataset, len(EXAMPLES), default_get_loss, lambda _: 0.0)
        return float(score) * len(EXAMPLES)

    return evaluate


def _peft() -> Evaluation:
    warnings.filterwarnings("ignore", message="Adapter mixed was active which is now deleted")
    names = [folder.name for folder in MODULES]
    model, columns = _peft_model(names[0])
    for folder in MODULES[1:]:
        model.load_adapter(folder, adapter_name=folder.name)
    given = {name: column.to(model.device) for name, column in columns.items()}

    def evaluate(weights: Sequence[float]) -> float:
        if "mixed" in model.peft_config:
            model.delete_adapter("mixed")
        model.add_weighted_adapter(names, list(weights), "mixed", combination_type="cat")
        model.set_adapter("mixed")
        with torch.no_grad():
            return float(model(**given).loss)

    return evaluate
