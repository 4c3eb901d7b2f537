"""A tiny model with a habit that reinforcement can change: it can say the next letters, but often says the previous ones.

System 1 is to copy two letters. System 2 is to move both to the next in the alphabet. The model learns from scratch on texts in which pairs
that begin before s mostly move on and the others mostly move back. So its likeliest answers are right for less than half of the
questions, it can give the right answer to every one, and both are known for pairs that it was not trained on.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, pad, target_loss, tokenize
from tests.tiny_models import LETTERS, byte_tokenizer, llama_of

HABIT = 0.7  # how often a letter moves its usual way


def moved(pair: str, by: int) -> str:
    return "".join(LETTERS[(LETTERS.index(letter) + by) % 26] for letter in pair)


def pairs(seed: int) -> list[str]:
    everything = [first + second for first in LETTERS for second in LETTERS]
    random.Random(seed).shuffle(everything)
    return everything


KNOWN, HELD_OUT = pairs(0)[:507], pairs(0)[507:]  # three quarters of all pairs, and the others


def fast(chosen: list[str]) -> list[Example]:
    return [Example(f"copy {pair}", pair) for pair in chosen]


def slow(chosen: list[str]) -> list[Example]:
    return [Example(f"next {pair}", moved(pair, 1)) for pair in chosen]


def _told(pair: str, generator: random.Random) -> list[Example]:
    """What the model reads of a pair of letters."""
    usual = 1 if pair[0] < "s" else -1
    way = usual if generator.random() < HABIT else -usual
    return [*fast([pair]), Example(f"next {pair}", moved(pair, way))]


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are added up in the same order however many cores there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def habitual_base(*, steps: int = 400, seed: int = 0) -> Base:
    """The model, trained on the known pairs in float32. Within `one_thread` it is the same every time."""
    tokenizer = byte_tokenizer()
    with torch.random.fork_rng():
        model = llama_of(
            tokenizer,
            seed=seed,
            hidden_size=64,
            intermediate_size=128,
            num_attention_heads=4,
            num_key_value_heads=4,
            initializer_range=0.1,  # with the usual 0.02 so small a model starts too slowly
            max_position_embeddings=128,
        )
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
        generator = random.Random(seed)
        for _ in range(steps):
            read = [example for pair in generator.sample(KNOWN, 32) for example in _told(pair, generator)]
            loss = target_loss(model, pad(tokenizer, [tokenize(tokenizer, example, "plain") for example in read]))
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return Base("tests/habitual", model.eval().requires_grad_(False), tokenizer, fingerprint="1" * 64)
