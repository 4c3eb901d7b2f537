"""The forms that move an alias and roll it back."""

from starlette.testclient import TestClient

from hub.registry.services import Services
from tests.conftest import Person
from tests.registry.made import adapter
from tests.web.test_pages import HTML, sign_in


def test_an_alias_is_moved_and_rolled_back_by_forms(
    client: TestClient, services: Services, ann: Person, bob: Person
) -> None:
    commits = [adapter(services, ann, "ann/x", seed=seed) for seed in range(2)]
    sign_in(client, ann)
    page = client.get("/adapters/ann/x").text
    assert 'action="/adapters/ann/x/aliases"' in page
    for revision in ("v1", "main"):
        form = {"alias": " prod ", "revision": revision}
        answer = client.post("/adapters/ann/x/aliases", data=form, follow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/adapters/ann/x")
    page = client.get("/adapters/ann/x").text
    assert 'prod <span class="quiet">v2</span>' in page
    assert f"move to <code>{commits[1].id[:12]}</code> by ann" in page
    client.post("/adapters/ann/x/aliases/prod/rollback")
    assert 'prod <span class="quiet">v1</span>' in client.get("/adapters/ann/x").text
    refused = client.post("/adapters/ann/x/aliases/prod/rollback", headers=HTML)
    assert refused.status_code == 409
    assert "stood for nothing else before" in refused.text

    other_site = {"Sec-Fetch-Site": "cross-site"}
    form = {"alias": "prod", "revision": "v2"}
    assert client.post("/adapters/ann/x/aliases", data=form, headers=other_site).status_code == 403
    sign_in(client, bob)
    page = client.get("/adapters/ann/x").text
    assert "prod" in page
    assert "Roll prod back" not in page
    assert client.post("/adapters/ann/x/aliases", data=form).status_code == 403
    client.cookies.clear()
    assert client.post("/adapters/ann/x/aliases/prod/rollback", follow_redirects=False).status_code == 401
