"""Importing a folder of adapters: one line each, nothing stops it, and it may be repeated."""

from pathlib import Path

import pytest

from hub.registry.content import repos
from hub.registry.library import importing, repair
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput, NotFound
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import peft_folder


def laid_out(root: Path, folders: dict[str, dict[str, bytes]]) -> Path:
    for name, files in folders.items():
        (root / name).mkdir(parents=True)
        for path, data in files.items():
            (root / name / path).write_bytes(data)
    return root


@pytest.fixture
def library(tmp_path: Path) -> Path:
    broken = peft_folder(seed=3)
    broken["adapter_model.safetensors"] = broken["adapter_model.safetensors"][:-20]
    pickled = {"adapter_config.json": peft_folder()["adapter_config.json"], "adapter_model.bin": b"\x80\x04."}
    folders = {"a": peft_folder(), "deep/b c": peft_folder(seed=2), "broken": broken, "pickled": pickled, "notes": {}}
    return laid_out(tmp_path / "library", folders)


def lines(services: Services, person: Person, root: Path) -> dict[str, importing.Imported]:
    return {each.name: each for each in importing.import_tree(services, person.viewer, person.name, root)}


def test_each_adapter_gets_a_line_and_none_stops_the_others(services: Services, ann: Person, library: Path) -> None:
    found = lines(services, ann, library)
    assert {name: each.outcome for name, each in found.items()} == {
        "ann/a": "accepted",
        "ann/broken": "refused",
        "ann/deep-b-c": "accepted",
        "ann/pickled": "kept",
    }
    assert [detail.partition(":")[0] for detail in found["ann/broken"].details] == ["truncated"]
    assert [detail.partition(":")[0] for detail in found["ann/pickled"].details[:-1]] == ["pickle_weights"]
    with transaction(services.sessions) as session:
        repo = repos.find(session, ann.viewer, "model", "ann/pickled")
        names = {entry.path for entry in repos.files(session, repos.resolve(session, repo))}
    assert names == {"adapter_config.json", "adapter_model.bin.pickle"}, "no loader comes upon it"
    assert "unknown_base" in {detail.partition(":")[0] for detail in found["ann/a"].details}


def test_repeating_it_changes_only_what_has_changed(services: Services, ann: Person, library: Path) -> None:
    lines(services, ann, library)
    (library / "a" / "README.md").write_text("---\nlicense: mit\n---\nNew.\n")
    found = lines(services, ann, library)
    outcomes = [found[f"ann/{name}"].outcome for name in ("a", "deep-b-c", "pickled")]
    assert outcomes == ["accepted", "unchanged", "unchanged"]


def test_what_was_done_since_is_not_undone(services: Services, ann: Person, library: Path) -> None:
    lines(services, ann, library)
    repaired = repair.repair(services, ann.viewer, "ann/a", base=None, licence="mit").commit
    assert lines(services, ann, library)["ann/a"].outcome == "unchanged"
    with transaction(services.sessions) as session:
        assert repos.resolve(session, repos.find(session, ann.viewer, "model", "ann/a")).id == repaired


def test_who_may_not_write_there_is_refused_each_time(
    services: Services, ann: Person, bob: Person, library: Path
) -> None:
    found = list(importing.import_tree(services, bob.viewer, "ann", library))
    assert {each.outcome for each in found} == {"refused"}
    assert all(each.details[0].startswith("forbidden") for each in found)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("x/y", "x-y"), ("über 7", "ber-7"), ("a..b", "a.b"), ("-x-", "x"), ("n" * 120, "n" * 96), ("ü", "adapter")],
)
def test_names_are_those_that_clients_accept(tmp_path: Path, folder: str, name: str) -> None:
    assert importing.repo_name(tmp_path, tmp_path / folder) == name


def test_the_folder_must_be_there(services: Services, ann: Person, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a folder"):
        list(importing.import_tree(services, ann.viewer, "ann", tmp_path / "absent"))


def stored(services: Services, root: Path, prefix: str) -> None:
    """The same files in S3, in the bucket that there is."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(root).as_posix()}"
            with path.open("rb") as file:
                services.storage.put_stream(key, file, path.stat().st_size)


def test_a_bucket_is_imported_as_a_folder_is(services: Services, ann: Person, library: Path) -> None:
    place = f"there-{services.settings.broker_prefix.strip(':')}"
    stored(services, library, place)
    stored(services, library / "a", f"{place}-alike")  # begins alike, and is another folder

    def lines_of(address: str) -> dict[str, importing.Imported]:
        return {each.name: each for each in importing.import_bucket(services, ann.viewer, "ann", address)}

    address = f"s3://{services.storage.bucket}/{place}"
    found, again = lines_of(address), lines_of(f"{address}/")
    outcomes = {"ann/a": "accepted", "ann/broken": "refused", "ann/deep-b-c": "accepted", "ann/pickled": "kept"}
    assert {name: each.outcome for name, each in found.items()} == outcomes
    assert [detail.partition(":")[0] for detail in found["ann/broken"].details] == ["truncated"]
    assert {each.outcome for each in again.values()} == {"unchanged", "refused"}
    (alone,) = lines_of(f"{address}/deep/b c").values()
    assert (alone.name, alone.outcome) == ("ann/b-c", "accepted")


@pytest.mark.parametrize("address", ["s3://", "s3:///x", "s3://no-such-bucket-here/x", "s3://BUCKET/no-such-prefix"])
def test_what_cannot_be_imported_from_s3_is_said(services: Services, ann: Person, address: str) -> None:
    there = address.replace("BUCKET", services.storage.bucket)
    with pytest.raises((InvalidInput, NotFound), match=r"names no bucket|cannot be listed|no adapter below"):
        list(importing.import_bucket(services, ann.viewer, "ann", there))
