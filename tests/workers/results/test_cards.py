"""Cards: the licences of everything that a composition was made from, and what they mean for it."""

from typing import Any

import pytest

from hub.registry.inspection.model_card import parse_card
from workers.results.cards import composition_card


def card(base: str | None, *licences: str | None, unused: str | None = None) -> str:
    modules = [
        {"repo": f"ann/m{index}", "commit": f"{index}" * 40, "folder": "", "licence": licence}
        for index, licence in enumerate([*licences, unused])
    ]
    params: dict[str, Any] = {"result": "ann/woven", "modules": modules, "base": {"id": "org/base", "licence": base}}
    settings = {"form": "sum", "search": "none"}
    manifest = {
        "base": {"id": "org/base", "task_type": "CAUSAL_LM"},
        "inputs": {"modules": modules[: len(licences)]},
        "method": "lorahub",
        "report": None,
        "settings": settings,
        "template": "plain",
        "tune": None,
        "warnings": [],
        "weights": {f"ann/m{index}": 0.5 for index in range(len(licences))},
    }
    return composition_card(params, manifest)


def test_every_parents_licence_is_listed() -> None:
    text = card("apache-2.0", "mit", "cc-by-4.0", unused="cc-by-nc-4.0")
    for line in ("| org/base | apache-2.0 |", "| ann/m0@00000000 | mit |", "| ann/m1@11111111 | cc-by-4.0 |"):
        assert line in text.splitlines()
    assert "ann/m2" not in text, "a module of the pool that takes no part"
    assert "Not for commercial use" not in text
    assert "Licence unknown" not in text
    assert "license" not in parse_card(text.encode()).front, "two licences are not one"


@pytest.mark.parametrize(
    "licence", ["cc-by-nc-4.0", "CC-BY-NC-SA-4.0", "fair-noncommercial-research-license", "some-non-commercial-1"]
)
def test_one_parent_that_forbids_commercial_use_is_enough(licence: str) -> None:
    text = card("apache-2.0", "mit", licence)
    (note,) = [line for line in text.splitlines() if "Not for commercial use" in line]
    assert "ann/m1" in note
    assert "ann/m0" not in note
    of_base = card(licence, "mit")
    assert "commercial use:** org/base by licence" in of_base
    assert "license" not in parse_card(of_base.encode()).front, "the modules' own would promise too much"


@pytest.mark.parametrize("licence", ["mit", "apache-2.0", "ncsa", "cc0-1.0", "openrail", "llama3", "bsd-3-clause"])
def test_these_do_not_forbid_it(licence: str) -> None:
    text = card(licence, licence)
    assert "Not for commercial use" not in text
    assert parse_card(text.encode()).front["license"] == licence


@pytest.mark.parametrize("licence", [None, "unknown", "other"])
def test_what_nobody_named_is_flagged(licence: str | None) -> None:
    text = card("mit", "mit", licence)
    (note,) = [line for line in text.splitlines() if "Licence unknown" in line]
    assert "ann/m1" in note
    assert "ann/m0" not in note
