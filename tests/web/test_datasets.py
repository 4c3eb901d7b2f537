"""Pages of data sets: a look at their examples, a form for a new one."""

import json

import pytest
from starlette.testclient import TestClient

from hub.registry.content import repos
from hub.registry.datasets import peek
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import examples_file
from tests.support.http import upload
from tests.support.pages import EVIL, HTML, sign_in


def test_the_list_is_searched_and_shows_what_one_may_see(client: TestClient, ann: Person) -> None:
    assert "No data set here" in client.get("/datasets").text
    for name, visibility in (("open", "public"), ("hidden", "private")):
        upload(
            client, ann.headers, f"ann/{name}", {"train.jsonl": examples_file()}, kind="datasets", visibility=visibility
        )
    visitor = client.get("/datasets").text
    assert "ann/open" in visitor
    assert "ann/hidden" not in visitor
    sign_in(client, ann)
    assert "ann/hidden" in client.get("/datasets").text
    assert "ann/hidden" not in client.get("/datasets", params={"q": "open"}).text
    assert "None that you may see matches" in client.get("/datasets", params={"owner": "bob"}).text
    client.cookies.clear()
    assert client.get("/datasets/ann/hidden", headers=HTML).status_code == 404


def test_a_look_at_the_examples(client: TestClient, ann: Person) -> None:
    rows = [{"input": f"question {n}", "target": EVIL} for n in range(30)]
    text = "\n".join(json.dumps(row) for row in rows).encode()
    upload(client, ann.headers, "ann/task", {"train.jsonl": text}, kind="datasets", visibility="public")
    page = client.get("/datasets/ann/task").text
    assert "30 examples" in page
    assert "the first 20" in page
    assert "question 19" in page
    assert "question 20" not in page
    assert EVIL not in page


@pytest.mark.parametrize(
    ("data", "count", "unreadable"),
    [
        (b'{"a": 1}\n\n{"a": 2}\n', 2, None),
        (b'{"a": 1}\r\n{"b": "\xe4\xb8\xad"}', 2, None),
        (b'{"a": 1}\nnot json\n', 2, 2),
        (b"[1]\n", 1, 1),
        (b"\xff\xfe\n", 1, 1),
    ],
)
def test_what_a_look_finds(
    client: TestClient, services: Services, ann: Person, data: bytes, count: int, unreadable: int | None
) -> None:
    upload(client, ann.headers, "ann/task", {"train.jsonl": data}, kind="datasets", visibility="public")
    with transaction(services.sessions) as session:
        repo = repos.find(session, ann.viewer, "dataset", "ann/task")
        entry = repos.file(session, repos.resolve(session, repo), "train.jsonl")
        found = peek.look(services.storage, entry)
    assert (found.count, found.unreadable) == (count, unreadable)


def test_a_long_file_is_looked_at_and_not_counted(
    client: TestClient, services: Services, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peek, "LOOKED_AT_BYTES", 40)
    upload(client, ann.headers, "ann/long", {"train.jsonl": examples_file(10)}, kind="datasets", visibility="public")
    page = client.get("/datasets/ann/long").text
    assert "too long to count here" in page
    assert "is not a JSON object" not in page, "the line that was cut is not called wrong"


def test_a_data_set_is_made_by_form(client: TestClient, ann: Person) -> None:
    assert client.get("/datasets/new", headers=HTML, follow_redirects=False).status_code == 303, "to sign in"
    sign_in(client, ann)
    fields = {"namespace": "ann", "name": "task", "visibility": "private"}
    empty = client.post("/datasets/new", data=fields)
    assert empty.status_code == 422
    assert 'value="task"' in empty.text
    pasted = client.post("/datasets/new", data={**fields, "examples": '{"input": "a", "target": "b"}\r\n'})
    assert pasted.url.path == "/datasets/ann/task"
    assert "1 example," in pasted.text
    sent = client.post("/datasets/new", data=fields, files=[("files", ("more.jsonl", examples_file(4)))])
    assert "4 examples" in sent.text
    assert client.post("/datasets/new", data={**fields, "namespace": "bob", "examples": "{}"}).status_code == 403


def test_a_data_set_is_hidden_and_deleted_by_form(client: TestClient, ann: Person, bob: Person) -> None:
    upload(client, ann.headers, "ann/task", {"train.jsonl": examples_file()}, kind="datasets", visibility="public")
    sign_in(client, bob)
    assert "Delete" not in client.get("/datasets/ann/task").text
    assert client.post("/datasets/ann/task/delete").status_code == 403
    client.cookies.clear()
    sign_in(client, ann)
    assert "private" in client.post("/datasets/ann/task/visibility", data={"visibility": "private"}).text
    client.post("/datasets/ann/task/delete")
    assert client.get("/datasets/ann/task", headers=HTML).status_code == 404
