"""What must start without torch does."""

import subprocess
import sys

import pytest

from hub import supervisor
from hub.registry.platform.settings import Settings

# numpy the registry needs itself, for sketches of modules.
HEAVY = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "nevergrad", "pandas", "scipy")


@pytest.mark.parametrize("module", ["api.app", "hub.web.site", "hub.registry.operations.sweep", "hub.cli"])
def test_starts_without_torch(module: str) -> None:
    program = f"import sys, {module}; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=supervisor.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_workers_parent_starts_without_torch(settings: Settings) -> None:
    """Its child imports torch after the fork: threads of OpenMP do not survive one."""
    env = {**supervisor.environment(settings), "PATH": "/usr/bin:/bin"}
    program = f"import sys, workers.app; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=supervisor.ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
