"""adapter_config.json: how PEFT computes with an adapter's tensors. The registry and the methods read it by these same rules.

Source: PEFT 0.21 (`LoraConfig`, `LoraLayer.update_layer`, `peft.utils.other.get_pattern_key`), which the tests compare with.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hub.formats.errors import FormatError, printable, storable
from hub.formats.git import refuse_pointer
from hub.formats.patterns import check_pattern, first_match
from hub.formats.strict_json import load_json

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True)
class AdapterConfig:
    """The part of adapter_config.json that says how the tensors act. Missing fields have PEFT's own defaults."""

    peft_type: str  # for any but "LORA", only the next three are read
    base_model: str | None
    revision: str | None
    task_type: str | None
    r: int
    lora_alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    use_dora: bool
    bias: str
    lora_bias: bool
    fan_in_fan_out: bool
    init_lora_weights: bool | str
    target_modules: tuple[str, ...] | str  # a string is a regular expression, and is never run here
    target_parameters: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    trainable_tokens: bool
    layer_replication: bool
    variants: tuple[str, ...]  # PEFT's names of settings under which a layer computes more than W x + scaling * B A x

    @property
    def changes_base(self) -> bool:
        """Whether training began by rewriting the base's weights, so that B @ A is not a delta of the original base."""
        init = str(self.init_lora_weights).lower()
        return init.startswith(("pissa", "corda", "olora", "loftq", "lora_ga")) or "kasa_config" in self.variants


# Each is off when null or false. `enable_lora` is the MergedLinear of PEFT before 0.3, whose lora_B is a convolution.
_VARIANTS = (
    "alora_invocation_tokens",
    "arrow_config",
    "enable_lora",
    "kasa_config",
    "monteclora_config",
    "use_bdlora",
    "use_qalora",
)


def parse_config(data: bytes) -> AdapterConfig:
    """Parse adapter_config.json; unknown keys are ignored.

    Raises FormatError with code lfs_pointer, config_not_json, duplicate_key, no_peft_type, bad_config (a
    field has the wrong type or value) or bad_pattern (see `check_pattern`).
    """
    refuse_pointer(data, "config")
    if len(data) > MAX_CONFIG_BYTES:
        raise FormatError("bad_config", f"{CONFIG} has {len(data)} bytes, and no more than {MAX_CONFIG_BYTES} are read")
    return config_from(load_json(data, CONFIG, "config_not_json"))


@dataclass(frozen=True)
class _Fields:
    """Typed access to the fields of a parsed config. Every method raises FormatError (bad_config)."""

    settings: Mapping[str, Any]

    def checked(self, name: str, default: Any, is_valid: Callable[[Any], bool], requirement: str) -> Any:
        value = self.settings.get(name)
        if value is None:  # older files spell out what they leave at its default
            return default
        if not is_valid(value):
            fault = f"{name} in {CONFIG} is {printable(json.dumps(value))}"
            raise FormatError("bad_config", fault, f"make it {requirement}")
        return value

    def flag(self, name: str) -> bool:
        return bool(self.checked(name, False, lambda value: isinstance(value, bool), "true or false"))

    def text(self, name: str) -> str | None:
        return self.checked(name, None, _is_text, "text without control characters") or None

    def names(self, name: str) -> tuple[str, ...]:
        return tuple(self.checked(name, (), _is_names, "a list of names"))

    def pattern_map(self, name: str, is_valid: Callable[[Any], bool], requirement: str) -> dict[str, Any]:
        patterns: dict[str, Any] = self.checked(name, {}, lambda value: _is_map(value, is_valid), requirement)
        return patterns


def config_from(settings: Mapping[str, Any]) -> AdapterConfig:
    """Read a config that is parsed JSON. Raises FormatError as `parse_config` does, from no_peft_type on."""
    peft_type = _Fields(settings).text("peft_type")
    if peft_type is None:
        fault = f'{CONFIG} has no "peft_type", so PEFT cannot tell what this is'
        raise FormatError("no_peft_type", fault, "save the adapter with PEFT's save_pretrained")
    if peft_type != "LORA":  # the fields of other methods have their own meanings: AdaLoRA's rank_pattern holds masks
        settings = {name: settings.get(name) for name in ("base_model_name_or_path", "revision", "task_type")}
    fields = _Fields(settings)
    ranks = fields.pattern_map("rank_pattern", _is_rank, "an object of whole numbers above 0")
    alphas = fields.pattern_map("alpha_pattern", _is_number, "an object of numbers")
    for pattern in (*ranks, *alphas):
        check_pattern(pattern)
    is_regex = isinstance(settings.get("target_modules"), str)
    return AdapterConfig(
        peft_type=peft_type,
        base_model=fields.text("base_model_name_or_path"),
        revision=fields.text("revision"),
        task_type=fields.text("task_type"),
        r=fields.checked("r", 8, _is_rank, "a whole number above 0"),
        lora_alpha=fields.checked("lora_alpha", 8, _is_number, "a number"),
        rank_pattern=ranks,
        alpha_pattern=alphas,
        use_rslora=fields.flag("use_rslora"),
        use_dora=fields.flag("use_dora"),
        bias=fields.text("bias") or "none",
        lora_bias=fields.flag("lora_bias"),
        fan_in_fan_out=fields.flag("fan_in_fan_out"),
        init_lora_weights=fields.checked("init_lora_weights", True, _is_flag_or_text, "true, false or a name"),
        target_modules=fields.text("target_modules") or () if is_regex else fields.names("target_modules"),
        target_parameters=fields.names("target_parameters"),
        modules_to_save=fields.names("modules_to_save"),
        trainable_tokens=bool(settings.get("trainable_token_indices")),
        layer_replication=bool(settings.get("layer_replication")),
        variants=tuple(name for name in _VARIANTS if settings.get(name)),
    )


def _is_rank(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and storable(value)


def _is_flag_or_text(value: Any) -> bool:
    return isinstance(value, bool) or _is_text(value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_is_text(item) for item in value)


def _is_map(value: Any, is_valid: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(_is_text(key) and is_valid(item) for key, item in value.items())


def pattern_steps(config: AdapterConfig, layers: Iterable[str]) -> int:
    """A bound on the matcher's work to look up rank and alpha of all these layers. Check it first for an uploaded config."""
    patterns = [check_pattern(key) for key in (*config.rank_pattern, *config.alpha_pattern)]
    lengths = Counter(len(layer) for layer in layers) if patterns else Counter[int]()
    return sum(pattern.steps(length) * count for length, count in lengths.items() for pattern in patterns)


def rank_of(config: AdapterConfig, layer: str) -> int:
    """The rank that PEFT gives this layer (its path inside the base): the first matching rank_pattern, or r."""
    return config.rank_pattern.get(first_match(config.rank_pattern, layer), config.r)


def alpha_of(config: AdapterConfig, layer: str) -> float:
    """The alpha that PEFT gives this layer: the first matching alpha_pattern, or lora_alpha."""
    return config.alpha_pattern.get(first_match(config.alpha_pattern, layer), config.lora_alpha)


def scaling_of(config: AdapterConfig, layer: str) -> float:
    """What PEFT multiplies B @ A by: alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732)."""
    rank = rank_of(config, layer)
    return alpha_of(config, layer) / (math.sqrt(rank) if config.use_rslora else rank)
