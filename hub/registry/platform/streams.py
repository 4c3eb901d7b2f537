"""Bodies verified while they are read: by their size, and by their hash where it was announced."""

import hashlib
from collections.abc import Iterator

from hub.formats.git import blob_hasher
from hub.registry.platform.errors import HubError, InvalidInput, Unavailable
from hub.registry.platform.storage import Storage


class WrongBytes(InvalidInput):
    """The bytes received are not those that were announced."""

    code = "wrong_bytes"


class VerifiedStream:
    """A body that is hashed while it is read. The last bytes are handed out only once the whole matches its announced hash.

    Without an announced hash only the size is checked, and `git_oid` is unknown.
    """

    def __init__(self, sha256: str | None, size: int, pieces: Iterator[bytes]) -> None:
        self.sha256, self.size = sha256, size
        self.fault: HubError | None = None
        self._pieces, self._ready = pieces, memoryview(b"")
        self._seen = 0
        self._sha256 = hashlib.sha256()
        self._git = blob_hasher(size)

    @property
    def git_oid(self) -> str:
        return self._git.hexdigest()

    def store(self, storage: Storage, key: str) -> str:
        """Stream all of it to an object in S3; returns S3's ETag. Nothing is stored if it raises: WrongBytes, or what the pieces raise."""
        try:
            return storage.put_stream(key, self, self.size, sha256=self.sha256)
        except Unavailable:
            if self.sha256 is None:
                storage.delete_key(key)  # SeaweedFS keeps what came of a body that ends early, if no checksum was given
            if self.fault is not None:  # boto3 takes whatever a body raises for a failure of the connection
                raise self.fault from None
            raise

    def read(self, length: int = -1, /) -> bytes:
        if not self._ready and self._seen < self.size:
            try:
                self._ready = memoryview(self._next())
            except HubError as error:
                self.fault = error
                raise
        taken = self._ready[:length] if length >= 0 else self._ready
        self._ready = self._ready[len(taken) :]
        return bytes(taken)

    def _next(self) -> bytes:
        piece = next((piece for piece in self._pieces if piece), b"")
        if self.sha256:
            self._sha256.update(piece)
            self._git.update(piece)
        self._seen += len(piece)
        if not piece or self._seen > self.size:
            raise WrongBytes(f"{self.size:,} bytes were announced and {self._seen:,} arrived; send the file again.")
        if self.sha256 and self._seen == self.size and self._sha256.hexdigest() != self.sha256:
            raise WrongBytes(
                f"The bytes that arrived have the SHA-256 {self._sha256.hexdigest()} and not {self.sha256}, "
                "as was announced: the file changed meanwhile, or was damaged on its way; send it again."
            )
        return piece
