"""Base models: loaded once, kept in memory between jobs, identified by a fingerprint of their weights."""

import gc
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hub.formats.errors import FormatError
from hub.formats.ranged_file import LocalFile
from hub.formats.safetensors_header import fingerprint
from hub.lora.core.errors import LoraError
from hub.lora.core.memory import available, check_weights, weights_bytes

DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class BaseUnreadable(LoraError):
    code = "base_unreadable"


class NeedsGpu(LoraError):
    code = "needs_gpu"


@dataclass(frozen=True)
class Base:
    """A causal or encoder-decoder language model, ready to compute: in evaluation mode, its weights without gradients."""

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
        """The task type in PEFT's terms."""
        return task_type(self.model)


def task_type(model: PreTrainedModel) -> str:
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


class WarmBases:
    """Keeps recently used bases in memory, so that the next job on one of them starts at once. `loads` counts cache misses.

    Other bases stay beside a new one only while `room` times the memory of all of them together remains free: work on
    a base needs memory too, and how much is unknown when it is loaded. Evicts the least recently used base first.
    """

    def __init__(self, room: float = 1.0) -> None:
        self.loads = 0
        self._room = room
        self._warm: dict[tuple[str, Path, torch.dtype | None, bool], Base] = {}  # the most recently used base is last

    def get(
        self,
        folder: Path,
        *,
        id: str,
        dtype: torch.dtype | None = None,
        four_bit: bool = False,
        alone: bool = False,
    ) -> Base:
        """The base, loaded on a cache miss. With `alone` all others are evicted, for work that may need all the memory."""
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
            free_memory()

    def drop(self, id: str | None = None) -> None:
        """Evict the base with this id, or all bases."""
        self._warm = {key: base for key, base in self._warm.items() if id not in (None, key[0])}
        free_memory()


def free_memory() -> None:
    """Return the memory of dropped models to the system: modules refer to each other in cycles, and torch caches CUDA memory."""
    gc.collect()
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
    """Load a causal or encoder-decoder language model and its tokenizer from safetensors. Offline; no code of the folder runs.

    Defaults of `device` and `dtype`: CUDA where there is a device, in the dtype of the files; else the CPU, in bfloat16 if the
    processor computes in it natively, in float32 otherwise. With `four_bit` its linear layers but the output are kept in NF4 with double
    quantisation (QLoRA, arXiv 2305.14314, section 3), an eighth of float32's memory. Before free memory is checked, `make_room` is called
    with the number of bytes needed and the device. Raises BaseUnreadable; NeedsGpu, as the quantised layers of bitsandbytes have no
    gradient on a CPU after inference; and NotEnoughMemory before any weight is read.
    """
    weights, digest = _weights_files(folder)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if four_bit:
        _check_four_bit(device)
    if dtype is None and device.type == "cpu":
        dtype = torch.bfloat16 if _has_native_bfloat16() else torch.float32
    needed = weights_bytes(weights, dtype, four_bit=four_bit)
    if make_room:
        make_room(needed, device)
    check_weights(needed, device)
    options = _four_bit_options(device, dtype) if four_bit else {}
    model, tokenizer = _from_pretrained(folder, dtype, options)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # only ever masked, so any token will do
    model.get_output_embeddings().register_forward_pre_hook(_contiguous)
    model = model if four_bit else model.to(device)
    return Base(id, model.eval().requires_grad_(False), tokenizer, digest)


def _weights_files(folder: Path) -> tuple[list[Path], str]:
    """The safetensors files of a base, and their fingerprint."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BaseUnreadable(f"{folder} holds no safetensors weights; save the base there with save_pretrained.")
    try:
        return weights, fingerprint(map(LocalFile, weights))
    except FormatError as error:
        raise BaseUnreadable(f"The weights in {folder} cannot be read: {error}") from error


def _check_four_bit(device: torch.device) -> None:
    if device.type != "cuda":
        raise NeedsGpu("A base in four bits needs a CUDA device, and this worker has none. Leave load_in_4bit out.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise NeedsGpu(
            "A base in four bits needs bitsandbytes, which is not installed with this worker (the extra `gpu`)."
        )


def _from_pretrained(
    folder: Path, dtype: torch.dtype | None, options: dict[str, object]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model, info = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_pretrained(
            folder,
            dtype=dtype or "auto",
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError) as error:
        raise BaseUnreadable(f"{folder} is not a language model that transformers can load: {error}") from error
    # transformers goes on with random numbers in place of weights that are missing or of another shape.
    if unfit := sorted({*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}):
        raise BaseUnreadable(
            f"{folder} does not have {len(unfit)} weights of its model in their shape, {unfit[0]} first: weights and config.json do not "
            "belong together. Save the base there again."
        )
    return model, tokenizer


def _four_bit_options(device: torch.device, dtype: torch.dtype | None) -> dict[str, object]:
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype or torch.bfloat16,
    )
    return {"quantization_config": quantised, "device_map": {"": device}}


def as_stored(base: Base) -> Base:
    """The base in the dtype of its files, loaded again on the CPU if `load` rounded the weights."""
    folder = Path(base.model.name_or_path)
    stored = AutoConfig.from_pretrained(folder, local_files_only=True).dtype or torch.float32
    if base.dtype == stored:
        return base
    return load(folder, id=base.id, device=torch.device("cpu"), dtype=stored)


def _contiguous(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    """Make the hidden states contiguous: for the strided view of each prompt's last position, matmul copies the output matrix per row."""
    return (inputs[0].contiguous(),)


def _has_native_bfloat16() -> bool:
    able = torch.cpu.get_capabilities()
    return any(able.get(feature, False) for feature in ("amx_bf16", "avx512_bf16", "bf16"))
