"""Upload in two requests: the first stores and shows, the second publishes exactly what was shown, by whom it was shown to."""

import html
import io
import json
import re
import zipfile
from collections.abc import Mapping

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from hub.registry.access import quota
from hub.registry.access.permissions import AdministerHub, authorize
from hub.registry.content import repos
from hub.registry.models.content import Holding, Repo
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.web.pages.modules import upload
from tests.conftest import Person
from tests.support import http
from tests.support.files import TINY, peft_folder
from tests.support.pages import EVIL, HTML, sign_in
from tests.support.published import adapter, base


def send(client: TestClient, files: Mapping[str, bytes], **fields: str) -> tuple[int, str]:
    parts = [("files", (path, data, "application/octet-stream")) for path, data in files.items()]
    parts.append(("files", ("", b"", "application/octet-stream")))  # the field where nothing was chosen
    answer = client.post("/upload", data={"namespace": "ann", **fields}, files=parts, headers=HTML)
    return answer.status_code, answer.text


def shown(page: str) -> dict[str, str]:
    """The form that publishes, as the page has it."""
    found = re.findall(r'<input [^>]*name="(\w+)"[^>]* value="([^"]*)"', page)
    return {name: html.unescape(value) for name, value in found} | {"visibility": "private"}


def count(services: Services, table: type) -> int:
    with transaction(services.sessions) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_what_was_sent_is_shown_and_then_published(signed_in: TestClient, services: Services) -> None:
    base(services)
    files = {f"my module/{path}": data for path, data in peft_folder().items()} | {"my module/.DS_Store": b"x"}
    _, page = send(signed_in, files)
    assert TINY in page
    assert "Nothing to complain of." in page
    assert "3 files" in page
    assert count(services, Repo) == 0, "nothing is published yet"
    form = shown(page)
    assert form["name"] == "my-module", "named after its folder"
    answer = signed_in.post("/upload/publish", data={**form, "message": "First"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/adapters/ann/my-module")
    with transaction(services.sessions) as session:
        repo = session.scalars(select(Repo)).one()
        commit = repos.resolve(session, repo)
        assert (repo.visibility, commit.message, repos.version_of(session, commit)) == ("private", "First", "v1")
        assert [entry.path for entry in repos.files(session, commit)] == sorted(peft_folder())
        assert repos.facts(session, commit)[0].base_id == TINY


def test_an_archive_is_unpacked(signed_in: TestClient) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, data in peft_folder().items():
            archive.writestr(f"top/{path}", data)
    _, page = send(signed_in, {"task.zip": packed.getvalue()}, suggested="task")
    assert 'value="task"' in page
    assert "adapter_config.json" in page


def test_findings_and_near_duplicates_are_shown_with_what_to_do(
    signed_in: TestClient, services: Services, ann: Person
) -> None:
    base(services)
    adapter(services, ann, "ann/same", seed=3)
    files = peft_folder(seed=3)
    del files["README.md"]
    page = html.unescape(send(signed_in, files)[1])
    assert "Add a README.md" in page
    assert "1.00 the same as that of ann/same" in page


def test_what_is_unsound_is_refused_with_every_finding_and_not_kept(signed_in: TestClient, services: Services) -> None:
    files = peft_folder()
    files["adapter_config.json"] = files["adapter_config.json"].replace(b'"r": 2', b'"r": 3')
    status, page = send(signed_in, {**files, "other/adapter_config.json": b"{}"})
    assert status == 422
    assert "This cannot be published as an adapter" in page
    assert page.count('<li class="error">') > 1
    assert "/upload/publish" not in page
    assert count(services, Holding) == 0


def test_no_other_bytes_are_published_than_were_shown(
    signed_in: TestClient, services: Services, ann: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter(services, ann, "ann/other", seed=5)  # bytes that the namespace holds
    form = shown(send(signed_in, peft_folder(seed=1))[1])
    entries = json.loads(form["entries"])
    for change in ({"entries": json.dumps(entries[:-1])}, {"namespace": "bob"}, {"expires": "9999999999"}):
        assert signed_in.post("/upload/publish", data={**form, "name": "x", **change}).status_code == 403
    client = sign_in(signed_in, bob)
    assert client.post("/upload/publish", data={**form, "name": "x"}).status_code == 403, "shown to somebody else"
    sign_in(client, ann)
    monkeypatch.setattr(upload, "PREVIEW_SECONDS", -1)
    late = shown(send(client, peft_folder(seed=2))[1])
    answer = client.post("/upload/publish", data={**late, "name": "x"})
    assert answer.status_code == 403
    assert count(services, Repo) == 1


def test_a_problem_of_the_second_request_keeps_what_was_typed(
    signed_in: TestClient, services: Services, ann: Person
) -> None:
    adapter(services, ann, "ann/open", visibility="public")
    form = shown(send(signed_in, peft_folder(seed=1))[1])
    for name, said in (
        ("no/good", "not a valid name"),
        ("open", "ann/open is public, but what goes into it may only be private"),
    ):
        answer = signed_in.post("/upload/publish", data={**form, "name": name, "message": "Kept text"})
        assert answer.status_code in (409, 422)
        assert said in html.unescape(answer.text)
        assert 'value="Kept text"' in answer.text
    good = signed_in.post("/upload/publish", data={**shown(answer.text), "name": "fine"}, follow_redirects=False)
    assert good.status_code == 303


def test_a_visibility_that_is_not_valid_is_refused_in_one_sentence(signed_in: TestClient, ann: Person) -> None:
    sentence = "'secret' is not a valid visibility; choose private, internal or public."
    form = shown(send(signed_in, peft_folder(seed=1))[1])
    page = signed_in.post("/upload/publish", data={**form, "name": "x", "visibility": "secret"})
    assert (page.status_code, sentence in html.unescape(page.text)) == (422, True)
    sent = http.upload(signed_in, ann.headers, "ann/x", peft_folder(), visibility="secret")
    assert (sent.status_code, sent.json()["error"]["message"]) == (422, sentence)
    body = {"name": "x", "type": "model", "visibility": "secret"}
    created = signed_in.post("/api/repos/create", json=body, headers=ann.headers)
    assert (created.status_code, sentence in created.text) == (422, True)


def test_where_one_may_not_write_nothing_is_stored(signed_in: TestClient, services: Services, bob: Person) -> None:
    status, page = send(signed_in, peft_folder(), namespace="bob")
    assert "You may not write in the namespace" in page
    assert status == 403
    assert count(services, Holding) == 0


def test_the_form_shows_the_quota(signed_in: TestClient, services: Services, admin: Person, ann: Person) -> None:
    with transaction(services.sessions) as session:
        quota.set_limits(session, authorize(admin.viewer, AdministerHub), "ann", 100, None)
    status, page = send(signed_in, peft_folder())
    assert status == 403
    assert "may hold 100 bytes" in page
    assert 'enctype="multipart/form-data"' in page, "the form is there again"


@pytest.mark.parametrize("files", [{}, {"../x": b"x"}, {"a.zip": b"no zip"}])
def test_the_form_shows_what_cannot_be_read(signed_in: TestClient, files: dict[str, bytes]) -> None:
    status, page = send(signed_in, files)
    assert status == 422
    assert 'role="alert" id="problem"' in page


def test_text_of_an_upload_is_text(signed_in: TestClient) -> None:
    files = peft_folder(base=EVIL)
    files["README.md"] = f"---\nlicense: '{EVIL}'\ntags: ['{EVIL}']\n---\n".encode()
    _, page = send(signed_in, files, suggested=EVIL)
    assert "Ready to publish" in page
    assert EVIL not in page
