"""Cards: those of 0.1.0 in the words of today, and what the licences of everything that a composition was made from mean for it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hub.registry.inspection.model_card import Card, parse_card
from hub.registry.jobs.contracts.compose import ComposeManifest, ComposeParams
from hub.registry.jobs.contracts.convert import ConvertManifest, ConvertParams
from hub.registry.jobs.kinds import KINDS
from workers.results.cards import card as render
from workers.results.cards import composition_card, conversion_card


def card(base: str | None, *licences: str | None, unused: str | None = None) -> str:
    modules = [
        {"repo": f"ann/m{index}", "commit": f"{index}" * 40, "folder": "", "licence": licence}
        for index, licence in enumerate([*licences, unused])
    ]
    settings = {"form": "sum", "search": "none"}
    params: dict[str, Any] = {
        "result": "ann/woven",
        "modules": modules,
        "base": {"id": "org/base", "fingerprint": "f" * 64, "licence": base},
        "template": "plain",
        "budget": 1,
        **settings,
    }
    manifest = {
        "base": {"id": "org/base", "task_type": "CAUSAL_LM"},
        "inputs": {"modules": [{**module, "files": {}} for module in modules[: len(licences)]]},
        "device": "cpu",
        "versions": {},
        "objective": None,
        "loss": None,
        "method": "lorahub",
        "report": None,
        "settings": settings,
        "template": "plain",
        "tune": None,
        "warnings": [],
        "weights": {f"ann/m{index}": 0.5 for index in range(len(licences))},
    }
    return composition_card(ComposeParams.model_validate(params), ComposeManifest.model_validate(manifest))


def test_every_parents_licence_is_listed() -> None:
    text = card("apache-2.0", "mit", "cc-by-4.0", unused="cc-by-nc-4.0")
    for line in ("| org/base | apache-2.0 |", "| ann/m0@00000000 | mit |", "| ann/m1@11111111 | cc-by-4.0 |"):
        assert line in text.splitlines()
    assert "ann/m2" not in text, "an adapter of the pool that takes no part"
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
    assert "license" not in parse_card(of_base.encode()).front, "the adapters' own would promise too much"


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


# Jobs that the code of 0.1.0 ran, with the cards that it wrote.
OLD = Path(__file__).parents[2] / "data" / "0.1.0" / "jobs"
SOURCE = parse_card(b"---\nlicense: mit\ntags: [mine]\n---\n# Mine\n\nIt says things.\n")  # of what was converted


def in_words_of_today(card: str) -> str:
    """0.1.0 called an adapter a module. The verdict and the notes, in bold, are kept in the manifest as they were written."""
    lines = card.splitlines(keepends=True)
    return "".join(
        line if line.startswith("**") else re.sub(r"(?<!target )\bmodule(s?)\b", r"adapter\1", line) for line in lines
    )


@pytest.mark.parametrize("folder", sorted(path.parent for path in OLD.glob("*/README.md")), ids=lambda path: path.name)
def test_a_card_is_the_one_that_0_1_0_wrote(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    kind = KINDS[job["kind"]]
    assert kind.manifest is not None
    params = kind.params.model_validate(job["params"])
    manifest = kind.manifest.model_validate_json((folder / "loraloom.json").read_text())
    written = (folder / "README.md").read_text()
    if isinstance(params, ComposeParams) and isinstance(manifest, ComposeManifest):
        text = composition_card(params, manifest)
    elif isinstance(params, ConvertParams) and isinstance(manifest, ConvertManifest):
        text = conversion_card(params, manifest, SOURCE if "It says things." in written else Card())
    else:
        text = render(kind.name, params, manifest)
    assert text == in_words_of_today(written)
