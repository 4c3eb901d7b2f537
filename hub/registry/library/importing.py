"""Import adapters from a folder, a bucket or the upstream hub, one by one. A refusal names its reason; the import continues."""

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
from hub.vocabulary import RepoName, Visibility

# A folder with any of these is meant as an adapter: files of PEFT, MLX and diffusers, and other files named LoRA.
ADAPTER_FILE = re.compile(r"adapter_config\.json|.*(adapter|lora).*\.(safetensors|bin|pt|pth)", re.IGNORECASE)

KEPT = "It is kept as it is, not yet as an adapter: a job of the kind convert with this repo as its source writes one."


Outcome = Literal["accepted", "unchanged", "kept", "refused"]  # kept: as a plain repo, for a conversion


@dataclass(frozen=True)
class Imported:
    """The outcome for one folder. `details`: the findings of an accepted adapter, or the reasons for a refusal."""

    folder: Path
    name: str  # of the repo, in full
    outcome: Outcome
    details: tuple[str, ...]


@dataclass(frozen=True)
class _Importer:
    """Publishes folders of this machine as `viewer` into `namespace`."""

    services: Services
    viewer: Viewer
    namespace: str
    visibility: Visibility | None

    def import_folder(self, repo_name: str, folder: Path) -> Imported:
        """Publish one folder. A refusal is a normal outcome, not an error."""
        full_name = str(RepoName(self.namespace, repo_name))
        try:
            outcome, details = self._publish(full_name, folder)
        except HubError as error:
            return Imported(folder, full_name, "refused", (f"{error.code}: {error.message}",))
        return Imported(folder, full_name, outcome, details)

    def _publish(self, full_name: str, folder: Path) -> tuple[Outcome, tuple[str, ...]]:
        message = f"Import of {folder.name}"
        with ExitStack() as stack:
            files = _hash_files(folder, stack)
            renamed = _without_loaded_pickles(files)
            if self._published_before(full_name, (files, renamed)):
                return "unchanged", ()
            try:
                published = publishing.publish_adapter(
                    self.services, self.viewer, full_name, files, visibility=self.visibility, message=message
                )
            except BadAdapter as error:
                convertible, reasons = _judge_refusal(error)
                if not convertible:
                    return "refused", reasons
                publishing.publish_model(
                    self.services, self.viewer, full_name, renamed, visibility=self.visibility, message=message
                )
                return "kept", (*reasons, KEPT)
        return "accepted", tuple(f"{finding.code}: {finding.message}" for finding in published.inspection.findings)

    def _published_before(self, full_name: str, versions: Sequence[Sequence[Incoming]]) -> bool:
        """Whether the repo ever had exactly these files. Then importing again must not undo a later repair or conversion."""
        trees = [history.hash_tree(publishing.entries(files)) for files in versions]
        with transaction(self.services.sessions) as session:
            try:
                repo = repos.find(session, self.viewer, "model", full_name)
            except NotFound:
                return False
            same = select(Commit.id).where(Commit.repo_id == repo.id, Commit.tree.in_(trees))
            return session.scalar(same.limit(1)) is not None


def import_tree(
    services: Services, viewer: Viewer, namespace: str, root: Path, visibility: Visibility | None = None
) -> Iterator[Imported]:
    """Publish every adapter below `root`, in the order of their paths. Refusals do not stop it, and a second import adds no duplicates."""
    if not root.is_dir():
        raise InvalidInput(f"{root} is not a folder; name one that holds adapters.")
    importer = _Importer(services, viewer, namespace, visibility)
    for folder in adapter_folders(root):
        yield importer.import_folder(repo_name(root.resolve(), folder.resolve()), folder)


def import_bucket(
    services: Services, viewer: Viewer, namespace: str, address: str, visibility: Visibility | None = None
) -> Iterator[Imported]:
    """Publish every adapter below s3://BUCKET/PREFIX, read with this hub's own credentials, a folder at a time."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    # The prefix ends with a slash, so that s3://bucket/team does not match s3://bucket/team-old.
    prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    if not bucket:
        raise InvalidInput(f"{address!r} names no bucket; write s3://BUCKET or s3://BUCKET/PREFIX.")
    keys = [PurePosixPath(key) for key in services.storage.foreign_keys(bucket, prefix) if not key.endswith("/")]
    folders = _folders_of(keys)
    if not folders:
        raise InvalidInput(f"There is no adapter below {address}.")
    root = PurePosixPath(prefix or ".")
    importer = _Importer(services, viewer, namespace, visibility)
    for folder in folders:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / (folder.name or bucket)
            copy.mkdir()
            for key in keys:
                if key.parent == folder:
                    services.storage.fetch_foreign(bucket, str(key), copy / key.name)
            yield importer.import_folder(repo_name(root, folder, whole=bucket), copy)


def import_upstream(
    services: Services, viewer: Viewer, namespace: str, address: str, visibility: Visibility | None = None
) -> Iterator[Imported]:
    """Publish every adapter of hf:NAMESPACE/NAME on the configured upstream, or with hf:NAMESPACE/* of all that its token may see."""
    theirs, _, name = address.removeprefix("hf:").partition("/")
    upstream = services.upstream
    if not upstream.url or theirs not in upstream.namespaces:
        raise InvalidInput(
            f"This hub answers for no namespace {theirs!r} of an upstream: set UPSTREAM_URL, and name it in UPSTREAM_NAMESPACES."
        )
    importer = _Importer(services, viewer, namespace, visibility)
    for their_name in _upstream_names(upstream, theirs) if name == "*" else [name]:
        source = RepoName(theirs, their_name)
        try:
            yield from _import_upstream_repo(importer, upstream, source)
        except HubError as error:
            target = RepoName(namespace, their_name)
            yield Imported(Path(str(source)), str(target), "refused", (f"{error.code}: {error.message}",))


def _import_upstream_repo(importer: _Importer, upstream: Upstream, source: RepoName) -> Iterator[Imported]:
    info = json.loads(upstream.ask(f"/api/models/{source}", "").text)
    paths = [PurePosixPath(file["rfilename"]) for file in info["siblings"]]
    folders = _folders_of(paths)
    if not folders:
        target = RepoName(importer.namespace, source.name)
        yield Imported(Path(str(source)), str(target), "refused", ("no_files: There is no adapter in it.",))
    for folder in folders:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / (folder.name or source.name)
            copy.mkdir()
            for path in paths:
                if path.parent == folder:
                    _download(upstream, source, info["sha"], path, copy / path.name)
            yield importer.import_folder(repo_name(PurePosixPath(), PurePosixPath(source.name) / folder), copy)


def _download(upstream: Upstream, source: RepoName, commit: str, path: PurePosixPath, to: Path) -> None:
    file = upstream.file("model", str(source), commit, str(path))
    pieces = upstream.stream("model", str(source), str(path), file, 0, file.size)
    with closing(pieces), to.open("wb") as out:
        out.writelines(pieces)


def _upstream_names(upstream: Upstream, namespace: str) -> list[str]:
    names: list[str] = []
    following: str | None = f"/api/models?author={quote(namespace)}&limit=100"
    while following:
        path, _, query = following.partition("?")
        answer = upstream.ask(path, query)
        names += [str(repo["id"]).partition("/")[2] for repo in json.loads(answer.text)]
        following = answer.following
    return names


def adapter_folders(root: Path) -> list[Path]:
    return sorted({path.parent for path in root.rglob("*") if ADAPTER_FILE.fullmatch(path.name)})


def _folders_of(paths: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    return sorted({path.parent for path in paths if ADAPTER_FILE.fullmatch(path.name)})


def repo_name(root: PurePath, folder: PurePath, whole: str = "") -> str:
    """The path below the root as a name that every client accepts: "a/b c" -> "a-b-c". The root keeps its own name, or gets `whole`."""
    parts = folder.relative_to(root).parts or (root.name or whole,)
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join(parts))
    return re.sub(r"\.{2,}", ".", name).strip("-.")[:96].rstrip("-.") or "adapter"


def _hash_files(folder: Path, stack: ExitStack) -> list[Incoming]:
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()]
    return [blobs.hash_file(path.name, stack.enter_context(path.open("rb"))) for path in paths]


def _without_loaded_pickles(files: Sequence[Incoming]) -> list[Incoming]:
    """The same files, with ".pickle" appended to names of pickles that a loader would read. A conversion still finds them."""
    names = {file.path for file in files}
    loaded = {name for name, better in LOADED_PICKLES.items() if name in names and better not in names}
    return [replace(file, path=f"{file.path}.pickle") if file.path in loaded else file for file in files]


def _judge_refusal(error: BadAdapter) -> tuple[bool, tuple[str, ...]]:
    """Whether a job of the kind convert may turn the files into an adapter, and the reasons for the refusal."""
    findings = error.details["findings"]
    errors = [finding for finding in findings if finding["severity"] == "error"]
    pickles = [finding for finding in findings if finding["code"] == "inert_pickle"]
    acceptable = CONVERTIBLE | ({"no_adapter"} if pickles else set())
    if {finding["code"] for finding in errors} <= acceptable:
        return True, tuple(f"{finding['code']}: {finding['message']}" for finding in (*errors, *pickles))
    return False, tuple(f"{finding['code']}: {finding['message']} {finding['remedy']}" for finding in errors)
