"""What only a card can tell: training, four bits and composition on a base of the size that one trains there, and LoRA-PAR's stages.

The large base has the shape of Llama 3.2 1B but for its tokenizer, which is the built-in base's, and random weights: its rows are about
speed and memory alone. What four bits cost in loss is measured on the built-in base. Without a card there is nothing to measure.
"""

import gc
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench import compose, train
from bench.harness import Cell
from bench.train import BUILT_IN, FOLDER, KEPT, ON_CARD, PEERS, Setting, base_of, speed_cells, speeds
from hub.lora.core.bases import Base
from hub.lora.core.examples import tokenize
from hub.lora.par.grpo import Reinforcement, reinforce
from hub.lora.par.importance import layout, score
from hub.lora.par.partition import partition
from hub.lora.train.loop import Recipe
from hub.lora.train.trainable_layers import trainable_layers

LARGE = Setting(KEPT / "random-llama-1b", 30, 16)
SIZE = "random Llama of 1.07 billion parameters"


def cells() -> Sequence[Cell]:
    if not ON_CARD:
        return []
    setting = f"{SIZE}, {compose.MODULES} modules of rank {compose.RANK}, {compose.EXAMPLES} examples"
    return [
        *compose.population_cells(lambda _dtype: _large(), setting),
        *_four_bit_cells("built-in base", BUILT_IN),
        *_speed_cells(),
        *_four_bit_cells(SIZE, LARGE),
        *_stage_cells(),
    ]


@cache
def _large() -> Base:
    return base_of(_made())


@cache
def _made() -> Path:
    """The large base's folder, with the built-in one's tokenizer."""
    if not LARGE.source.exists():
        LARGE.source.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=LARGE.source.parent) as name:
            fresh = Path(name) / "base"
            small = base_of(FOLDER)
            torch.manual_seed(0)
            config = LlamaConfig(
                vocab_size=small.model.config.vocab_size,
                hidden_size=2048,
                intermediate_size=8192,
                num_hidden_layers=16,
                num_attention_heads=32,
                num_key_value_heads=8,
                max_position_embeddings=8192,
                tie_word_embeddings=True,
                bos_token_id=small.tokenizer.bos_token_id,
                eos_token_id=small.tokenizer.eos_token_id,
                pad_token_id=small.tokenizer.pad_token_id,
            )
            with torch.device("cuda"):
                LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(fresh)
            small.tokenizer.save_pretrained(fresh)
            fresh.rename(LARGE.source)
    return LARGE.source


# --- training ---------------------------------------------------------------------------------------------------------


def _speed_cells() -> list[Cell]:
    """Losses say nothing where the weights are random."""
    _made()
    peers = {name: PEERS[name] for name in ("default", "bfloat16")}
    return [cell for cell in speed_cells(LARGE, f", {SIZE}", peers) if cell.unit != "nats/token"]


def _four_bit_cells(what: str, setting: Setting) -> list[Cell]:
    names = ("ours", "ours, four bits")

    def both(key: str) -> tuple[float, float]:
        found = speeds(setting, names)
        return found["ours, four bits"][key], found["ours"][key]

    peer = "the same in bfloat16"
    cells = [
        Cell(f"{what}: training in four bits", "tokens/s", lambda: both("tokens_per_second"), peer, better="higher"),
        Cell(f"{what}: peak memory of training in four bits", "GiB", lambda: both("peak"), peer),
        Cell(
            f"{what}: memory of the base in four bits",
            "GiB",
            lambda: (_held(setting, True), _held(setting, False)),
            peer,
        ),
    ]
    if setting == BUILT_IN:
        loss = f"{what}: validation loss after {setting.steps} steps in four bits, on the base in four bits"
        cells.append(Cell(loss, "nats/token", lambda: both("loss"), peer))
    return cells


def _held(setting: Setting, four_bit: bool) -> float:
    """GiB that a base takes on the card once it is loaded."""
    gc.collect()
    before = torch.cuda.memory_allocated()
    base = base_of.__wrapped__(setting.source, four_bit=four_bit)
    held = torch.cuda.memory_allocated() - before
    del base
    return held / 2**30


# --- LoRA-PAR ---------------------------------------------------------------------------------------------------------


def _stage_cells() -> list[Cell]:
    what = f"{SIZE}, rank {train.RANK} on all linear layers"
    return [
        Cell(f"importance of an example, {what}", "s", lambda: (_stages()[0], None)),
        Cell(
            f"a step of GRPO, 4 prompts with 8 answers of 32 tokens, under a mask, {what}",
            "s",
            lambda: _stages()[1:],
            "the same without a mask",
        ),
    ]


@cache
def _stages() -> tuple[float, float, float]:
    """Seconds: an example scored; a step under a mask; a step without one. Means, the first of each left out."""
    base = _large()
    rows = [tokenize(base.tokenizer, each, "plain") for each in train.VALIDATION[:17]]
    recipe = Recipe(rank=train.RANK, alpha=2 * train.RANK, init="pissa", ratio=1.0)
    times: list[float] = []

    def now(*_: object) -> None:
        torch.cuda.synchronize()
        times.append(time.perf_counter())

    def mean_of(count: int) -> float:
        return (times[-1] - times[-1 - count]) / count

    with trainable_layers(base, recipe.shape, None, 0) as layers:
        found = layout(layers).joined(score(layers, rows, "pissa", now))
        scored = mean_of(len(rows) - 1)
        mask = partition(layout(layers), found, found, theta=0.9, alpha=1.0, beta=1.0).stage2
        steps = 6
        settings = Reinforcement(rewards={"length": 1.0}, steps=steps, prompts=4, batch_size=32, max_answer=32)
        each = []
        for chosen in (mask, None):
            reinforce(layers, train.VALIDATION, settings, template="plain", mask=chosen, on_progress=now)
            each.append(mean_of(steps - 1))
    return scored, each[0], each[1]
