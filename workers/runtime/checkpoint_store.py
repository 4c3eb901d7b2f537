"""A training run's place in storage, as hub.lora.train.loop wants it."""

from dataclasses import dataclass
from pathlib import Path

from hub.registry.jobs import checkpoints
from hub.registry.jobs.leases import Lease
from hub.registry.platform.services import Services


@dataclass(frozen=True)
class StoredCheckpoints:
    """One stage of a job: read what an earlier attempt has kept, keep what this one does."""

    services: Services
    lease: Lease
    stage: str
    folder: Path

    @property
    def seconds(self) -> float:
        return self.services.settings.checkpoint_seconds

    def local_path(self) -> Path:
        return self.folder / f"{self.stage}.safetensors"

    def load(self) -> Path | None:
        return (
            self.local_path() if checkpoints.fetch(self.services, self.lease, self.stage, self.local_path()) else None
        )

    def save(self, path: Path) -> None:
        checkpoints.keep(self.services, self.lease, self.stage, path)
