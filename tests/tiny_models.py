"""Tiny random models and tokenizers, built in a moment and the same every time."""

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hub.lora.core.bases import Base

Setting = int | float | bool | None

LETTERS = "abcdefghijklmnopqrstuvwxyz"
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


def llama(*, seed: int = 0, **shape: Setting) -> LlamaForCausalLM:
    """A Llama of two layers with untied embeddings, in evaluation mode; `shape` overrides fields of its config."""
    settings: dict[str, Setting] = {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**settings | shape)).eval()


def llama_of(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, **shape: Setting) -> LlamaForCausalLM:
    """A Llama with tied embeddings for the tokenizer's tokens."""
    tokens = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return llama(seed=seed, vocab_size=len(tokenizer), tie_word_embeddings=True, **tokens, **shape)


def gpt2(**shape: Setting) -> GPT2LMHeadModel:
    """A GPT-2 of two layers, whose layers are Conv1D, in evaluation mode; `shape` overrides fields of its config."""
    settings: dict[str, Setting] = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**settings | shape)).eval()


def draw_weights(model: nn.Module, std: float) -> None:
    """As initialised (std 0.02) a model answers every prompt with nearly the same distribution; larger weights make it care."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=std)


def tiny_base() -> Base:
    """A random Llama: 2 layers, hidden 32, grouped-query attention, tied embeddings; float32 on the CPU."""
    tokenizer = byte_tokenizer()
    model = llama_of(
        tokenizer,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
    )
    draw_weights(model, 0.2)
    nn.init.constant_(model.model.norm.weight, 4.0)
    return Base("tests/tiny", model.requires_grad_(False), tokenizer, fingerprint="0" * 64)


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
