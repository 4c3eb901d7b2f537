"""Shared by the tests of the methods: a tiny random base, adapters that real PEFT wrote for it, and the built-in base."""

import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hub.lora.core import bases
from hub.lora.core.bases import Base
from hub.lora.core.built_in import BUILT_IN_ID, BUILT_IN_SHA256, convert_built_in

MakeAdapter = Callable[..., Path]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, so that every text can be encoded and lengths can be counted by hand."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: index for index, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<|start|>", "<|end|>", "<|pad|>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", chat_template=CHAT_TEMPLATE
    )


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def likely_letters(base: Base, text: str, count: int) -> str:
    """The letters that the base, as it computes now, finds likeliest one after the other in answer to `text` (template plain).

    Letters only, because the random base's own greedy bytes are no text and would be others when read again.
    """
    letters = torch.tensor(base.tokenizer.convert_tokens_to_ids(list(LETTERS)))
    answer = ""
    with torch.inference_mode():
        for _ in range(count):
            tokens = base.tokenizer(f"{text}\nAnswer: {answer}", return_tensors="pt")["input_ids"]
            answer += LETTERS[int(base.model(tokens).logits[0, -1, letters].argmax())]
    return answer


@pytest.fixture(scope="session")
def tiny_base() -> Base:
    """A random Llama: 2 layers, hidden 32, grouped-query attention, tied embeddings; float32 on the CPU. Tests leave it unchanged."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    # As initialised (std 0.02) it answers every prompt with nearly the same distribution; larger weights make it care.
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.2)
    nn.init.constant_(model.model.norm.weight, 4.0)
    return Base("tests/tiny", model.eval().requires_grad_(False), tokenizer, fingerprint="0" * 64)


@pytest.fixture(scope="session")
def make_adapter(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> MakeAdapter:
    """make_adapter(name, seed, rank, alpha, targets, **lora_config): a folder that PEFT saved for `tiny_base`; B is not zero."""

    def make(
        name: str,
        seed: int = 0,
        rank: int = 4,
        alpha: float = 8,
        targets: str | Sequence[str] = ("q_proj", "v_proj"),
        **lora_config: Any,
    ) -> Path:
        target_modules = targets if isinstance(targets, str) else list(targets)
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=target_modules, task_type="CAUSAL_LM", **lora_config
        )
        with warnings.catch_warnings():
            # PEFT 0.21 asks a transformers 5.23 model for a property by its deprecated name.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            model = get_peft_model(copy.deepcopy(tiny_base.model), config)
        model.peft_config["default"].base_model_name_or_path = tiny_base.id
        generator = torch.Generator().manual_seed(seed)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                nn.init.normal_(parameter, std=0.2, generator=generator)
        folder = tmp_path_factory.mktemp("adapters") / name
        model.save_pretrained(folder, save_embedding_layers=False)  # "auto" would ask a hub about the base's vocabulary
        return folder

    return make


@pytest.fixture(scope="session")
def built_in_folder(pytestconfig: pytest.Config) -> Path:
    """The built-in base, converted once and kept between runs in pytest's cache."""
    return convert_built_in(pytestconfig.cache.mkdir("built-in") / BUILT_IN_SHA256[:12])


@pytest.fixture(scope="session")
def built_in(built_in_folder: Path) -> Base:
    return bases.load(built_in_folder, id=BUILT_IN_ID)
