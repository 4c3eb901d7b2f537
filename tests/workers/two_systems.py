"""A small job of LoRA-PAR: labelled examples of two systems, and the request."""

from typing import Any

FAST = [{"input": f"say {number}", "target": f"it is {number}", "system": 1} for number in range(24)]
SLOW = [{"input": f"add {number}", "target": f"{number + 1}", "system": 2} for number in range(12)]
HELD_OUT = [FAST[0] | {"input": "say 99", "target": "it is 99"}, SLOW[0] | {"input": "add 99", "target": "100"}]


def two_systems(**changes: Any) -> dict[str, Any]:
    """The body of a small job; `library` has registered its base."""
    body = {
        "kind": "par",
        "name": "ann/two",
        "base": "tests/tiny",
        "examples": {"inline": [*FAST, *SLOW]},
        "partition": {"sample": 6},
        "sft": {"steps": 8, "batch_size": 6, "learning_rate": 5e-3, "target_modules": ["q_proj", "down_proj"]},
        "grpo": {
            "rewards": {"length": 1.0, "exact_match": 1.0},
            "steps": 3,
            "prompts": 2,
            "generations": 4,
            "batch_size": 8,
            "max_answer": 6,
            "kl": 0.04,
        },
        "template": "plain",
    }
    return body | changes
