"""A tiny model that has learnt to fill in ballots: tasks that begin with "say" are System 1, those that begin with "add" System 2."""

import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hub.lora.core.bases import Base
from hub.lora.core.examples import Example, pad, target_loss, tokenize
from hub.lora.par.voting import AGAIN, BALLOT
from hub.vocabulary import System
from tests.tiny_models import llama_of

CHAT = "{% for message in messages %}user {{ message['content'] }}{% endfor %}{% if add_generation_prompt %} assistant{% endif %}"


def task(number: int, system: System) -> Example:
    return Example(f"say {number}", f"it is {number}") if system == 1 else Example(f"add {number}", f"{number + 1}")


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word, so that ballots are short."""
    splits = pre_tokenizers.Whitespace()
    texts = [BALLOT, AGAIN, "user assistant say add it is System1 System2", " ".join(map(str, range(200)))]
    words = sorted({word for text in texts for word, _ in splits.pre_tokenize_str(text)})
    vocabulary = {word: index for index, word in enumerate(["<unk>", "<end>", "<pad>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splits
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>", unk_token="<unk>", chat_template=CHAT
    )


def trained_teacher(model_name: str, *, steps: int = 120) -> Base:
    """It plays any model; what it was taught about is `model_name`."""
    tokenizer, generator = word_tokenizer(), random.Random(0)
    with torch.random.fork_rng():
        model = llama_of(
            tokenizer,
            hidden_size=32,
            intermediate_size=64,
            num_key_value_heads=2,
            initializer_range=0.1,
            max_position_embeddings=256,
        )
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        for _ in range(steps):
            rows = []
            for system in (1, 2) * 8:
                example = task(generator.randrange(199), system)
                ballot = BALLOT.format(model=model_name, input=example.input, target=example.target)
                rows.append(tokenize(tokenizer, Example(ballot, f"System{system}"), "chat"))
            torch.autograd.backward(target_loss(model, pad(tokenizer, rows)))
            optimizer.step()
            optimizer.zero_grad()
    return Base("tests/teacher", model.eval().requires_grad_(False), tokenizer, fingerprint="2" * 64)
