"""Repair: a new commit that adds what an adapter's files lack: its base's id, its licence, a card. The weights stay as they are."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import yaml

from hub.formats.adapter_config import CONFIG, MAX_CONFIG_BYTES
from hub.formats.errors import FormatError
from hub.formats.ranged_file import RangedFile
from hub.formats.strict_json import load_json
from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.content import blobs, commits, refs, repos
from hub.registry.content.blobs import Incoming
from hub.registry.inspection.checks import KnownBase
from hub.registry.inspection.facts import InspectedAdapter
from hub.registry.inspection.folder import CARD
from hub.registry.inspection.inspect import BadAdapter, inspect
from hub.registry.inspection.model_card import MAX_CARD_BYTES, CardError, parse_card
from hub.registry.library.publishing import entries
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import Conflict, InvalidInput
from hub.registry.platform.services import Services
from hub.vocabulary import MAIN

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,59}")


class NothingToRepair(Conflict):
    code = "nothing_to_repair"


class NotRepairable(InvalidInput):
    """The file cannot be changed without guessing."""

    code = "not_repairable"


@dataclass(frozen=True)
class Repaired:
    commit: str
    version: str | None
    files: list[str]  # that were written
    done: list[str]  # a sentence each


def repair(
    services: Services, viewer: Viewer, full_name: str, *, folder: str = "", base: str | None, licence: str | None
) -> Repaired:
    """Write the registered base's id for the name in the config, or for `base`; the licence; and a card where there is none.

    Raises BaseNotFound, NotRepairable, BadAdapter if it would not be sound on that base, NothingToRepair, HeadMoved.
    """
    with transaction(services.sessions) as session:
        repo = refs.writable(session, viewer, "model", full_name).repo
        head = repos.resolve(session, repo, MAIN)
        names, known = base_models.names(session), base_models.known(session)
        files = repos.stored_files(session, services.storage, head)
        if base is not None:
            base = base_models.find(session, base).id
    at = f"{folder}/" if folder else ""
    changes: list[_Change] = []
    with ExitStack() as stack:
        if (change := _with_base(files, at + CONFIG, names, base)) is not None:
            changes.append(change)
        adapter = _inspect_changed(stack, files, changes, known, folder)
        card = at + CARD if at + CARD in files or CARD not in files else CARD
        if (change := _with_card(files.get(card), card, adapter, full_name, licence)) is not None:
            changes.append(change)
        if not changes:
            raise NothingToRepair(f"{full_name} says all of this already; name a base or a licence to change it.")
        sent = [_incoming(stack, change) for change in changes]
        done = [change.sentence for change in changes]
        request = commits.Request(
            "Repair: " + "; ".join(done), [commits.Inline(entry) for entry in entries(sent)], parent=head.id
        )
        repaired = commits.commit(services, viewer, "model", full_name, MAIN, request, sent).commit
    with transaction(services.sessions) as session:
        return Repaired(repaired.id, repos.version_of(session, repaired), [change.path for change in changes], done)


@dataclass(frozen=True)
class _Change:
    """A file to write, and the sentence that says what changed in it."""

    path: str
    data: bytes
    sentence: str


def _inspect_changed(
    stack: ExitStack,
    files: Mapping[str, RangedFile],
    changes: Sequence[_Change],
    known: Sequence[KnownBase],
    folder: str,
) -> InspectedAdapter:
    """The adapter of the folder after the changes. Raises BadAdapter if it would not be sound."""
    inspection = inspect({**files, **{change.path: _incoming(stack, change) for change in changes}}, known)
    adapter = next((adapter for adapter in inspection.adapters if adapter.folder == folder), None)
    if adapter is None:
        errors = [finding.to_dict() for finding in inspection.errors]
        reason = errors[0]["code"] if errors else "no_adapter"
        message = errors[0]["message"] if errors else f"There is no adapter in {folder or 'the top folder'!r}."
        raise BadAdapter(f"The result would not be a sound adapter. {message}", reason=reason, findings=errors)
    return adapter


def _incoming(stack: ExitStack, change: _Change) -> Incoming:
    return blobs.hash_file(change.path, stack.enter_context(io.BytesIO(change.data)))


def _with_base(
    files: Mapping[str, RangedFile], path: str, names: Mapping[str, str], base: str | None
) -> _Change | None:
    """The config with the registered base's id, if it says another name."""
    if path not in files:
        raise NotRepairable(f"There is no {path}; upload it with the weights, from the same save_pretrained.")
    try:
        config = load_json(files[path].read(0, MAX_CONFIG_BYTES + 1), path, "config_not_json")
    except FormatError as error:
        raise NotRepairable(f"{path}: {error}") from error
    current = config.get("base_model_name_or_path")
    base_name = base or names.get(current if isinstance(current, str) else "")
    if base_name is None or base_name == current:
        return None
    config["base_model_name_or_path"] = base_name
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    return _Change(path, text.encode(), f"base model {base_name} in the place of {current or 'none'}")


def _with_card(
    file: RangedFile | None, path: str, facts: InspectedAdapter, full_name: str, licence: str | None
) -> _Change | None:
    """The card with the licence, or a card where there is none."""
    if licence is not None and not LICENCE.fullmatch(licence):
        raise InvalidInput(
            f"{licence[:60]!r} is not a licence identifier; write one such as apache-2.0 or cc-by-nc-4.0."
        )
    if file is None:
        sentence = "a card" + (f" with the licence {licence}" if licence else "")
        return _Change(path, _new_card(facts, full_name, licence), sentence)
    if licence is None:
        return None
    data = file.read(0, MAX_CARD_BYTES + 1)
    try:
        card = parse_card(data)
        if card.values("license") == [licence]:
            return None
        text = data.decode().replace("\r\n", "\n")
        changed = _licensed(text, licence).encode()
        after = parse_card(changed)
    except (CardError, UnicodeDecodeError) as error:
        raise NotRepairable(f"The card cannot be read ({error}); correct README.md by hand first.") from error
    others = {key: value for key, value in card.front.items() if key != "license"}
    if len(data) > MAX_CARD_BYTES or after.front != {**others, "license": licence} or after.text != card.text:
        raise NotRepairable("The licence could not be written without changing more of README.md; write it by hand.")
    before = ", ".join(card.values("license")) or "none"
    return _Change(path, changed, f"licence {licence} in the place of {before}")


def _licensed(text: str, licence: str) -> str:
    """The card's text with this licence; everything else of its front matter stays as it was written, comments too."""
    if not text.startswith("---\n"):
        return f"---\nlicense: {licence}\n---\n{text}"
    front, _, body = text[4:].partition("\n---")
    if text[4:].startswith("---"):
        front, body = "", text[7:]
    # The old value may be a list on the lines that follow, each indented or an item.
    old = re.compile(r"^license[ \t]*:.*\n(?:(?:[ \t]+\S|-[ \t]).*\n)*", re.MULTILINE)
    other_lines = old.sub("", f"{front}\n" if front else "")
    return f"---\n{other_lines}license: {licence}\n---{body}"


def _new_card(facts: InspectedAdapter, full_name: str, licence: str | None) -> bytes:
    front: dict[str, str | list[str]] = {"library_name": "peft", "tags": ["lora"]}
    if facts.base_model:
        front["base_model"] = facts.base_model
    if licence:
        front["license"] = licence
    ranks, alphas = (", ".join(f"{value:g}" for value in values) for values in (facts.ranks, facts.alphas))
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(),
        "---",
        f"# {full_name.partition('/')[2]}",
        "",
        f"A LoRA adapter of {facts.base_model or 'a base that it does not name'}: rank {ranks}, alpha {alphas}, "
        f"on {', '.join(facts.target_modules)}, {facts.parameters:,} parameters in {facts.dtype}.",
        "",
        "This card was written from the files alone. What the adapter is for, and what it was trained on, nobody has said yet.",
        "",
    ]
    return "\n".join(lines).encode()
