"""Train the starter library again: `python -m hub.starter.train [NAME ...] --out DIR`.

One LoRA a task of hub.starter.tasks, on the built-in base, all with the same recipe and a fixed seed; each is measured on its task's
held-out examples beside the base alone, and its card says so. May be interrupted: finished adapters are kept and not trained again.
On the same kind of device, thread count and versions the files come out the same, byte by byte.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from hub.formats.report import Estimate
from hub.lora.core.adapter import read, write
from hub.lora.core.bases import Base, load
from hub.lora.core.built_in import BUILT_IN_ID, convert_built_in
from hub.lora.core.evaluate import Scores, evaluate
from hub.lora.core.examples import Example
from hub.lora.core.provenance import surroundings
from hub.lora.train.loop import Recipe, train
from hub.starter.tasks import TASKS, TEMPLATE, Task, TextPair

RECIPE: dict[str, Any] = {
    "rank": 8,
    "alpha": 16,
    "target_modules": ["q_proj", "v_proj"],
    "steps": 160,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "seed": 0,
}
DATASET = "starter/{}-data"


def examples(pairs: tuple[TextPair, ...]) -> list[Example]:
    return [Example(pair.input, pair.target) for pair in pairs]


def make(base: Base, task: Task, folder: Path) -> None:
    """Train and measure one adapter; `folder` appears when it is complete."""
    seen = examples(task.train)
    trained = train(
        base,
        seen,
        Recipe(**RECIPE),
        template=TEMPLATE,
        on_progress=lambda step, steps, numbers: (
            print(f"  {task.name} {step}/{steps} loss {numbers['loss']:.3f}", flush=True) if step % 50 == 0 else None
        ),
    )
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        fresh = Path(scratch) / task.name
        write(trained.adapter, fresh, dtype=torch.bfloat16)
        measured = {"base": score(base, task, None), "module": score(base, task, fresh)}
        (fresh / "loraloom.json").write_text(json.dumps(manifest(base, task, measured), indent=1) + "\n")
        (fresh / "README.md").write_text(card(task, measured))
        fresh.rename(folder)
    for name, scores in measured.items():
        print(f"  {task.name} {name}: exact match {interval(scores.estimates['exact_match'])}", flush=True)


def score(base: Base, task: Task, folder: Path | None) -> Scores:
    """On the held-out examples, as the adapter was written, so that the rounding to bfloat16 is in the figures."""
    return evaluate(
        base,
        read(folder) if folder else None,
        examples(task.held_out),
        template=TEMPLATE,
        metrics=("exact_match", "target_loss"),
        on_progress=lambda *_: None,
    )


def manifest(base: Base, task: Task, measured: dict[str, Scores]) -> dict[str, object]:
    return {
        "method": "loraplus",
        "template": TEMPLATE,
        **asdict(surroundings(base)),
        "task": {"name": task.name, "train": len(task.train), "held_out": len(task.held_out)},
        "settings": {**RECIPE, "ratio": Recipe(**RECIPE).rate_ratio},
        "metrics": {
            name: {metric: vars(estimate) for metric, estimate in scores.estimates.items()}
            for name, scores in measured.items()
        },
    }


def card(task: Task, measured: dict[str, Scores]) -> str:
    front = {
        "base_model": BUILT_IN_ID,
        "datasets": [DATASET.format(task.name)],
        "library_name": "peft",
        "license": "apache-2.0",
        "prompt_template": TEMPLATE,
        "tags": ["lora", "loraloom", "starter"],
    }
    shown = task.held_out[0]
    rows = [
        f"| {name} | {interval(scores.estimates['exact_match'])} | {interval(scores.estimates['target_loss'])} |"
        for name, scores in measured.items()
    ]
    return "\n".join(
        [
            "---",
            yaml.safe_dump(front, sort_keys=True).strip(),
            "---",
            "",
            f"# {task.name}",
            "",
            f"{task.title.capitalize()}: `{shown.input}` gives `{shown.target}`. A LoRA of rank {RECIPE['rank']} on the "
            f"query and value projections, trained on {len(task.train)} generated examples for {RECIPE['steps']} steps "
            "(`python -m hub.starter.train` makes it again).",
            "",
            f"On {len(task.held_out)} held-out examples, with 95% intervals:",
            "",
            "| | exact match | target loss (nats per token) |",
            "|---|---|---|",
            *rows,
            "",
            f"Prompts use the `{TEMPLATE}` template: the input, a line break, `Answer:`; the answer follows after a space.",
            "",
        ]
    )


def interval(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hub.starter.train", description="Train the starter library again.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these tasks")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "modules", help="where the adapters go")
    parser.add_argument("--base", type=Path, default=Path("data/cache/bases/built-in"), help="the converted base")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    base = load(convert_built_in(args.base), id=BUILT_IN_ID)
    for task in TASKS:
        folder = args.out / task.name
        if folder.exists() or (args.names and task.name not in args.names):
            continue
        print(f"training {task.name}: {task.title}", flush=True)
        make(base, task, folder)
    total = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
