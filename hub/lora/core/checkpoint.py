"""Checkpoints: the state of a training run in one file, so that it resumes as if it had never stopped.

Batches and learning rates are functions of the recipe and the step. So a checkpoint holds the parameters, AdamW's moments, the random
state (of dropout) and the recorded losses. The file is safetensors, because a file from storage must not be unpickled.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hub.lora.core.errors import LoraError
from hub.vocabulary import Ending


class CheckpointMismatch(LoraError):
    code = "checkpoint_mismatch"


@dataclass
class TrainingState:
    """The history of a run up to `step`: the loss of each step, or other numbers (`curve`), and (step, loss) of each validation.

    `best_step` and `best` are step and parameters of the best validation.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    validations: list[tuple[int, float]] = field(default_factory=list)
    ending: Ending | None = None
    best_step: int | None = None
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_loss(self) -> float:
        return dict(self.validations).get(self.best_step, math.inf) if self.best_step is not None else math.inf


def save(
    path: Path,
    digest: str,
    state: TrainingState,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the checkpoint atomically. `digest` identifies the run that it belongs to."""
    tensors = {"random": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random_cuda"] = torch.cuda.get_rng_state()
    for name, parameter in parameters.items():
        tensors[f"parameter {name}"] = parameter.detach().cpu()
        for moment in ("exp_avg", "exp_avg_sq"):
            if optimizer.state[parameter]:
                tensors[f"{moment} {name}"] = optimizer.state[parameter][moment].cpu()
    tensors |= {f"best {name}": tensor for name, tensor in state.best.items()}
    record = {item.name: getattr(state, item.name) for item in fields(state) if item.name != "best"}
    fresh = path.with_suffix(".fresh")
    save_file(tensors, fresh, metadata={"digest": digest, "standing": json.dumps(record)})
    fresh.replace(path)


def load(
    path: Path, digest: str, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> TrainingState:
    """Restore parameters, moments and random state from the file. Raises CheckpointMismatch if it belongs to another run."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        if metadata.get("digest") != digest:
            raise CheckpointMismatch(
                f"{path.name} was written by a training run with another base, recipe or other examples. Start anew."
            )
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is not a mapping)
    record = json.loads(metadata["standing"])
    record["validations"] = [(step, loss) for step, loss in record["validations"]]
    state = TrainingState(**record)
    torch.set_rng_state(tensors["random"])
    if "random_cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random_cuda"])
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"parameter {name}"])
        if f"exp_avg {name}" in tensors:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(state.step)),
                "exp_avg": tensors[f"exp_avg {name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"exp_avg_sq {name}"].to(parameter.device),
            }
        if f"best {name}" in tensors:
            state.best[name] = tensors[f"best {name}"]
    return state
