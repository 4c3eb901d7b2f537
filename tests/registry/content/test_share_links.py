"""Share links: one version, to whoever has the link, until it expires or is revoked."""

import io
import zipfile
from typing import Any

from sqlalchemy import text
from starlette.testclient import TestClient

from hub.registry.models.adapters import Lineage
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import peft_folder
from tests.support.http import upload_adapter


def share(client: TestClient, person: Person, name: str, **body: Any) -> Any:
    return client.post(f"/v1/adapters/{name}/shares", headers=person.headers, json=body)


def path_of(answer: Any) -> str:
    assert answer.status_code == 201, answer.text
    return str(answer.json()["address"]).removeprefix("http://testserver")


def test_a_link_shows_one_version_and_gives_out_its_files(client: TestClient, ann: Person) -> None:
    first = upload_adapter(client, ann.headers, "ann/a", visibility="private")
    path = path_of(share(client, ann, "ann/a"))
    upload_adapter(client, ann.headers, "ann/a", seed=1)
    shared = client.get(path).json()
    assert (shared["repo"], shared["commit"], shared["adapters"][0]["rank"]) == ("ann/a", first["commit"], 2)
    files = peft_folder()
    assert {file["path"] for file in shared["files"]} == set(files)
    assert client.get(f"{path}/files/adapter_model.safetensors").content == files["adapter_model.safetensors"]
    part = client.get(f"{path}/files/adapter_model.safetensors", headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, files["adapter_model.safetensors"][2:6])
    with zipfile.ZipFile(io.BytesIO(client.get(f"{path}/archive").content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    assert client.get(f"{path}/files/none").status_code == 404
    assert client.get("/v1/adapters/ann/a").status_code == 404  # the repo itself is as private as it was


def test_a_link_ends(client: TestClient, services: Services, ann: Person) -> None:
    upload_adapter(client, ann.headers, "ann/a", visibility="private")
    expired, revoked, left = (share(client, ann, "ann/a") for _ in range(3))
    with transaction(services.sessions) as session:
        session.execute(text("UPDATE share_links SET expires_at = now() WHERE id = :id"), {"id": expired.json()["id"]})
    assert len(client.get("/v1/adapters/ann/a/shares", headers=ann.headers).json()) == 2
    gone = client.delete(f"/v1/adapters/ann/a/shares/{revoked.json()['id']}", headers=ann.headers)
    assert gone.status_code == 204
    assert [client.get(path_of(each)).status_code for each in (expired, revoked, left)] == [404, 404, 200]
    client.delete("/v1/adapters/ann/a", headers=ann.headers)
    assert client.get(path_of(left)).status_code == 404


def test_a_link_to_what_was_made_from_private_things_must_be_confirmed(
    client: TestClient, services: Services, ann: Person
) -> None:
    parent = upload_adapter(client, ann.headers, "ann/hidden", visibility="private")["commit"]
    child = upload_adapter(client, ann.headers, "ann/woven", visibility="private", seed=1)["commit"]
    with transaction(services.sessions) as session:
        session.add(Lineage(child=child, parent=parent, role="module", weight=1.0))
    refused = share(client, ann, "ann/woven")
    assert (refused.status_code, refused.json()["error"]["reveals"]) == (409, ["ann/hidden"])
    path_of(share(client, ann, "ann/woven", reveal=True))


def test_the_secret_is_not_kept(client: TestClient, services: Services, ann: Person) -> None:
    upload_adapter(client, ann.headers, "ann/a")
    secret = path_of(share(client, ann, "ann/a")).rpartition("/")[2]
    with transaction(services.sessions) as session:
        kept = session.execute(text("SELECT t::text FROM share_links t UNION ALL SELECT a::text FROM audit_events a"))
        rows = [row[0] for row in kept]
    assert any("share.created" in row for row in rows)
    assert not any(secret in row for row in rows)
