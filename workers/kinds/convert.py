"""Job kind `convert`: weights that are a pickle, or have another tool's names, as a PEFT adapter. No base is loaded."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hub.formats.adapter_config import CONFIG, WEIGHTS
from hub.formats.errors import FormatError
from hub.formats.strict_json import load_json
from hub.lora.convert.convert import Converted, convert
from hub.lora.convert.errors import NotConvertible
from hub.lora.convert.read_pickle import read_pickle
from hub.lora.core.adapter import UnreadableAdapter
from hub.registry.content.history import Parent
from hub.registry.inspection.model_card import Card, CardError, parse_card
from hub.registry.jobs.contracts.common import ManifestBase, ManifestInputs
from hub.registry.jobs.contracts.convert import (
    Converted as ConvertedFiles,
)
from hub.registry.jobs.contracts.convert import (
    ConvertManifest,
    ConvertParams,
    ConvertResult,
    ConvertSettings,
)
from workers.results.cards import conversion_card
from workers.results.steps import manifest_input, write_documents
from workers.runtime.work import Outcome, Work

ConvertWork = Work[ConvertParams]


def run(work: ConvertWork) -> Outcome[ConvertResult]:
    params, source = work.params, work.params.source
    work.progress.enter("read")
    files = work.fetch(source.commit)
    weights = files / source.path
    tensors, metadata = _read(weights)
    config = _config(weights.parent / CONFIG)
    work.progress.enter("convert")
    settings = ConvertSettings.model_validate(params)
    stated = settings.model_dump(include={"alpha", "enable_lora", "component"})  # without what was left out
    made = convert(tensors, config, metadata, base=params.base_model, **stated)
    if weights.suffix == ".safetensors" and made.config == config and made.tensors.keys() == tensors.keys():
        raise NotConvertible(
            f"{weights.name} has PEFT's names and is no pickle, so there is nothing to convert; what its config or card lack, "
            "repair writes."
        )
    save_file(made.tensors, work.out / WEIGHTS, metadata={"format": "pt"})
    (work.out / CONFIG).write_text(
        json.dumps(made.config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    manifest = _manifest(work, made, weights, settings)
    write_documents(work, manifest, conversion_card(params, manifest, _card(files, weights)))
    return Outcome(
        result=ConvertResult(converted=manifest.converted, settings=settings),
        folder=work.out,
        parents=[Parent(source.commit, "module")],
        message=f"Convert {source.path} of {source.repo}",
    )


def _read(weights: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if weights.suffix != ".safetensors":
        return read_pickle(weights), {}
    try:
        with safe_open(weights, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 (safe_open is no mapping)
    except SafetensorError as error:
        raise UnreadableAdapter(f"{weights.name} cannot be read ({error}); upload it again.") from error


def _config(path: Path) -> dict[str, object] | None:
    try:
        return load_json(path.read_bytes(), path.name, "config_not_json") if path.exists() else None
    except FormatError as error:
        raise UnreadableAdapter(str(error)) from error


def _card(files: Path, weights: Path) -> Card:
    """The source's own card, that beside the weights before that of the top folder."""
    found = next((path for path in (weights.parent / "README.md", files / "README.md") if path.exists()), None)
    try:
        return parse_card(found.read_bytes()) if found else Card()
    except CardError:  # the inspection of the source says so; the weights are none the worse for it
        return Card()


def _manifest(work: ConvertWork, made: Converted, weights: Path, settings: ConvertSettings) -> ConvertManifest:
    libraries = {name: version(name) for name in ("torch", "peft", "safetensors")}
    return ConvertManifest(
        method="dora" if made.config.get("use_dora") else "lora",
        converted=ConvertedFiles(style=made.style, pickle=weights.suffix != ".safetensors", tensors=len(made.tensors)),
        base=ManifestBase(id=made.config["base_model_name_or_path"]),
        inputs=ManifestInputs(source=manifest_input(work, work.params.source)),
        settings=settings,
        versions={"python": platform.python_version(), **libraries},
    )
