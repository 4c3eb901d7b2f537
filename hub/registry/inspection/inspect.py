"""What a tree of files is, as an adapter: facts about each PEFT folder in it, and findings about what is wrong and what to do.

Headers and configs decide. Of the weights only enough of lora_B is read to see whether all of it is zero; the weights of a sound
adapter are read once for its sketch. What PEFT does with each defect (fails, warns, or silently leaves tensors out) was tried with
PEFT 0.21, and the tests try it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hub.formats.adapter_config import CONFIG, WEIGHTS
from hub.formats.errors import FormatError, storable
from hub.formats.ranged_file import RangedFile
from hub.formats.safetensors_header import Header
from hub.formats.strict_json import load_json
from hub.registry.inspection import sketches
from hub.registry.inspection.checks import KnownBase, check, find_base
from hub.registry.inspection.facts import InspectedAdapter, describe_adapter, is_untrained
from hub.registry.inspection.findings import Finding, finding
from hub.registry.inspection.folder import (
    CARD,
    MAX_SIDECAR_BYTES,
    SIDECAR,
    Folder,
    pickle_findings,
    read_headers,
    split_folders,
)
from hub.registry.inspection.model_card import MAX_CARD_BYTES, Card, CardError, parse_card
from hub.registry.inspection.parsed_adapter import ParsedAdapter, foreign_findings, parse_adapter
from hub.registry.platform.errors import InvalidInput

_ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Inspection:
    adapters: tuple[InspectedAdapter, ...]  # the sound ones, by folder
    findings: tuple[Finding, ...]  # errors first
    sketches: Mapping[str, bytes]  # of each adapter, by folder

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(item for item in self.findings if item.severity == "error")


class BadAdapter(InvalidInput):
    """An upload that is not exactly one whole, sound adapter; `details` carries every finding."""

    code = "bad_adapter"


def inspect(files: Mapping[str, RangedFile], bases: Sequence[KnownBase]) -> Inspection:
    """Look at every folder of a tree (path -> file). Raises nothing but what the files' own `read` raises."""
    folders = split_folders(files)
    any_adapter = any(folder.holds_adapter for folder in folders.values())
    findings: list[Finding] = []
    sound: list[tuple[InspectedAdapter, ParsedAdapter]] = []
    for folder in folders.values():
        headers, errors = read_headers(folder)
        findings += errors
        if folder.holds_adapter:
            pair, errors = _inspect_folder(folder, headers, folders.get("", folder), bases)
            sound += [pair] if pair else []
            findings += errors
        elif not any_adapter:
            findings += foreign_findings(folder, headers)
        findings += pickle_findings(folder)
    return Inspection(
        adapters=tuple(facts for facts, _ in sound),
        findings=tuple(sorted(findings, key=lambda item: _ORDER[item.severity])),
        sketches={facts.folder: sketches.sketch_of(adapter) for facts, adapter in sound},
    )


def require_adapter(inspection: Inspection) -> InspectedAdapter:
    """The facts of an upload's one adapter. Raises BadAdapter unless there is exactly one, and nothing is wrong with it."""
    errors = inspection.errors or _count_errors(inspection)
    if not errors:
        return inspection.adapters[0]
    first = errors[0]
    more = f" (One of {len(errors)} errors; see the findings.)" if len(errors) > 1 else ""
    others = [item for item in inspection.findings if item.severity != "error"]
    raise BadAdapter(
        f"{first.path}: {first.message} {first.remedy}{more}".removeprefix(": "),
        reason=first.code,
        findings=[item.to_dict() for item in (*errors, *others)],
    )


def _count_errors(inspection: Inspection) -> tuple[Finding, ...]:
    """The error of a tree that holds no adapter, or several."""
    if not inspection.adapters:
        message = f"No folder of the upload holds {CONFIG} and {WEIGHTS}, so there is no PEFT adapter in it."
        pickled = next((item for item in inspection.findings if item.code == "inert_pickle"), None)
        if pickled is None:
            return (finding("no_adapter", "", message),)
        remedy = f"If {pickled.path} holds one, bring it in with hf upload and let a job of the kind convert write it."
        return (finding("no_adapter", "", message, remedy),)
    if len(inspection.adapters) > 1:
        folders = ", ".join(facts.folder or "the top folder" for facts in inspection.adapters[:5])
        message = f"The upload holds {len(inspection.adapters)} adapters ({folders}), and one is kept at a time."
        return (finding("no_adapter", "", message, "Upload each of these folders by itself."),)
    return ()


def _inspect_folder(
    folder: Folder, headers: Mapping[str, Header], top: Folder, bases: Sequence[KnownBase]
) -> tuple[tuple[InspectedAdapter, ParsedAdapter] | None, list[Finding]]:
    """The adapter in a folder with its facts, if it is sound, and the findings. `top`: whose card counts where it has none."""
    adapter, findings = parse_adapter(folder, headers)
    if adapter is None:
        return None, findings
    base = find_base(adapter.config.base_model, bases)
    findings = check(adapter, base, bases)
    zero = is_untrained(adapter)
    if zero:
        message = "Every lora_B is zero, so the adapter changes nothing."
        findings.append(finding("zero_b", adapter.weights_path, message))
    card, card_findings = _read_card(folder if CARD in folder.files else top)
    sidecar, sidecar_findings = _read_sidecar(folder)
    findings += [*card_findings, *sidecar_findings]
    if any(item.severity == "error" for item in findings):
        return None, findings
    facts = describe_adapter(adapter, base.id if base else None, card, sidecar, zero=zero)
    return (facts, adapter), findings


def _read_card(folder: Folder) -> tuple[Card, list[Finding]]:
    path = folder.at(CARD)
    if CARD not in folder.files:
        return Card(), [finding("no_card", path, "There is no model card, so nobody can tell what this is for.")]
    try:
        card = parse_card(folder.files[CARD].read(0, MAX_CARD_BYTES))
    except CardError as error:
        return Card(), [finding("bad_card", path, f"The model card could not be read: {error}.")]
    if not card.values("license"):
        return card, [finding("no_licence", path, "The model card names no licence.")]
    return card, []


def _read_sidecar(folder: Folder) -> tuple[dict[str, str], list[Finding]]:
    """Two fields of loraloom.json that facts repeat: what made the adapter, and the prompt template it was trained with."""
    if SIDECAR not in folder.files:
        return {}, []
    try:
        manifest = load_json(folder.files[SIDECAR].read(0, MAX_SIDECAR_BYTES), SIDECAR, "bad_sidecar")
    except FormatError as error:
        return {}, [finding("bad_sidecar", folder.at(SIDECAR), f"{error.fault}.")]
    fields = {name: manifest.get(name) for name in ("method", "template")}
    return {
        name: value for name, value in fields.items() if isinstance(value, str) and storable(value) and len(value) <= 40
    }, []
