"""Model cards of results: Markdown that says what the adapter is, how good it is beside its controls, and how to load it."""

from collections.abc import Mapping
from typing import Any

import yaml


def composition_card(params: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The card of a composition, made from its parameters and its manifest alone."""
    licences = {pinned.get("licence") for pinned in params["modules"]}
    licence = licences.pop() if len(licences) == 1 else None
    front: dict[str, Any] = {
        "base_model": manifest["base"]["id"],
        "library_name": "peft",
        "tags": ["lora", "loraloom", "lorahub"],
        "prompt_template": manifest["template"],
    }
    if licence:
        front["license"] = licence
    settings = manifest["settings"]
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(),
        "---",
        "",
        f"# {params['result'].partition('/')[2]}",
        "",
        f"A composition of {len(manifest['weights'])} LoRA modules, form `{settings['form']}`, found by LoraHub's search "
        f"([arXiv 2307.13269](https://arxiv.org/abs/2307.13269)) on {settings['examples']} examples: "
        f"{settings['optimizer']}, {settings['budget']} evaluations, seed {settings['seed']}.",
        "",
        *_measured(manifest["report"]),
        *[f"**Note:** {warning}\n" for warning in manifest["warnings"]],
        "## Weights",
        "",
        "| module | weight |",
        "|---|---|",
        *[f"| {name} | {weight:+.3f} |" for name, weight in manifest["weights"].items()],
        "",
        "## Use",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{manifest["base"]["id"]}")',
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
        "```",
        "",
        f"Prompts were built with the `{manifest['template']}` template. `loraloom.json` pins every input by commit and hash.",
        "",
    ]
    return "\n".join(lines)


def _measured(report: Mapping[str, Any] | None) -> list[str]:
    if report is None:
        return ["Nothing was measured: no held-out examples were given.", ""]
    return [
        f"**{report['verdict']}**",
        "",
        f"On {report['held_out']} held-out examples, with 95% bootstrap intervals:",
        "",
        "| | exact match | target loss |",
        "|---|---|---|",
        *[
            f"| {arm['name'].replace('_', ' ')} | {_interval(arm['exact_match'])} | {_interval(arm['target_loss'])} |"
            for arm in report["arms"]
        ],
        "",
    ]


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
