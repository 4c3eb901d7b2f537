"""Findings: what inspection has to say about a file, each with a code, a sentence for a person, and what to do about it."""

from dataclasses import asdict, dataclass

from hub.formats.errors import FormatError
from hub.vocabulary import Severity


@dataclass(frozen=True)
class Finding:
    code: str
    severity: Severity
    path: str  # of the file in the tree
    message: str
    remedy: str

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


# What is certainly broken: no loader can read it, or it contradicts itself. The rest of the errors only say that a tree is no
# LoRA adapter that can be kept as a module, which a repository of other things may well be.
BROKEN = frozenset(
    {
        "bad_config",
        "bad_header",
        "bad_offsets",
        "bad_pattern",
        "config_not_json",
        "dora_mismatch",
        "duplicate_key",
        "header_too_large",
        "lfs_pointer",
        "not_safetensors",
        "pair_mismatch",
        "pickle_weights",
        "rank_mismatch",
        "truncated",
        "ungathered",
        "unpaired",
    }
)

# What a job of the kind convert may make an adapter of, so that a tree with no other errors is worth keeping.
CONVERTIBLE = frozenset({"diffusers_names", "loralib_names", "merged_linear", "mlx_names", "pickle_weights"})

# Findings whose remedy is such a job: these errors, and two warnings about an adapter that PEFT does load.
REMEDIED_BY_CONVERT = CONVERTIBLE | {"ignored_keys", "inert_pickle"}

_SAVE_AGAIN = "Load it where it was trained and save it again with PEFT's save_pretrained."

# code -> severity and remedy, for findings that do not come from a FormatError (those are errors and bring their own).
KNOWN: dict[str, tuple[Severity, str]] = {
    "missing_config": ("error", "Upload adapter_config.json with the weights, from the same save_pretrained."),
    "missing_weights": ("error", "Upload adapter_model.safetensors with the config, from the same save_pretrained."),
    "pickle_weights": (
        "error",
        "Upload it under a name that no loader reads (adapter_model.bin.pickle), and let a job of the kind convert write safetensors.",
    ),
    "unsupported_peft_type": ("error", "Train a LoRA adapter, or keep these files as a plain repository."),
    "merged_linear": (
        "error",
        "Bring it in with hf upload and let a job of the kind convert write each merged layer as one pair.",
    ),
    "no_lora_tensors": ("error", _SAVE_AGAIN),
    "loralib_names": (
        "error",
        "Bring it in with hf upload and let a job of the kind convert write PEFT's files; it asks for lora_alpha.",
    ),
    "mlx_names": ("error", "Bring it in with hf upload and let a job of the kind convert write PEFT's files."),
    "diffusers_names": (
        "error",
        "Keep it as a plain repository (hf upload), or let a job of the kind convert write PEFT's files for one component.",
    ),
    "kohya_names": (
        "error",
        "Keep it as a plain repository (hf upload); saved again by diffusers' save_lora_weights it can be converted here.",
    ),
    "unpaired": ("error", _SAVE_AGAIN),
    "pair_mismatch": ("error", _SAVE_AGAIN),
    "ungathered": ("error", "Gather the parameters before saving (DeepSpeed ZeRO-3 and FSDP leave empty shards)."),
    "rank_mismatch": ("error", "Upload the config and the weights of the same save_pretrained."),
    "dora_mismatch": ("error", "Upload the config and the weights of the same save_pretrained."),
    "bad_pattern": ("error", "Name fewer layers in them, plainly and without repetitions."),
    "wrong_shape": ("error", "Name the base it was trained on in base_model_name_or_path."),
    "wrong_base": ("error", "Name the base it was trained on in base_model_name_or_path."),
    "no_adapter": ("error", "Upload the folder that PEFT's save_pretrained wrote."),
    "not_in_base": ("warning", "Check that base_model_name_or_path names the base it was trained on."),
    "saved_shape": ("warning", "Resize the base's vocabulary before loading; serving engines often cannot."),
    "no_base": ("warning", "Set base_model_name_or_path to the id of the base it was trained on."),
    "local_base": (
        "warning",
        "Set base_model_name_or_path to the id under which others know it, or add the path as an alias of that base here.",
    ),
    "unknown_base": ("warning", "Register the base, or add this name as an alias of the registered one it stands for."),
    "changed_base": (
        "warning",
        "Save it with path_initial_model_for_weight_conversion, which makes it a plain LoRA of the original base.",
    ),
    "zero_b": ("warning", "Upload it after training, or check that the trained weights were the ones saved."),
    "rank_above_matrix": ("warning", "Train with a smaller rank; nothing is gained above the matrix's own."),
    "ignored_keys": ("warning", "Let a job of the kind convert give them the names that PEFT reads."),
    "untargeted": ("warning", "Add the layers to target_modules."),
    "missing_saved_modules": ("warning", _SAVE_AGAIN),
    "target_also_saved": ("warning", "Leave the name out of target_modules or out of modules_to_save."),
    "bad_card": ("warning", "Correct README.md; until then its licence and tags are not known."),
    "bad_sidecar": ("warning", "Upload loraloom.json as it was written, or leave it out."),
    "no_card": (
        "warning",
        "Add a README.md that says what the adapter does, with license, base_model and tags on top.",
    ),
    "no_licence": ("warning", "Add license: to the front matter of README.md; without one nobody else may use it."),
    "near_duplicate": ("info", "Nothing needs to be done; compare the two, and keep the one that measures better."),
    "unused_targets": ("info", "Nothing needs to be done; leave the names out next time."),
    "inert_pickle": (
        "info",
        "Nothing needs to be done, unless these are the weights: then let a job of the kind convert write safetensors.",
    ),
}


def finding(code: str, path: str, message: str, remedy: str | None = None) -> Finding:
    severity, known = KNOWN[code]
    return Finding(code, severity, path, message, remedy or known)


def format_finding(error: FormatError, path: str) -> Finding:
    remedy = error.remedy[0].upper() + error.remedy[1:]
    return Finding(error.code, "error", path, f"{error.fault}.", f"{remedy}.")
