"""Adapters that lie in a folder, brought into a namespace one by one: each is accepted, found unchanged, or refused with the reason."""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal
from urllib.parse import quote

from sqlalchemy import select

from hub.registry.access.viewer import Viewer
from hub.registry.content import blobs, history, repos
from hub.registry.content.blobs import Incoming
from hub.registry.inspection.findings import CONVERTIBLE
from hub.registry.inspection.folder import LOADED_PICKLES
from hub.registry.inspection.inspect import BadAdapter
from hub.registry.library import publishing
from hub.registry.models.content import Commit
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import HubError, InvalidInput, NotFound
from hub.registry.platform.services import Services
from hub.registry.platform.upstream_client import Upstream
from hub.vocabulary import Visibility

# A folder with any of these was meant to be an adapter: PEFT's files, those of MLX and diffusers, whatever else is called a LoRA.
MARK = re.compile(r"adapter_config\.json|.*(adapter|lora).*\.(safetensors|bin|pt|pth)", re.IGNORECASE)

KEPT = "It is kept as it is, not yet as an adapter: a job of the kind convert with this repo as its source writes one."


@dataclass(frozen=True)
class Imported:
    """What became of one folder. `details` are the findings of an accepted adapter or the reasons for not accepting one."""

    folder: Path
    name: str
    outcome: Literal["accepted", "unchanged", "kept", "refused"]  # kept: as a plain repo, for a conversion
    details: tuple[str, ...]


def import_tree(
    services: Services, viewer: Viewer, namespace: str, root: Path, visibility: Visibility | None = None
) -> Iterator[Imported]:
    """Publish every adapter below `root`, in the order of their paths. One that is refused stops nothing, and it may all be repeated."""
    if not root.is_dir():
        raise InvalidInput(f"{root} is not a folder; name one that holds adapters.")
    for folder in adapter_folders(root):
        yield _line(services, viewer, f"{namespace}/{repo_name(root.resolve(), folder.resolve())}", folder, visibility)


def import_bucket(
    services: Services, viewer: Viewer, namespace: str, address: str, visibility: Visibility | None = None
) -> Iterator[Imported]:
    """The same for the adapters below s3://BUCKET/PREFIX, read with this hub's own credentials, a folder at a time."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    # What begins alike is not below: s3://bucket/team is not s3://bucket/team-old.
    prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    if not bucket:
        raise InvalidInput(f"{address!r} names no bucket; write s3://BUCKET or s3://BUCKET/PREFIX.")
    keys = [PurePosixPath(key) for key in services.storage.foreign_keys(bucket, prefix) if not key.endswith("/")]
    folders = sorted({key.parent for key in keys if MARK.fullmatch(key.name)})
    if not folders:
        raise InvalidInput(f"There is no adapter below {address}.")
    root = PurePosixPath(prefix or ".")
    for folder in folders:
        name = f"{namespace}/{repo_name(root, folder, whole=bucket)}"
        with tempfile.TemporaryDirectory() as scratch:
            here = Path(scratch) / (folder.name or bucket)
            here.mkdir()
            for key in keys:
                if key.parent == folder:
                    services.storage.fetch_foreign(bucket, str(key), here / key.name)
            yield _line(services, viewer, name, here, visibility)


def import_upstream(
    services: Services, viewer: Viewer, namespace: str, address: str, visibility: Visibility | None = None
) -> Iterator[Imported]:
    """The same for hf:NAMESPACE/NAME, or hf:NAMESPACE/* for all that its token may see there, of the upstream that is configured."""
    theirs, _, wanted = address.removeprefix("hf:").partition("/")
    upstream = services.upstream
    if not upstream.url or theirs not in upstream.namespaces:
        raise InvalidInput(
            f"This hub answers for no namespace {theirs!r} of an upstream: set UPSTREAM_URL, and name it in UPSTREAM_NAMESPACES."
        )
    for name in _upstream_names(upstream, theirs) if wanted == "*" else [wanted]:
        full_name = f"{theirs}/{name}"
        try:
            told = json.loads(upstream.ask(f"/api/models/{full_name}", "").text)
            keys = [PurePosixPath(each["rfilename"]) for each in told["siblings"]]
            folders = sorted({key.parent for key in keys if MARK.fullmatch(key.name)})
            if not folders:
                yield Imported(
                    Path(full_name), f"{namespace}/{name}", "refused", ("no_files: There is no adapter in it.",)
                )
            for folder in folders:
                with tempfile.TemporaryDirectory() as scratch:
                    here = Path(scratch) / (folder.name or name)
                    here.mkdir()
                    for key in (key for key in keys if key.parent == folder):
                        file = upstream.file("model", full_name, told["sha"], str(key))
                        pieces = upstream.stream("model", full_name, str(key), file, 0, file.size)
                        with closing(pieces), (here / key.name).open("wb") as out:
                            out.writelines(pieces)
                    ours = repo_name(PurePosixPath(), PurePosixPath(name) / folder)
                    yield _line(services, viewer, f"{namespace}/{ours}", here, visibility)
        except HubError as error:
            yield Imported(Path(full_name), f"{namespace}/{name}", "refused", (f"{error.code}: {error.message}",))


def _upstream_names(upstream: Upstream, namespace: str) -> list[str]:
    names: list[str] = []
    following: str | None = f"/api/models?author={quote(namespace)}&limit=100"
    while following:
        path, _, query = following.partition("?")
        answer = upstream.ask(path, query)
        names += [str(each["id"]).partition("/")[2] for each in json.loads(answer.text)]
        following = answer.following
    return names


def _line(services: Services, viewer: Viewer, name: str, folder: Path, visibility: Visibility | None) -> Imported:
    try:
        return _imported(services, viewer, name, folder, visibility)
    except HubError as error:
        return Imported(folder, name, "refused", (f"{error.code}: {error.message}",))


def adapter_folders(root: Path) -> list[Path]:
    return sorted({path.parent for path in root.rglob("*") if MARK.fullmatch(path.name)})


def repo_name(root: PurePath, folder: PurePath, whole: str = "") -> str:
    """The path below the root as one name that every client accepts: "a/b c" is "a-b-c". The root itself goes by its own, or `whole`."""
    parts = folder.relative_to(root).parts or (root.name or whole,)
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join(parts))
    return re.sub(r"\.{2,}", ".", name).strip("-.")[:96].rstrip("-.") or "adapter"


def _imported(services: Services, viewer: Viewer, name: str, folder: Path, visibility: Visibility | None) -> Imported:
    message = f"Import of {folder.name}"
    with ExitStack() as stack:
        paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()]
        files = [blobs.hash_file(path.name, stack.enter_context(path.open("rb"))) for path in paths]
        # No loader shall come upon a pickle here; a conversion finds it by the longer name.
        names = {file.path for file in files}
        read = {name for name, better in LOADED_PICKLES.items() if name in names and better not in names}
        inert = [replace(file, path=f"{file.path}.pickle") if file.path in read else file for file in files]
        if _came_before(services, viewer, name, (files, inert)):
            return Imported(folder, name, "unchanged", ())
        try:
            done = publishing.publish_adapter(services, viewer, name, files, visibility=visibility, message=message)
        except BadAdapter as error:
            findings = error.details["findings"]
            reasons = [finding for finding in findings if finding["severity"] == "error"]
            pickled = [finding for finding in findings if finding["code"] == "inert_pickle"]
            if not {reason["code"] for reason in reasons} <= CONVERTIBLE | ({"no_adapter"} if pickled else set()):
                texts = tuple(f"{reason['code']}: {reason['message']} {reason['remedy']}" for reason in reasons)
                return Imported(folder, name, "refused", texts)
            publishing.publish_model(services, viewer, name, inert, visibility=visibility, message=message)
            texts = tuple(f"{each['code']}: {each['message']}" for each in (*reasons, *pickled))
            return Imported(folder, name, "kept", (*texts, KEPT))
    return Imported(
        folder, name, "accepted", tuple(f"{each.code}: {each.message}" for each in done.inspection.findings)
    )


def _came_before(services: Services, viewer: Viewer, name: str, ways: Sequence[Sequence[Incoming]]) -> bool:
    """Whether the repo ever had just these files. What has been repaired or converted since is not undone by importing it again."""
    trees = [history.hash_tree(publishing.entries(files)) for files in ways]
    with transaction(services.sessions) as session:
        try:
            repo = repos.find(session, viewer, "model", name)
        except NotFound:
            return False
        return (
            session.scalar(select(Commit.id).where(Commit.repo_id == repo.id, Commit.tree.in_(trees)).limit(1))
            is not None
        )
