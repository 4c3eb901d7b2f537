"""The peak memory of scoring a randomly initialised model of 1.1 billion parameters, in a process of its own."""

import multiprocessing
import random
import resource
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from bench.choice_tasks import larger_number
from hub.lora.core.bases import Base
from hub.lora.core.built_in import BUILT_IN_SHA256, convert_built_in
from hub.lora.reduce.gains import gains, gradients, matrices
from hub.lora.reduce.objective import batches_of
from hub.lora.reduce.scan import GRADED_ROWS
from hub.starter.tasks import TEMPLATE

ROOT = Path(__file__).parent.parent

SHAPE = LlamaConfig(  # of TinyLlama
    vocab_size=32_000,
    hidden_size=2_048,
    intermediate_size=5_632,
    num_hidden_layers=22,
    num_attention_heads=32,
    num_key_value_heads=4,
    tie_word_embeddings=False,
)


def _score_a_large_model(answers: Any) -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(SHAPE).to(torch.bfloat16)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.model.rotary_emb = type(model.model.rotary_emb)(SHAPE)  # its buffers are no parameters
    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    large = Base("random", model.eval().requires_grad_(False), tokenizer, "")
    batches = batches_of(large, [larger_number(random.Random(seed)) for seed in range(100)], TEMPLATE, GRADED_ROWS)
    for batch in batches:
        batch.input_ids.remainder_(SHAPE.vocab_size)
        batch.labels.copy_(torch.where(batch.labels < 0, batch.labels, batch.labels % SHAPE.vocab_size))
    layers = matrices(large)
    slopes = gradients(large, batches, layers)
    for path in list(layers)[:7]:  # one of each shape
        gains(layers[path].weight, slopes[path], blocks=(1,))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    answers.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024 / weights)


def peak_over_weights() -> tuple[float, None]:
    """Of a process of its own, the interpreter and torch included, over the weights' bytes."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=_score_a_large_model, args=(answers,))
    child.start()
    peak: float = answers.get()
    child.join()
    return peak, None


def base_folder() -> Path:
    return convert_built_in(ROOT / "data/bench" / BUILT_IN_SHA256[:12])
