"""Repair over REST and by the form: what is missing is written, everything else stays as it was, and nothing is guessed."""

import base64
import json

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from hub.registry.inspection.model_card import parse_card
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import TINY, peft_folder
from tests.support.pages import sign_in
from tests.support.published import adapter, base

PATH = "/scratch/train/tiny"


@pytest.fixture(autouse=True)
def bases_(services: Services) -> None:
    base(services, TINY, PATH)
    base(services, "org/wide", width=64)


def repair(client: TestClient, person: Person, name: str = "ann/x", **body: str) -> Response:
    return client.post(f"/v1/adapters/{name}/repair", json=body, headers=person.headers)


def file(client: TestClient, person: Person, path: str, name: str = "ann/x", revision: str = "main") -> bytes:
    answer = client.get(f"/v1/adapters/{name}/files/{path}?revision={revision}", headers=person.headers)
    assert answer.status_code == 200, answer.text
    return answer.content


def codes(client: TestClient, person: Person, name: str = "ann/x") -> set[str]:
    found = client.get(f"/v1/adapters/{name}", headers=person.headers).json()
    return {finding["code"] for folder in found["adapters"] for finding in folder["findings"]}


def with_card(card: str) -> dict[str, bytes]:
    return {**peft_folder(), "README.md": card.encode()}


def test_everything_that_is_missing_in_one_commit(client: TestClient, services: Services, ann: Person) -> None:
    files = {path: data for path, data in peft_folder(base=PATH, note="ünï").items() if path != "README.md"}
    adapter(services, ann, "ann/x", files=files)
    assert "no_card" in codes(client, ann)
    answer = repair(client, ann, licence="apache-2.0")
    assert answer.status_code == 200, answer.text
    assert answer.json()["done"] == [f"base model {TINY} in the place of {PATH}", "a card with the licence apache-2.0"]
    assert answer.json()["version"] == "v2"
    before = json.loads(files["adapter_config.json"])
    after = json.loads(file(client, ann, "adapter_config.json"))
    assert after == {**before, "base_model_name_or_path": TINY}
    card = parse_card(file(client, ann, "README.md"))
    assert card.front == {"library_name": "peft", "tags": ["lora"], "base_model": TINY, "license": "apache-2.0"}
    assert "rank 2, alpha 2, on q_proj, 64 parameters in F32" in card.text
    assert file(client, ann, "adapter_model.safetensors") == files["adapter_model.safetensors"]
    assert not codes(client, ann) & {"no_card", "no_licence", "local_base", "unknown_base"}
    again = repair(client, ann, licence="apache-2.0")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "nothing_to_repair")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# Text\n\nWords.\n", "---\nlicense: mit\n---\n# Text\n\nWords.\n"),
        ("---\n---\nWords.\n", "---\nlicense: mit\n---\nWords.\n"),
        ("---\ntags: [a]  # why\n---\nW\n", "---\ntags: [a]  # why\nlicense: mit\n---\nW\n"),
        ("---\nlicense: other\ntags: [a]\n---\nW\n", "---\ntags: [a]\nlicense: mit\n---\nW\n"),
        ("---\nlicense:\n- x\n- y\ntags:\n- a\n---\nW\n", "---\ntags:\n- a\nlicense: mit\n---\nW\n"),
        (
            "---\nlicense_name: odd\nmodel:\n  license: inner\n---\nlicense: in the text\n",
            "---\nlicense_name: odd\nmodel:\n  license: inner\nlicense: mit\n---\nlicense: in the text\n",
        ),
    ],
)
def test_a_licence_leaves_the_rest_of_the_card_as_it_was(
    client: TestClient, services: Services, ann: Person, before: str, after: str
) -> None:
    adapter(services, ann, "ann/x", files=with_card(before))
    answer = repair(client, ann, licence="mit")
    assert answer.status_code == 200, answer.text
    assert answer.json()["files"] == ["README.md"]
    assert file(client, ann, "README.md").decode() == after


@pytest.mark.parametrize("card", ["---\nlicense: [a\n---\nW\n", "---\n{license: x, tags: [a]}\n---\nW\n"])
def test_a_card_that_a_program_cannot_change_is_left_alone(
    client: TestClient, services: Services, ann: Person, card: str
) -> None:
    adapter(services, ann, "ann/x", files=with_card(card))
    answer = repair(client, ann, licence="mit")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "not_repairable")
    assert file(client, ann, "README.md").decode() == card


def test_a_base_is_named_by_any_of_its_names_and_must_fit(client: TestClient, services: Services, ann: Person) -> None:
    adapter(services, ann, "ann/x", base=None)
    assert repair(client, ann).status_code == 409
    assert repair(client, ann, base="org/unheard").json()["error"]["code"] == "base_not_found"
    refused = repair(client, ann, base="org/wide").json()["error"]
    assert refused["code"] == "bad_adapter"
    assert "wrong_shape" in {finding["code"] for finding in refused["findings"]}
    assert repair(client, ann, base=PATH).json()["done"] == [f"base model {TINY} in the place of none"]
    assert client.get("/v1/adapters/ann/x", headers=ann.headers).json()["adapters"][0]["base_id"] == TINY


def test_one_of_several_folders(client: TestClient, services: Services, ann: Person) -> None:
    files = {f"{folder}/{path}": data for folder in "ab" for path, data in peft_folder(base=PATH).items()}
    assert client.post("/api/repos/create", json={"name": "x"}, headers=ann.headers).status_code == 200
    contents = {
        path: {"content": base64.b64encode(data).decode(), "encoding": "base64"} for path, data in files.items()
    }
    lines = [{"key": "file", "value": {"path": path, **content}} for path, content in contents.items()]
    body = "\n".join(json.dumps(line) for line in [{"key": "header", "value": {"summary": "two"}}, *lines])
    sent = client.post("/api/models/ann/x/commit/main", content=body, headers=ann.headers)
    assert sent.status_code == 200, sent.text
    assert repair(client, ann).json()["error"]["code"] == "not_repairable"
    assert repair(client, ann, folder="b", licence="mit").json()["files"] == ["b/adapter_config.json", "b/README.md"]
    assert file(client, ann, "a/adapter_config.json") == files["a/adapter_config.json"]


@pytest.mark.parametrize("licence", ["MIT License", "", "mit\nbase_model: evil", "x" * 61, "[a]"])
def test_what_is_no_licence(client: TestClient, services: Services, ann: Person, licence: str) -> None:
    adapter(services, ann, "ann/x")
    assert repair(client, ann, licence=licence).status_code == 422


def test_who_may_not_write_repairs_nothing(client: TestClient, services: Services, ann: Person, bob: Person) -> None:
    adapter(services, ann, "ann/x", base=PATH)
    adapter(services, ann, "ann/hidden", base=PATH, visibility="private")
    assert repair(client, bob).status_code == 403
    assert repair(client, bob, "ann/hidden").status_code == 404
    assert client.post("/v1/adapters/ann/x/repair", json={}).status_code == 401


def test_the_button(client: TestClient, services: Services, ann: Person, bob: Person) -> None:
    adapter(services, ann, "ann/x", base=PATH)
    sign_in(client, ann)
    assert "<button>Repair</button>" in client.get("/adapters/ann/x/settings").text
    form = {"folder": "", "base": "", "licence": "mit"}
    answer = client.post("/adapters/ann/x/repair", data=form, follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/adapters/ann/x")
    assert json.loads(file(client, ann, "adapter_config.json"))["base_model_name_or_path"] == TINY
    assert b"license: mit" in file(client, ann, "README.md")
    sign_in(client, bob)
    assert client.get("/adapters/ann/x/settings").status_code == 403
