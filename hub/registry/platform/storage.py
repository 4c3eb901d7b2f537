"""Bytes in S3, named by their SHA-256. No object is overwritten with other bytes: the S3 server checks the hash in its name."""

import base64
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from hub.registry.platform.errors import NotFound, Unavailable
from hub.registry.platform.settings import Settings

CHUNK = 1 << 20
MAX_OBJECT_BYTES = 5 * 2**30  # what S3 takes in one request


class Readable(Protocol):
    def read(self, length: int = -1, /) -> bytes: ...


class Body(Readable, Protocol):
    def close(self) -> None: ...


def blob_key(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256[2:4]}/{sha256}"


class Storage:
    """One bucket. Thread-safe, as boto3's clients are."""

    def __init__(self, settings: Settings) -> None:
        self.bucket = settings.s3_bucket
        self._client = _client(settings, settings.s3_endpoint_url)
        self._public = _client(settings, settings.s3_public_url) if settings.s3_public_url else None

    def ensure_bucket(self) -> None:
        try:
            self._client.create_bucket(Bucket=self.bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def drop_bucket(self) -> None:
        """Remove the bucket and everything in it: for test runs, which create their own."""
        for key in self.keys(""):
            self.delete_key(key)
        self._client.delete_bucket(Bucket=self.bucket)

    def ping(self) -> None:
        """Raise Unavailable if the bucket cannot be reached."""
        try:
            self._client.head_bucket(Bucket=self.bucket)
        except (BotoCoreError, ClientError) as error:
            raise Unavailable(f"S3 does not answer for bucket {self.bucket}: {error}") from error

    def put(self, sha256: str, file: BinaryIO, size: int) -> None:
        """Store `size` bytes from the start of `file`. S3 itself refuses bytes that do not have this hash."""
        file.seek(0)
        self.put_stream(blob_key(sha256), file, size, sha256=sha256)

    def put_stream(self, key: str, file: Readable, size: int, *, sha256: str | None = None) -> str:
        """Store `size` bytes as they are read, under any key; returns S3's ETag. A stream that cannot seek is sent once only."""
        checksum = {"ChecksumSHA256": base64.b64encode(bytes.fromhex(sha256)).decode()} if sha256 else {}
        with _answering():
            answer = self._client.put_object(Bucket=self.bucket, Key=key, Body=file, ContentLength=size, **checksum)
        return str(answer["ETag"])

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Some bytes of a blob. Raises NotFound if S3 does not have it."""
        if length == 0:
            return b""
        return bytes(self._get(sha256, f"bytes={offset}-{offset + length - 1}")["Body"].read())

    def stream(self, sha256: str, start: int, end: int) -> Generator[bytes]:
        """Bytes start to end (exclusive), a megabyte at a time. The request is sent before the first piece is taken."""
        if start >= end:
            return _pieces(BytesIO())
        return _pieces(self._get(sha256, f"bytes={start}-{end - 1}")["Body"])

    def stream_key(self, key: str, start: int = 0, end: int | None = None) -> Generator[bytes]:
        """Bytes start to end (exclusive) of the object under any key, a megabyte at a time. Raises NotFound if S3 does not have it."""
        part = {} if end is None else {"Range": f"bytes={start}-{end - 1}"}
        try:
            with _answering():
                body = self._client.get_object(Bucket=self.bucket, Key=key, **part)["Body"]
        except self._client.exceptions.NoSuchKey:
            raise NotFound(f"There is no object {key} in storage.") from None
        return _pieces(body)

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix`, in order, fetched as they are taken."""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                yield str(item["Key"])

    def foreign_keys(self, bucket: str, prefix: str) -> list[str]:
        """Keys of another bucket that these credentials may read. Raises NotFound if there is no such bucket, or it may not be read."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        try:
            with _answering():
                return [str(item["Key"]) for page in pages for item in page.get("Contents", [])]
        except ClientError as error:
            raise NotFound(f"The bucket {bucket!r} cannot be listed with this hub's credentials: {error}") from error

    def fetch_foreign(self, bucket: str, key: str, to: Path) -> None:
        """Download an object of another bucket into a file. Raises NotFound."""
        try:
            with _answering():
                self._client.download_file(bucket, key, str(to))
        except ClientError as error:
            raise NotFound(f"s3://{bucket}/{key} cannot be read with this hub's credentials: {error}") from error

    def keys_older_than(self, prefix: str, when: datetime) -> Iterator[str]:
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                if item["LastModified"] < when:
                    yield str(item["Key"])

    def delete_key(self, key: str) -> None:
        with _answering():
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def _get(self, sha256: str, byte_range: str) -> dict[str, Any]:
        try:
            with _answering():
                return dict(self._client.get_object(Bucket=self.bucket, Key=blob_key(sha256), Range=byte_range))
        except self._client.exceptions.NoSuchKey:
            raise NotFound(f"The bytes {sha256} are not in storage.") from None

    def exists(self, sha256: str) -> bool:
        try:
            with _answering():
                self._client.head_object(Bucket=self.bucket, Key=blob_key(sha256))
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True

    def delete(self, sha256: str) -> None:
        with _answering():
            self._client.delete_object(Bucket=self.bucket, Key=blob_key(sha256))

    def presigned_url(self, sha256: str, filename: str) -> str | None:
        """A download address on the public S3 host, good for ten minutes; None where no such host is configured."""
        if self._public is None:
            return None
        safe = filename.replace('"', "").replace("\\", "")
        return str(
            self._public.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self.bucket,
                    "Key": blob_key(sha256),
                    "ResponseContentDisposition": f'attachment; filename="{safe}"',
                },
                ExpiresIn=600,
            )
        )


def _pieces(body: Body) -> Generator[bytes]:
    """A megabyte at a time. Closing the generator early releases the connection."""
    with closing(body):
        while piece := body.read(CHUNK):
            yield piece


@contextmanager
def _answering() -> Iterator[None]:
    """Raise Unavailable where boto3 got no answer. A ClientError, which is an answer, passes through."""
    try:
        yield
    except BotoCoreError as error:
        raise Unavailable(f"S3 does not answer: {error}") from error


def _client(settings: Settings, endpoint_url: str | None) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.aws_access_key_id,
        aws_secret_access_key=settings.aws_secret_access_key,
        config=Config(
            signature_version="s3v4",
            retries={"mode": "standard", "max_attempts": 3},
            connect_timeout=3,
            read_timeout=60,
            max_pool_connections=32,
            # Every blob brings its checksum; boto3's own would read the body twice as well.
            request_checksum_calculation="when_required",
            # Not signed: to sign a body it would have to be read twice. The checksum that goes with each blob is signed.
            s3={"payload_signing_enabled": False, **({"addressing_style": "path"} if endpoint_url else {})},
        ),
    )
