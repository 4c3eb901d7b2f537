"""Composition beside the usual ways: an evaluation of LoraHub's search, loading, merging, cutting, and a search by gradient.

The main setting is the released code's as one would use it on this base: 20 modules of rank 16 on the query and value projections,
five examples of 100 to 150 tokens. The `lorahub` package gets the same encode_batches batch with the same masked labels, and computes in
float32 as it does as it comes; ours does so as well in one row, and in bfloat16 in another, where the processor computes in it natively.
Every evaluation ends with the same forward pass of the base, which bounds the ratio: a row has that floor.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from lorahub.algorithm import default_get_loss, get_score
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch import Tensor, nn
from transformers.utils import logging

from bench.harness import Cell, alternating
from hub.lora.compose.forms import Mixture, truncate
from hub.lora.compose.gradient import GradientSearch, compose_by_gradient
from hub.lora.compose.population import mean_losses
from hub.lora.compose.search import Search, compose
from hub.lora.core.adapter import Adapter, Pair, applied, read, write
from hub.lora.core.bases import Base, load
from hub.lora.core.built_in import BUILT_IN_ID, BUILT_IN_SHA256, convert_built_in
from hub.lora.core.examples import Batch, Example, tokenize
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.reduce.gains import matrices
from hub.starter.tasks import DEMO, TASKS, TEMPLATE
from hub.vocabulary import Form

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "data/bench"
MODULES, RANK, EXAMPLES, REPEATS, POPULATION = 20, 16, 5, 7, 16
WIDTH = 4096

PEFT = f"PEFT {version('peft')}"
LORAHUB = f"lorahub {version('lorahub')}"

Evaluation = Callable[[Sequence[float]], float]


def cells() -> list[Cell]:
    setting = f"{MODULES} modules of rank {RANK}, {EXAMPLES} examples of 100 to 150 tokens"
    return [
        *_product_cells(setting),
        *population_cells(_base, setting),
        Cell(
            "rank correlation of the losses at 40 weight vectors in [-1.5, 1.5], bfloat16 and float32",
            "",
            lambda: (_rank_agreement(), None),
            better="higher",
        ),
        Cell(
            f"{MODULES} module folders made ready to search",
            "s",
            lambda: _two(alternating([_ours_ready, _lorahub_ready()], repeats=REPEATS)),
            f"{PEFT}, from_pretrained for each as lorahub does",
            5.0,
        ),
        Cell(
            f"one evaluation, form sum, bfloat16, {setting}",
            "s",
            lambda: _medians(_ours("sum", torch.bfloat16), _peft(), rtol=0.05),
            f"{PEFT}, add_weighted_adapter('cat')",
            2.0,
        ),
        Cell(
            f"{MODULES} modules of rank {RANK} cut to rank {RANK}, one layer of width {WIDTH}",
            "s",
            _cutting,
            f"{PEFT}, add_weighted_adapter('svd')",
            10.0,
        ),
        Cell(
            f"{DEMO.name}: seconds to the objective that 40 evaluations of NGOpt reach, starter library",
            "s",
            _searching,
            "form sum, NGOpt-40",
        ),
    ]


def _product_cells(setting: str) -> list[Cell]:
    return [
        Cell(
            f"one evaluation, form product, bfloat16, {setting}",
            "s",
            lambda: _medians(_ours("product", torch.bfloat16), _lorahub()),
            f"{LORAHUB}, float32 as it comes",
            3.0,
        ),
        Cell(
            f"one evaluation, form product, float32, {setting}",
            "s",
            lambda: _medians(_ours("product", torch.float32), _lorahub(), rtol=1e-4),
            f"{LORAHUB}, float32 as it comes",
            1.4,
        ),
        Cell(
            f"one evaluation, form product, bfloat16, {setting}: its floor",
            "s",
            lambda: _medians(_ours("product", torch.bfloat16), _forward(torch.bfloat16), rtol=None),
            "the base's forward pass alone",
        ),
    ]


def population_cells(base: Callable[[torch.dtype], Base], setting: str) -> list[Cell]:
    forms: tuple[Form, ...] = ("product", "sum")
    return [
        Cell(
            f"a population of {POPULATION} in one pass, form {form}, bfloat16, {setting}",
            "evaluations/s",
            partial(_population, base, form),
            "one evaluation after the other",
            better="higher",
        )
        for form in forms
    ]


def _population(base_in: Callable[[torch.dtype], Base], form: Form) -> tuple[float, float]:
    """Evaluations a second in bfloat16, new points each time; the losses are compared first."""
    base = base_in(torch.bfloat16)
    mixture, batches = (
        Mixture([read(folder) for folder in folders(base)], form, base.device),
        encode_batches(base, _examples(), TEMPLATE),
    )

    def alone(points: Sequence[Sequence[float]]) -> list[float]:
        return [_evaluated(base, mixture, batches, point) for point in points]

    def together(points: Sequence[Sequence[float]]) -> list[float]:
        return mean_losses(base, mixture, points, batches)

    points = _points(POPULATION * (REPEATS + 3))
    rounds = [points[start : start + POPULATION] for start in range(0, len(points), POPULATION)]
    compared = [torch.tensor(losses(rounds[0])) for losses in (together, alone)]
    torch.testing.assert_close(*compared, rtol=0.05, atol=0.0)
    left, right = iter(rounds), iter(rounds)
    seconds = alternating([lambda: together(next(left)), lambda: alone(next(right))], repeats=REPEATS, warm_up=2)
    ours, peer = (POPULATION / each for each in seconds)
    return ours, peer


def _medians(ours: Evaluation, peer: Evaluation, *, rtol: float | None = 0.02) -> tuple[float, float]:
    """Both at the same new weights in turns, after their losses were compared: they compute the same composition."""
    points = _points(REPEATS + 3)
    if rtol is not None:
        torch.testing.assert_close(ours(points[0]), peer(points[0]), rtol=rtol, atol=0.0)
    left, right = iter(points), iter(points)
    return _two(alternating([lambda: ours(next(left)), lambda: peer(next(right))], repeats=REPEATS, warm_up=2))


def _points(count: int) -> list[list[float]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(MODULES, generator=generator) * 2 - 1).tolist() for _ in range(count)]


def _two(seconds: Sequence[float]) -> tuple[float, float]:
    ours, peer = seconds
    return ours, peer


# --- the setting ------------------------------------------------------------------------------------------------------


def _loaded(dtype: torch.dtype) -> Base:
    logging.disable_progress_bar()
    return load(convert_built_in(FOLDER / BUILT_IN_SHA256[:12]), id=BUILT_IN_ID, dtype=dtype)


_base = cache(_loaded)


def folders(base: Base) -> list[Path]:
    """Modules with random factors of the size that a training gives them; made once for each shape of base."""
    layers = {path: layer for path, layer in matrices(base).items() if path.endswith(("q_proj", "v_proj"))}
    width = base.model.config.hidden_size
    made = [FOLDER / f"random-modules/rank{RANK}-width{width}-{index:02}" for index in range(MODULES)]
    for index, folder in enumerate(made):
        if not folder.exists():
            generator = torch.Generator().manual_seed(index)
            pairs = {
                path: Pair(
                    torch.randn(RANK, width, generator=generator) / width**0.5,
                    torch.randn(layer.out_features, RANK, generator=generator) * 0.01,
                    2.0,
                )
                for path, layer in layers.items()
            }
            config = {
                "target_modules": ["q_proj", "v_proj"],
                "base_model_name_or_path": base.id,
                "task_type": "CAUSAL_LM",
            }
            write(Adapter(folder.name, config, pairs), folder, dtype=torch.float32)
    return made


def _folders() -> list[Path]:
    return folders(_base(torch.bfloat16))


@cache
def _examples() -> list[Example]:
    """Five of 100 to 150 tokens: solved examples of the starter tasks before a question."""
    tokenizer, found = _base(torch.bfloat16).tokenizer, []
    for task in TASKS[:EXAMPLES]:
        pairs = iter(task.train)
        question = next(pairs)
        text, target = question.input, question.target
        while len(tokenize(tokenizer, Example(text, target), TEMPLATE)) < 110:
            shot = next(pairs)
            text = f"{shot.input}\nAnswer: {shot.target}\n\n{text}"
        found.append(Example(text, target))
    assert all(100 <= len(tokenize(tokenizer, example, TEMPLATE)) <= 150 for example in found)
    return found


# --- an evaluation ----------------------------------------------------------------------------------------------------


@cache
def _ours(form: Form, dtype: torch.dtype) -> Evaluation:
    base = _base(dtype)
    mixture = Mixture([read(folder) for folder in _folders()], form, base.device)
    batches = encode_batches(base, _examples(), TEMPLATE)

    return lambda weights: _evaluated(base, mixture, batches, weights)


def _evaluated(base: Base, mixture: Mixture, batches: Sequence[Batch], weights: Sequence[float]) -> float:
    with applied(base.model, Adapter("composition", {}, mixture.pairs(weights))):
        return mean_loss(base, batches)


def _forward(dtype: torch.dtype) -> Evaluation:
    base = _base(dtype)
    batches = encode_batches(base, _examples(), TEMPLATE)
    return lambda _weights: mean_loss(base, batches)


def _rank_agreement() -> float:
    points = [[1.5 * weight for weight in point] for point in _points(40)]  # the search's own bounds
    losses = [[_ours("sum", dtype)(point) for point in points] for dtype in (torch.bfloat16, torch.float32)]
    return float(spearmanr(*losses).statistic)


def _peft_model(name: str, dtype: torch.dtype) -> tuple[Any, dict[str, Tensor]]:
    """A PEFT model of its own with the first module, and what it is called with."""
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
    fresh = _loaded(dtype)
    (batch,) = encode_batches(fresh, _examples(), TEMPLATE)
    columns = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
    return PeftModel.from_pretrained(fresh.model, _folders()[0], adapter_name=name).eval(), columns


@cache
def _lorahub() -> Evaluation:
    """The package's own `get_score`, which makes a DataLoader for every evaluation and divides the loss by the number of examples."""
    warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true")
    model, columns = _peft_model("default", torch.float32)
    state = {folder.name: load_file(folder / "adapter_model.safetensors", model.device.type) for folder in _folders()}
    rows = {name: column.tolist() for name, column in columns.items()}
    dataset = Dataset.from_dict({**rows, "input": [example.input for example in _examples()]})

    def evaluate(weights: Sequence[float]) -> float:
        score = get_score(weights, model, state, dataset, EXAMPLES, default_get_loss, lambda _: 0.0)
        return float(score) * EXAMPLES

    return evaluate


def _peft() -> Evaluation:
    warnings.filterwarnings("ignore", message="Adapter mixed was active which is now deleted")
    names = [folder.name for folder in _folders()]
    model, columns = _peft_model(names[0], torch.bfloat16)
    for folder in _folders()[1:]:
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


# --- loading ----------------------------------------------------------------------------------------------------------


def _ours_ready() -> Mixture:
    return Mixture([read(folder) for folder in _folders()], "product", _base(torch.bfloat16).device)


def _lorahub_ready() -> Callable[[], object]:
    """What lorahub's load_base_model_and_lora_modules does once it has the base (there always an encoder-decoder)."""
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
    warnings.filterwarnings("ignore", message="You are trying to modify a model with PEFT for a second time")
    warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute in the model")
    model = _loaded(torch.float32).model

    def ready() -> dict[str, dict[str, Tensor]]:
        models = {folder.name: PeftModel.from_pretrained(model, folder) for folder in _folders()}
        # Without the question about embeddings, which would be asked of a hub over the network.
        return {name: get_peft_model_state_dict(peft, save_embedding_layers=False) for name, peft in models.items()}

    return ready


# --- cutting, searching -----------------------------------------------------------------------------------------------


class _OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH, bias=False)


def _cutting() -> tuple[float, float]:
    """The same sum of modules cut to one rank, by the factors and by PEFT's SVD of the dense delta; the results are compared."""
    torch.manual_seed(0)
    names, weights = [f"m{index}" for index in range(MODULES)], _points(1)[0]
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["layer"], init_lora_weights=False)
    model = get_peft_model(_OneLayer(), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    layer = model.base_model.model.layer
    pairs = [(layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()) for name in names]

    def ours() -> Tensor:
        stacked = Pair(
            torch.cat([a for a, _ in pairs]),
            torch.cat([2.0 * weight * b for weight, (_, b) in zip(weights, pairs, strict=True)], dim=1),
            1.0,
        )
        cut = truncate(Adapter("sum", {}, {"layer": stacked}), RANK).adapter.pairs["layer"]
        return cut.b @ cut.a

    def peer() -> Tensor:
        if "cut" in model.peft_config:
            model.delete_adapter("cut")
        model.add_weighted_adapter(names, weights, "cut", combination_type="svd", svd_rank=RANK)
        merged: Tensor = layer.get_delta_weight("cut").detach()
        return merged

    torch.testing.assert_close(ours(), peer(), rtol=1e-3, atol=1e-4)
    return _two(alternating([ours, peer], repeats=1))


class _Reached(Exception):
    pass


def _searching() -> tuple[float, float]:
    """Seconds: the median of three draws of eight examples each."""
    base = _base(torch.bfloat16)
    modules = [read(path.parent) for path in sorted((ROOT / "hub/starter/modules").glob("*/adapter_config.json"))]
    ours, peer = [], []
    for draw in range(3):
        pairs = DEMO.train[8 * draw : 8 * draw + 8]
        examples = [Example(pair.input, pair.target) for pair in pairs]
        searched = compose(base, modules, examples, Search(form="sum", template=TEMPLATE), on_progress=lambda *_: None)
        assert searched.objective is not None
        goal: float = searched.objective

        def stop(_step: int, _total: int, numbers: dict[str, float], goal: float = goal) -> None:
            if numbers.get("best", goal + 1) <= goal:
                raise _Reached

        started = time.perf_counter()
        try:
            compose_by_gradient(
                base,
                modules,
                examples,
                GradientSearch(form="sum", template=TEMPLATE, budget=200, patience=None),
                on_progress=stop,
            )
        except _Reached:
            ours.append(time.perf_counter() - started)
            peer.append(searched.seconds)
    assert len(ours) == 3, "the gradient did not reach every goal"
    return statistics.median(ours), statistics.median(peer)
