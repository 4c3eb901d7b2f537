"""What Hugging Face clients send, made by hand, to send what they never would."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from httpx2 import Client

from tests.conftest import Person
from tests.support import protocol

Lines = Iterable[Mapping[str, Any] | bytes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_oid(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def header(**more: Any) -> dict[str, Any]:
    return {"key": "header", "value": {"summary": "A change", "description": "", **more}}


def inline(path: str, data: bytes) -> dict[str, Any]:
    content = base64.b64encode(data).decode()
    return {"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}}


def lfs_file(path: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": sha256(data), "size": len(data), **more}}


def line(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def create(client: Client, person: Person, full_name: str, **more: Any) -> Any:
    namespace, _, name = full_name.partition("/")
    body = {"name": name, "organization": namespace, **more}
    answer = client.post("/api/repos/create", headers=person.headers, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def commit(
    client: Client,
    person: Person,
    full_name: str,
    *lines: Mapping[str, Any] | bytes,
    at: str = "main",
    kind: str = "models",
) -> Any:
    """POST these lines after a header; bytes are sent as they are, and then no header is put before."""
    raw = any(isinstance(text, bytes) for text in lines)
    has_header = any(isinstance(text, Mapping) and text.get("key") == "header" for text in lines[:1])
    first = [] if raw or has_header else [header()]
    body = b"".join(text if isinstance(text, bytes) else json.dumps(text).encode() + b"\n" for text in (*first, *lines))
    headers = {**person.headers, "Content-Type": "application/x-ndjson"}
    return client.post(f"/api/{kind}/{full_name}/commit/{at}", headers=headers, content=body)


def committed(client: Client, person: Person, full_name: str, files: Mapping[str, bytes], **where: str) -> str:
    """Commit the files, those for LFS by LFS; returns the commit's id."""
    lines = []
    for path, data in files.items():
        sent = preupload(client, person, full_name, {path: data}, **where).json()["files"][0]["uploadMode"]
        if sent == "lfs":
            answer = put(client, batch(client, person, full_name, data, **where), data)
            assert answer is None or answer.status_code == 200, answer.text
        lines.append(lfs_file(path, data) if sent == "lfs" else inline(path, data))
    answer = commit(client, person, full_name, *lines, **where)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["commitOid"])


def preupload(
    client: Client,
    person: Person,
    full_name: str,
    files: Mapping[str, bytes],
    at: str = "main",
    kind: str = "models",
) -> Any:
    listed = [{"path": path, "size": len(data), "sample": ""} for path, data in files.items()]
    return client.post(f"/api/{kind}/{full_name}/preupload/{at}", headers=person.headers, json={"files": listed})


def batch(client: Client, person: Person, full_name: str, *contents: bytes, kind: str = "models", at: str = "") -> Any:
    """The answer for the first of the files."""
    body = {
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": [{"oid": sha256(data), "size": len(data)} for data in contents],
        "hash_algo": "sha256",
    }
    prefix = "" if kind == "models" else "datasets/"
    headers = {**person.headers, "Content-Type": "application/vnd.git-lfs+json"}
    answer = client.post(f"/{prefix}{full_name}.git/info/lfs/objects/batch", headers=headers, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["objects"][0]


def local(href: str) -> str:
    """An address of the hub as the test client wants it."""
    return href.removeprefix("http://testserver") if urlsplit(href).netloc == "testserver" else href


def put(client: Client, answer: Any, data: bytes) -> Any:
    """Send a file where the batch said, if it did."""
    href = answer.get("actions", {}).get("upload", {}).get("href")
    return client.put(local(href), content=data) if href else None


def tree(client: Client, person: Person, full_name: str, at: str = "main", kind: str = "models") -> dict[str, str]:
    answer = client.get(f"/api/{kind}/{full_name}/tree/{at}?recursive=true", headers=person.headers)
    assert answer.status_code == 200, answer.text
    return {item["path"]: item.get("lfs", item)["oid"] for item in answer.json() if item["type"] == "file"}


def error_of(answer: Any, status: int, code: str | None = None) -> str:
    """The sentence of an error, which stands in the header and in the body; checks status and X-Error-Code."""
    assert answer.status_code == status, answer.text
    assert answer.headers.get("X-Error-Code") == code
    message = str(answer.json()["error"])
    assert answer.headers["X-Error-Message"] == " ".join(message.encode("ascii", "replace").decode().split())
    assert len(message.split()) > 3
    return message


def visible(answer: Any, *replaced: bytes) -> tuple[int, str]:
    """All that a client sees of an answer, with names of the file replaced."""
    # What is left of a client's rate limit falls with every request.
    headers = sorted((name, value) for name, value in answer.headers.items() if name != "ratelimit")
    text = answer.text + json.dumps(headers)
    for data in replaced:
        text = text.replace(protocol.sha256(data), "HASH").replace(protocol.git_oid(data), "OID")
    return answer.status_code, text
