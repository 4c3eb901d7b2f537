"""Stock huggingface_hub against the hub, as a user runs it: upload, download, caches, and files that come in parts."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from hub.registry.models.content import Blob, Commit, Holding
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.registry.platform.settings import Settings
from tests.api.huggingface.conftest import CLIENT_VERSION, RunClient
from tests.conftest import Person
from tests.support.files import peft_folder

SOON = datetime.now(UTC) + timedelta(days=1)


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def git_oid(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


MIXED = {
    **peft_folder(),
    "sub dir/ünïcode ☃ & 100%.txt": "Grüße".encode(),
    "sub dir/deeper/#hash?mark.json": b"{}",
    "empty": b"",
    "one": b"1",
    "odd.npy": bytes(range(251)) * 41,
    "large.txt": b"line\n" * 300_000,
}


def test_a_folder_goes_up_and_comes_down_unchanged(run_client: RunClient, tmp_path: Path) -> None:
    write(tmp_path / "adapter", MIXED)
    said = run_client("""
        import json
        from huggingface_hub import HfApi, hf_hub_download, snapshot_download
        api = HfApi()
        first = api.create_repo("ann/first")
        again = api.create_repo("ann/first", exist_ok=True)
        commit = api.upload_folder(repo_id="ann/first", folder_path="adapter", commit_message="One\\n\\nTwo")
        tree = list(api.list_repo_tree("ann/first", recursive=True))
        info = api.model_info("ann/first", files_metadata=True)
        print(json.dumps({
            "urls": [first.repo_id, again.repo_id, commit.repo_url.repo_id],
            "commit": commit.oid,
            "sha": info.sha,
            "tree": {f.path: [f.size, f.lfs.sha256 if f.lfs else f.blob_id] for f in tree if hasattr(f, "size")},
            "folders": [f.path for f in tree if not hasattr(f, "size")],
            "siblings": {f.rfilename: [f.size, f.lfs.sha256 if f.lfs else f.blob_id] for f in info.siblings},
            "snapshot": snapshot_download("ann/first"),
            "local": snapshot_download("ann/first", local_dir="down"),
            "commits": [[c.title, c.message, c.authors] for c in api.list_repo_commits("ann/first")],
        }))
    """)
    report = json.loads(next(text for text in said.splitlines() if text.startswith("{")))
    lfs = {"adapter_model.safetensors", "odd.npy", "large.txt"}
    names = {
        path: [len(data), hashlib.sha256(data).hexdigest() if path in lfs else git_oid(data)]
        for path, data in MIXED.items()
    }
    assert report["tree"] == report["siblings"] == names
    assert report["folders"] == ["sub dir", "sub dir/deeper"]
    assert report["urls"] == ["ann/first"] * 3
    assert report["sha"] == report["commit"]
    assert report["commits"] == [["One", "Two", ["ann"]], ["initial commit", "", ["ann"]]]
    for path, data in MIXED.items():
        assert (tmp_path / "down" / path).read_bytes() == data
        assert (Path(report["snapshot"]) / path).read_bytes() == data
    if CLIENT_VERSION >= (1,):  # findings are warnings of the client; older ones do not know them
        assert "tests/tiny-base is not registered here" in said


def test_what_has_not_changed_is_not_sent_again(run_client: RunClient, services: Services, tmp_path: Path) -> None:
    write(tmp_path / "adapter", MIXED)
    upload = """
        from huggingface_hub import HfApi
        api = HfApi()
        api.create_repo("ann/{0}", exist_ok=True)
        print(api.upload_folder(repo_id="ann/{0}", folder_path="adapter").oid)
    """
    first = run_client(upload.format("first")).split()[-1]
    with transaction(services.sessions) as session:
        touched = session.scalar(select(func.count()).select_from(Blob))
    again = run_client(upload.format("first"))
    assert "No files have been modified" in again
    assert first in again
    run_client(upload.format("second"))  # other repo, same namespace: LFS answers that it has the bytes
    with transaction(services.sessions) as session:
        assert session.scalar(select(func.count()).select_from(Blob)) == touched
        assert session.scalar(select(func.count()).select_from(Commit)) == 4


def test_a_second_download_asks_and_fetches_nothing(run_client: RunClient, tmp_path: Path) -> None:
    write(tmp_path / "adapter", peft_folder())
    said = run_client("""
        from huggingface_hub import HfApi, hf_hub_download, constants, try_to_load_from_cache
        from huggingface_hub.utils import EntryNotFoundError
        api = HfApi()
        api.create_repo("ann/first")
        api.upload_folder(repo_id="ann/first", folder_path="adapter")
        import huggingface_hub.file_download as download
        fetched = []
        real = download.http_get
        download.http_get = lambda url, *args, **more: (fetched.append(url), real(url, *args, **more))[1]
        one = hf_hub_download("ann/first", "adapter_model.safetensors")
        two = hf_hub_download("ann/first", "adapter_model.safetensors")
        print(len(fetched), one == two)
        try:
            hf_hub_download("ann/first", "absent.json")
        except EntryNotFoundError as error:
            print(error)
        print(try_to_load_from_cache("ann/first", "absent.json"))  # the absence is remembered with its commit
    """)
    assert "\n1 True\n" in f"\n{said}"
    assert "There is no file 'absent.json' in ann/first" in said
    assert "<object object" in said


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"lfs_part_bytes": 2**20})


@pytest.mark.parametrize("size", [2**20 + 1, 5 * 2**20, 7 * 2**20 - 3])
def test_a_large_file_comes_in_parts(
    run_client: RunClient, services: Services, ann: Person, tmp_path: Path, size: int
) -> None:
    before = list(services.storage.keys_older_than("parts/ann/", SOON))  # which other tests left in this bucket
    data = (hashlib.sha256(b"seed").digest() * (size // 32 + 1))[:size]
    write(tmp_path, {"large.bin": data})
    run_client("""
        from huggingface_hub import HfApi, hf_hub_download
        api = HfApi()
        api.create_repo("ann/first")
        api.upload_file(repo_id="ann/first", path_or_fileobj="large.bin", path_in_repo="data/large.npz")
        hf_hub_download("ann/first", "data/large.npz", local_dir="down")
    """)
    assert (tmp_path / "down/data/large.npz").read_bytes() == data
    assert list(services.storage.keys_older_than("parts/ann/", SOON)) == before
    with transaction(services.sessions) as session:
        sha256 = hashlib.sha256(data).hexdigest()
        assert session.get(Holding, ("ann", sha256)) is not None
        assert session.get_one(Blob, sha256).git_oid == git_oid(data)


def test_the_command_line(run_client: RunClient, tmp_path: Path) -> None:
    write(tmp_path / "adapter", MIXED)
    run_client(["hf", "upload", "ann/first", "adapter", "."])
    run_client(["hf", "upload", "ann/first", "adapter", ".", "--revision", "try/out"])
    run_client(["hf", "upload", "ann/rows", "adapter/one", "rows.jsonl", "--repo-type", "dataset"])
    run_client(["hf", "download", "ann/first", "--local-dir", "down"])
    run_client(["hf", "download", "ann/first", "one", "--revision", "try/out", "--local-dir", "branch"])
    run_client(["hf", "download", "ann/rows", "--repo-type", "dataset", "--local-dir", "rows"])
    assert (tmp_path / "down/large.txt").read_bytes() == MIXED["large.txt"]
    assert (tmp_path / "branch/one").read_bytes() == b"1"
    assert (tmp_path / "rows/rows.jsonl").read_bytes() == b"1"
    assert "ann" in run_client(["hf", "auth", "whoami"])


@pytest.mark.skipif(CLIENT_VERSION < (1, 10), reason="the command line of this client has none of these commands")
def test_the_command_line_about_repos(run_client: RunClient, tmp_path: Path) -> None:
    write(tmp_path / "adapter", MIXED)
    run_client(["hf", "upload", "ann/first", "adapter", "."])
    run_client(["hf", "upload", "ann/rows", "adapter/one", "rows.jsonl", "--repo-type", "dataset"])
    run_client(["hf", "download", "ann/first"])
    assert "verified" in run_client(["hf", "cache", "verify", "ann/first"]).lower()
    cached = next((tmp_path / "home/hub/models--ann--first/snapshots").glob("*/one")).resolve()
    cached.write_bytes(b"2")
    run_client(["hf", "cache", "verify", "ann/first"], fails=True)
    assert "ann/first" in run_client(["hf", "models", "ls", "--author", "ann", "--format", "json"])
    assert "ann/rows" in run_client(["hf", "repos", "ls", "--format", "json"])
    run_client(["hf", "repos", "tag", "create", "ann/first", "good"])
    assert "good" in run_client(["hf", "repos", "tag", "list", "ann/first", "--format", "json"])
    run_client(["hf", "repos", "move", "ann/first", "ann/other"])
    run_client(["hf", "repos", "settings", "ann/other", "--public"])
    run_client(["hf", "repos", "delete-files", "ann/other", "one", "sub dir/*"])
    said = run_client("""
        from huggingface_hub import HfApi
        print(sorted(HfApi(token=False).list_repo_files("ann/other")))
    """)
    assert said.strip() == str(sorted(path for path in MIXED if path != "one" and "sub dir" not in path))
    run_client(["hf", "repos", "delete", "ann/other", "--yes"])
    run_client(["hf", "download", "ann/other", "empty"], fails=True)
