"""A client of the upstream hub, whose repos this hub serves in namespaces that the operator lists, and caches by commit.

A request to the upstream is one of the Hub's protocol about one repo, sent to the configured address with the upstream's own token, which
goes to no other host. The caller's token is not sent. Bytes and answers pass through this hub; no client is redirected to the upstream.
"""

import hashlib
import json
import logging
import re
import threading
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from queue import SimpleQueue
from typing import Any
from urllib.parse import quote, unquote

import httpx2 as httpx

from hub.formats.git import blob_hasher
from hub.registry.platform.errors import FileNotInRepo, HubError, NotFound, RepoNotFound, RevisionNotFound, Unavailable
from hub.registry.platform.settings import Settings
from hub.registry.platform.storage import CHUNK, MAX_OBJECT_BYTES, Storage
from hub.registry.platform.streams import VerifiedStream
from hub.vocabulary import COMMIT_ID, GIT_OID, SHA256, RepoType

log = logging.getLogger(__name__)

KEPT = "upstream/"
REVISION = 6  # which piece of /api/models/{namespace}/{name}/tree/{revision} and its like
MAX_ANSWER_BYTES = 64 << 20
MAX_SMALL_BYTES = 16 << 20  # of a file that is no LFS file; the Hugging Face Hub has none above 10 MB
AHEAD = 8  # pieces of a file that its reader may be ahead of S3
HOPS = 3


@dataclass(frozen=True)
class File:
    """A file of the upstream: `etag` is the SHA-256 of one for LFS, git's blob id of another."""

    commit: str
    etag: str
    size: int

    def check(self, seen: int, sha256: str, git_oid: str) -> None:
        """Raise Unavailable unless the bytes received have the announced size and hash. ETags of other kinds are not checked."""
        wrong_hash = (SHA256.fullmatch(self.etag) and sha256 != self.etag) or (
            GIT_OID.fullmatch(self.etag) and git_oid != self.etag
        )
        if seen != self.size or wrong_hash:
            raise Unavailable("The upstream hub sent other bytes than it announced; try again later.")


@dataclass(frozen=True)
class Answer:
    """A JSON answer of the upstream, and path and query of the next page, if there is one."""

    text: str
    following: str | None


class Upstream:
    """Another hub. Its connection is opened when it is first needed; without storage nothing is cached."""

    def __init__(self, settings: Settings, storage: Storage | None) -> None:
        self.namespaces = frozenset(settings.upstream_namespaces.split())
        self.url = str(httpx.URL(settings.upstream_url or "")).rstrip("/")
        self._settings = settings
        self._storage = storage

    def with_token(self, token: str | None) -> "Upstream":
        """The same hub with another token, if one is given. Nothing is cached, as others here may not read what the token may read."""
        token = token or self._settings.upstream_token
        return Upstream(self._settings.model_copy(update={"upstream_token": token}), None)

    @cached_property  # to load the certificates of all authorities takes a tenth of a second, which most processes need not spend
    def _client(self) -> httpx.Client:
        secret = self._settings.upstream_token
        token = {"Authorization": f"Bearer {secret}"} if secret else {}
        # httpx leaves the token out where a redirect leads to another host. A .netrc could name secrets for such hosts: hence no trust_env.
        return httpx.Client(headers={"User-Agent": "loraloom", **token}, timeout=30, trust_env=False)

    def close(self) -> None:
        if "_client" in vars(self):
            self._client.close()

    def ask(self, path: str, query: str, form: bytes = b"") -> Answer:
        """GET an address of a repo, or POST a form to it. Answers about a commit are cached, as they cannot change.

        Raises RepoNotFound, RevisionNotFound, FileNotInRepo, Unavailable.
        """
        pieces = [unquote(piece) for piece in path.split("/")]
        address = f"{_safe(pieces)}{'?' if query else ''}{query}"
        lasting = len(pieces) > REVISION and COMMIT_ID.fullmatch(pieces[REVISION])
        key = f"{KEPT}answers/{_digest(address.encode(), form)}"
        if lasting and (kept := self._kept(key)):
            return Answer(**kept)
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        request = self._client.build_request(
            "POST" if form else "GET", f"{self.url}{address}", headers=kind, content=form
        )
        response, content = self._send(request)
        try:
            text = json.dumps(_without_xet(json.loads(content)), allow_nan=False)
        except (ValueError, RecursionError):  # also where it redirects the question to another host
            raise Unavailable("The upstream hub answers with something else than JSON; try again later.") from None
        answer = Answer(text, self._following(response))
        if lasting:
            self._keep(key, asdict(answer))
        return answer

    def file(self, repo_type: RepoType, full_name: str, revision: str, path: str) -> File:
        """A file's commit, ETag and size, cached if `revision` is a commit. Raises as `ask` does."""
        address = _resolve(repo_type, full_name, revision, path)
        key = f"{KEPT}files/{_digest(address.encode())}"
        lasting = COMMIT_ID.fullmatch(revision)
        if lasting and (kept := self._kept(key)):
            return File(**kept)
        request = self._client.build_request("HEAD", f"{self.url}{address}", headers={"Accept-Encoding": "identity"})
        headers: Mapping[str, str] = self._send(request)[0].headers
        etag = (headers.get("X-Linked-ETag") or headers.get("ETag", "")).removeprefix("W/").strip('"')
        size = headers.get("X-Linked-Size") or headers.get("Content-Length", "")
        commit = headers.get("X-Repo-Commit", "")
        if not COMMIT_ID.fullmatch(commit) or not re.fullmatch(r"[!-~]+", etag) or not re.fullmatch(r"\d{1,18}", size):
            raise Unavailable(f"The upstream hub does not say what {path!r} of {full_name} is; try again later.")
        file = File(commit, etag, int(size))
        if lasting:
            self._keep(key, asdict(file))
        return file

    def stream(
        self, repo_type: RepoType, full_name: str, path: str, file: File, start: int, end: int
    ) -> Generator[bytes]:
        """Bytes start to end (exclusive). A whole file is cached as it passes; a part is taken from the cache or only passes.

        The first piece has arrived when this returns, so that an upstream that does not answer raises instead of giving a short file.
        """
        if start >= end:
            return _begun(b"", ())
        address = _resolve(repo_type, full_name, file.commit, path)
        key = f"{KEPT}bytes/{_digest(address.encode(), f'{file.etag} {file.size}'.encode())}"
        if self._storage is not None:
            with suppress(NotFound):
                return self._storage.stream_key(key, start, end)
        whole = (start, end) == (0, file.size)
        pieces = self._fetched(address, {} if whole else {"Range": f"bytes={start}-{end - 1}"})
        if whole:
            pieces = _checked(file, pieces)
        if whole and self._storage is not None:
            if SHA256.fullmatch(file.etag) and file.size <= MAX_OBJECT_BYTES:
                pieces = _keeping(self._storage, key, file, pieces)
            elif file.size <= MAX_SMALL_BYTES:
                pieces = _begun(_kept_whole(self._storage, key, b"".join(pieces)), ())
        return _begun(next(pieces, b""), pieces)

    def _fetched(self, address: str, byte_range: dict[str, str]) -> Generator[bytes]:
        headers = {"Accept-Encoding": "identity", **byte_range}
        try:
            with self._client.stream("GET", f"{self.url}{address}", headers=headers, follow_redirects=True) as response:
                if response.status_code != (206 if byte_range else 200):
                    raise Unavailable(f"The upstream hub answers {response.status_code} instead of a file.")
                yield from response.iter_bytes(CHUNK)
        except httpx.RequestError as error:
            raise Unavailable(f"The upstream hub does not answer: {type(error).__name__}.") from None

    def _send(self, request: httpx.Request) -> tuple[httpx.Response, bytes]:
        """The response and its body, after redirects within the upstream (a renamed repo). A redirect to another host is the answer."""
        for _ in range(HOPS):
            try:
                with closing(self._client.send(request, stream=True)) as response:
                    content = _content(response)
            except httpx.RequestError as error:
                raise Unavailable(f"The upstream hub does not answer: {type(error).__name__}.") from None
            there = response.next_request
            if there is None or not str(there.url).startswith(f"{self.url}/"):
                break
            request = there
        _check(response)
        return response, content

    def _following(self, response: httpx.Response) -> str | None:
        """The next page's path and query. Its host does not matter: the caller asks this hub, and this hub the configured address."""
        link = response.links.get("next", {}).get("url")
        if link is None:
            return None
        try:
            there = response.url.join(link).raw_path.decode("ascii")
        except httpx.InvalidURL:
            there = ""
        root = httpx.URL(f"{self.url}/").path
        # What does not begin with a slash could change our own host in the caller's eyes.
        if not there.startswith(root):
            raise Unavailable("The upstream hub names no address for the next page that can be read; try again later.")
        return f"/{there.removeprefix(root)}"

    def _kept(self, key: str) -> Any:
        if self._storage is None:
            return None
        try:
            return json.loads(b"".join(self._storage.stream_key(key)))
        except NotFound:
            return None

    def _keep(self, key: str, value: Any) -> None:
        if self._storage is not None:
            data = json.dumps(value).encode()
            self._storage.put_stream(key, BytesIO(data), len(data))


def _resolve(repo_type: RepoType, full_name: str, revision: str, path: str) -> str:
    prefix = ["datasets"] if repo_type == "dataset" else []
    return _safe(["", *prefix, *full_name.split("/"), "resolve", revision, *path.split("/")])


def _safe(pieces: list[str]) -> str:
    """The path with these pieces. None of them may lead out of the repo, as the upstream's token is sent along."""
    if any(part in (".", "..") for piece in pieces for part in piece.replace("\\", "/").split("/")):
        raise RepoNotFound("There is no such address of a repo.")
    return "/".join(quote(piece, safe="") for piece in pieces)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


def _begun(first: bytes, others: Iterable[bytes]) -> Generator[bytes]:
    yield first
    yield from others


def _checked(file: File, pieces: Generator[bytes]) -> Generator[bytes]:
    """The same pieces. If they do not match the file's hash and size, this raises Unavailable before the last one is handed out."""
    seen, sha256 = 0, hashlib.sha256()
    git = blob_hasher(file.size)
    for piece in pieces:
        seen += len(piece)
        sha256.update(piece)
        git.update(piece)
        if seen >= file.size:
            file.check(seen, sha256.hexdigest(), git.hexdigest())
        yield piece
    file.check(seen, sha256.hexdigest(), git.hexdigest())


def _kept_whole(storage: Storage, key: str, data: bytes) -> bytes:
    """Store bytes that are complete and checked. S3 cannot check what has no SHA-256, and could serve a part of it meanwhile."""
    try:
        storage.put_stream(key, BytesIO(data), len(data))
    except HubError as error:  # the reader gets the file all the same
        log.warning("a file of the upstream was not kept", extra={"reason": error.message})
    return data


def _keeping(storage: Storage, key: str, file: File, pieces: Generator[bytes]) -> Generator[bytes]:
    """The same pieces, which a thread stores in S3 as they pass. S3 keeps them only if they have the file's SHA-256.

    A reader may go away at any piece. Then this generator is closed in the thread of the event loop, where nothing may wait.
    """
    passing: SimpleQueue[bytes | None] = SimpleQueue()
    room = threading.Semaphore(AHEAD)

    def pieces_passed() -> Generator[bytes]:
        while (piece := passing.get()) is not None:
            room.release()
            yield piece

    def store() -> None:
        arriving = pieces_passed()
        try:
            VerifiedStream(file.etag, file.size, arriving).store(storage, key)
        except HubError as error:  # the reader has got an error, or the file all the same
            log.warning("a file of the upstream was not kept", extra={"reason": error.message})
        finally:
            deque(arriving, maxlen=0)  # whatever went wrong with S3, the reader does not wait for it

    storing = threading.Thread(target=store, daemon=True)
    storing.start()
    try:
        for piece in pieces:
            room.acquire()
            passing.put(piece)
            yield piece
    finally:
        passing.put(None)
    storing.join()  # a file that was read to its end is in the cache


def _content(response: httpx.Response) -> bytes:
    """The body of an answer. Raises Unavailable if it is too large."""
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise Unavailable(f"The upstream hub answers with more than {MAX_ANSWER_BYTES:,} bytes.")
    return bytes(body)


def _check(response: httpx.Response) -> None:
    if response.status_code < 400:
        return
    code = response.headers.get("X-Error-Code")
    if response.status_code in (401, 403, 404):
        if code == "RevisionNotFound":
            raise RevisionNotFound("The upstream hub has no such revision.")
        if code == "EntryNotFound":
            commit = response.headers.get("X-Repo-Commit", "")
            known = {"commit": commit} if COMMIT_ID.fullmatch(commit) else {}
            raise FileNotInRepo("The upstream hub has no such file.", **known)
        if code == "GatedRepo":
            raise RepoNotFound(
                "The upstream hub gives out this repo to those who accept its terms, which the owner of the token has not done."
            )
        raise RepoNotFound("There is no such repo here, nor on the upstream hub.")
    raise Unavailable(f"The upstream hub answers {response.status_code}; try again later.")


def _without_xet(body: Any) -> Any:
    """Clients that see a file's Xet hash ask for it by Xet, which this hub does not offer for downloads."""
    if isinstance(body, dict):
        return {name: _without_xet(value) for name, value in body.items() if name != "xetHash"}
    return [_without_xet(value) for value in body] if isinstance(body, list) else body
