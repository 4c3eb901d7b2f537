"""Job kind `convert`: weights that are a pickle, or have another tool's names, as a PEFT adapter. No base is loaded."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
from workers.kinds.compose import input_of
from workers.results.cards import conversion_card
from workers.runtime.work import Outcome, Work

SAID = ("alpha", "enable_lora", "component")


def run(work: Work) -> Outcome:
    params, source = work.params, work.params["source"]
    work.progress.enter("read")
    files = work.fetch(source["commit"])
    weights = files / source["path"]
    tensors, metadata = _read(weights)
    config = _config(weights.parent / CONFIG)
    work.progress.enter("convert")
    said = {name: params[name] for name in SAID if name in params}
    made = convert(tensors, config, metadata, base=params.get("base_model"), **said)
    if weights.suffix == ".safetensors" and made.config == config and made.tensors.keys() == tensors.keys():
        raise NotConvertible(
            f"{weights.name} has PEFT's names and is no pickle, so there is nothing to convert; what its config or card lack, "
            "repair writes."
        )
    save_file(made.tensors, work.out / WEIGHTS, metadata={"format": "pt"})
    (work.out / CONFIG).write_text(
        json.dumps(made.config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    manifest = _manifest(work, made, weights, said)
    (work.out / "loraloom.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (work.out / "README.md").write_text(conversion_card(params, manifest, _card(files, weights)), encoding="utf-8")
    return Outcome(
        result={key: manifest[key] for key in ("converted", "settings")},
        folder=work.out,
        parents=[Parent(source["commit"], "module")],
        message=f"Convert {source['path']} of {source['repo']}",
    )


def _read(weights: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if weights.suffix != ".safetensors":
        return read_pickle(weights), {}
    try:
        with safe_open(weights, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 (safe_open is no mapping)
    except SafetensorError as error:
        raise UnreadableAdapter(f"{weights.name} cannot be read ({error}); upload it again.") from error


def _config(path: Path) -> dict[str, Any] | None:
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


def _manifest(work: Work, made: Converted, weights: Path, said: dict[str, Any]) -> dict[str, Any]:
    params = work.params
    return {
        "method": "dora" if made.config.get("use_dora") else "lora",
        "converted": {"from": made.style, "pickle": weights.suffix != ".safetensors", "tensors": len(made.tensors)},
        "base": {"id": made.config["base_model_name_or_path"]},
        "inputs": {"source": input_of(work, params["source"])},
        "settings": {**{name: params[name] for name in ("base_model",) if name in params}, **said},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "peft", "safetensors")},
        },
    }
