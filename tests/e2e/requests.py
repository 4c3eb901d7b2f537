"""Requests of jobs on the starter library."""

from typing import Any

MODULES = [{"repo": f"starter/{name}"} for name in ("plurals", "past-tense", "upper-case")]


def composition(name: str, **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "kind": "compose",
        "name": name,
        "modules": MODULES,
        "examples": {"inline": [{"input": "Give the plural in capital letters: dog", "target": "DOGS"}] * 2},
        "search": "nevergrad",
        "budget": 12,
        "tune": None,
    }
    return body | changes
