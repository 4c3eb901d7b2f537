"""Aliases by forms: moved, rolled back, gated, removed; and a refusal shows its figures in place."""

from starlette.testclient import TestClient

from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.pages import HTML, sign_in
from tests.support.published import adapter, base, dataset
from tests.support.scores import answers, measure

AT = "/adapters/ann/x"


def post(client: TestClient, act: str = "", **form: str) -> tuple[int, str]:
    answer = client.post(f"{AT}/aliases{act}", data=form, follow_redirects=False)
    return answer.status_code, answer.headers.get("Location", answer.text)


def test_an_alias_is_moved_rolled_back_and_removed(
    client: TestClient, services: Services, ann: Person, bob: Person
) -> None:
    commits = [adapter(services, ann, "ann/x", seed=seed) for seed in range(2)]
    sign_in(client, ann)
    done = (303, f"{AT}/versions#aliases")
    assert post(client, alias=" prod ", revision="v1") == done
    assert post(client, alias="prod", revision="main") == done
    page = client.get(f"{AT}/versions").text
    assert ">prod <span" in page
    assert f"moved to <code>{commits[1].id[:12]}</code> by ann" in page
    assert post(client, "/rollback", alias="prod") == done
    assert f"rolled back to <code>{commits[0].id[:12]}</code> by ann" in client.get(f"{AT}/versions").text
    status, page = post(client, "/rollback", alias="prod")
    assert status == 409
    assert "stood for nothing else before" in page
    status, page = post(client, alias="no..name", revision="v1")
    assert status == 422
    assert 'value="no..name"' in page, "what was typed is still there"

    other_site = {"Sec-Fetch-Site": "cross-site"}
    form = {"alias": "prod", "revision": "v2"}
    assert client.post(f"{AT}/aliases", data=form, headers=other_site).status_code == 403
    sign_in(client, bob)
    page = client.get(f"{AT}/versions").text
    assert ">prod <span" in page
    assert "Roll prod back" not in page
    assert post(client, **form)[0] == 403
    client.cookies.clear()
    assert client.post(f"{AT}/aliases/rollback", data={"alias": "prod"}, headers=HTML).url.path == "/login"
    sign_in(client, ann)
    assert post(client, "/remove", alias="prod") == done
    assert ">prod <span" not in client.get(f"{AT}/versions").text


def test_a_closed_gate_shows_its_figures_and_moves_nothing(
    client: TestClient, services: Services, ann: Person, bob: Person
) -> None:
    base(services)
    commits = [adapter(services, ann, "ann/x", seed=seed) for seed in range(2)]
    exam = dataset(services, ann, "ann/exam", visibility="private")
    for commit, right in zip(commits, (300, 100), strict=True):
        measure(services, ann, commit, exam, answers(right))
    sign_in(client, ann)
    post(client, alias="prod", revision="v1")
    gate = {"alias": "prod", "dataset": "ann/exam", "path": "train.jsonl", "template": "plain", "tolerance": "0.05"}
    status, page = post(client, "/gate", **{**gate, "path": "none.jsonl"})
    assert status == 404
    assert 'value="none.jsonl"' in page
    assert post(client, "/gate", **gate)[0] == 303
    page = client.get(f"{AT}/versions").text
    assert "Moves only to what is not worse in exact match on ann/exam" in page
    status, page = post(client, alias="prod", revision="v2")
    assert status == 409
    assert "-0.500 better than the holder" in page
    assert 'stands for</span> <a href="/adapters/ann/x?revision=v1">' in page
    sign_in(client, bob)
    page = client.get(f"{AT}/versions").text
    assert "private data set" in page
    assert "ann/exam" not in page
    sign_in(client, ann)
    assert post(client, "/ungate", alias="prod")[0] == 303
    assert post(client, alias="prod", revision="v2")[0] == 303
