"""Quotas: bytes held, uncommitted ones included, and live jobs; refused before anything is stored."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.testclient import TestClient

from hub.registry.access.quota import QuotaExceeded
from hub.registry.content import blobs
from hub.registry.models.content import Holding
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support import published
from tests.support.files import TINY, peft_folder
from tests.support.http import upload, upload_adapter


def limit(client: TestClient, admin: Person, **limits: int | None) -> None:
    answer = client.put("/v1/namespaces/ann/quota", headers=admin.headers, json=limits)
    assert answer.status_code == 200, answer.text


def usage(client: TestClient, person: Person) -> Any:
    return client.get("/v1/namespaces/ann/quota", headers=person.headers).json()


def test_bytes_are_counted_once_and_refused_over_the_limit(
    client: TestClient, services: Services, ann: Person, admin: Person
) -> None:
    assert usage(client, ann) == {
        "namespace": "ann", "bytes_held": 0, "quota_bytes": None, "jobs": 0, "quota_jobs": None
    }  # fmt: skip
    upload_adapter(client, ann.headers, "ann/a")
    size = sum(len(data) for data in peft_folder().values())
    assert usage(client, ann)["bytes_held"] == size
    upload_adapter(client, ann.headers, "ann/the-same")  # what is held already takes no more room
    assert usage(client, ann)["bytes_held"] == size
    limit(client, admin, quota_bytes=size + 100)
    upload_adapter(client, ann.headers, "ann/and-again")
    refused = upload(client, ann.headers, "ann/b", peft_folder(seed=1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "quota_exceeded")
    assert f"may hold {size + 100:,} bytes and holds {size:,}" in refused.json()["error"]["message"]
    with transaction(services.sessions) as session:
        assert session.query(Holding).count() == 3  # nothing of the refused files was kept
    limit(client, admin, quota_bytes=None)
    upload_adapter(client, ann.headers, "ann/b", seed=1)


def test_an_upload_by_lfs_is_refused_before_its_bytes_travel(client: TestClient, ann: Person, admin: Person) -> None:
    upload_adapter(client, ann.headers, "ann/a")
    limit(client, admin, quota_bytes=usage(client, ann)["bytes_held"] + 10)
    oid = hashlib.sha256(b"x" * 11).hexdigest()
    body = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": 11}]}
    refused = client.post("/ann/a.git/info/lfs/objects/batch", headers=ann.headers, json=body)
    assert refused.status_code == 403
    assert "ask an administrator for a higher quota" in refused.headers["X-Error-Message"]
    body["objects"] = [{"oid": oid, "size": 10}]
    assert client.post("/ann/a.git/info/lfs/objects/batch", headers=ann.headers, json=body).status_code == 200


def test_uncommitted_bytes_count_and_two_uploads_at_once_do_not_pass_together(
    client: TestClient, services: Services, ann: Person, admin: Person
) -> None:
    limit(client, admin, quota_bytes=100)

    def send(number: int) -> bool:
        file = blobs.hash_file("x", io.BytesIO(bytes([number]) * 60))
        try:
            blobs.store(services.sessions, services.storage, "ann", [file])
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(send, range(4))) == [False, False, False, True]
    assert usage(client, ann)["bytes_held"] == 60


def test_a_copy_counts_where_it_goes(client: TestClient, ann: Person, bob: Person, admin: Person) -> None:
    upload_adapter(client, bob.headers, "bob/a")
    limit(client, admin, quota_bytes=10)
    body = {"repository": "ann/copy"}
    refused = client.post("/api/models/bob/a/duplicate", headers=ann.headers, json=body)
    assert refused.status_code == 403
    assert client.get("/v1/adapters/ann/copy", headers=ann.headers).status_code == 404


def test_live_jobs_are_counted_and_refused_over_the_limit(
    client: TestClient, services: Services, ann: Person, bob: Person, admin: Person
) -> None:
    published.base(services)
    limit(client, admin, quota_jobs=2)

    def submit(number: int) -> tuple[int, str]:
        body = {"kind": "generate", "prompt": f"hi {number}", "base": TINY}
        answer = client.post("/v1/jobs", headers=ann.headers, json=body)
        return answer.status_code, answer.json().get("id", "")

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(submit, range(4)))
    assert sorted(status for status, _ in answers) == [202, 202, 403, 403]
    assert usage(client, ann)["jobs"] == 2
    done = next(job for status, job in answers if status == 202)
    client.post(f"/v1/jobs/{done}/cancel", headers=ann.headers)
    assert submit(9)[0] == 202
    other = client.post("/v1/jobs", headers=bob.headers, json={"kind": "generate", "prompt": "hi", "base": TINY})
    assert other.status_code == 202
