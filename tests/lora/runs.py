"""Short runs of training, folders of checkpoints that end a run, and the check that the base is as it was."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hub.lora.core.adapter import Adapter, applied, write
from hub.lora.core.bases import Base
from hub.lora.core.examples import Example
from hub.lora.core.losses import encode_batches, mean_loss
from hub.lora.train.loop import Recipe, Trained, train

KEYWORDS = {"template", "validation", "start", "checkpoints", "on_progress"}
EXAMPLES = [Example(f"say {word}", word[:2]) for word in ("alpha", "beta", "gamma", "delta", "epsilon")]


def ignore_progress(step: int, total: int, values: dict[str, float]) -> None:
    pass


def run(base: Base, examples: Sequence[Example] = EXAMPLES, **changes: Any) -> Trained:
    keywords: dict[str, Any] = {"template": "plain", "on_progress": ignore_progress}
    keywords |= {key: changes.pop(key) for key in KEYWORDS & changes.keys()}
    settings: dict[str, Any] = {"rank": 4, "alpha": 8, "steps": 6, "learning_rate": 1e-2, "ratio": 1.0, "batch_size": 3}
    return train(base, examples, Recipe(**settings | changes), **keywords)


def adapter_of(base: Base, examples: Sequence[Example] = EXAMPLES, **changes: Any) -> Adapter:
    return run(base, examples, **changes).adapter


def loss_of(base: Base, adapter: Adapter | None) -> float:
    with applied(base.model, adapter):
        return mean_loss(base, encode_batches(base, EXAMPLES, "plain"))


def digest(adapter: Adapter, folder: Path) -> str:
    write(adapter, folder, dtype=torch.float32)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()


@contextmanager
def unchanged(base: Base) -> Iterator[None]:
    """Fails if after the block the base differs in anything: weights, layers, hooks, modes, random state, what it computes."""
    tokens = torch.tensor([[1, 2, 3]], device=base.device)
    before = {key: tensor.clone() for key, tensor in base.model.state_dict().items()}
    layers = dict(base.model.named_modules())
    logits = base.model(tokens).logits
    random_state = torch.get_rng_state()
    yield
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())
    assert dict(base.model.named_modules()) == layers
    assert not any(layer._forward_hooks or layer.training for layer in layers.values())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in base.model.parameters())
    assert not hasattr(base.model, "peft_config")
    assert torch.equal(base.model(tokens).logits, logits)
    assert torch.equal(torch.get_rng_state(), random_state)


@dataclass
class CheckpointFolder:
    """Checkpoints in a folder; `killed_after` files the run is stopped."""

    folder: Path
    killed_after: int = 10**9
    seconds: float = 0.0
    saved: int = 0

    def load(self) -> Path | None:
        return self.local_path() if self.local_path().exists() else None

    def local_path(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def save(self, path: Path) -> None:
        self.saved += 1
        if self.saved == self.killed_after:
            raise Cancelled


class Cancelled(Exception):
    pass
