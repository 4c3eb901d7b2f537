"""The tab that tries an adapter: a prompt becomes a job of the kind `generate`, and its answers come back to the tab."""

import re

from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from hub.registry.models.jobs import Job
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.pages import EVIL, sign_in
from tests.support.published import adapter, base

AT = "/adapters/ann/x"


def test_a_prompt_is_answered_side_by_side(client: TestClient, services: Services, ann: Person, bob: Person) -> None:
    base(services)
    adapter(services, ann, "ann/x", seed=1, visibility="public")
    adapter(services, ann, "ann/x", seed=2)
    assert "Sign in</a> to try it" in client.get(f"{AT}/try").text
    sign_in(client, bob)
    form = {"prompt": f"{EVIL}?", "tokens": "8", "revision": "v1"}
    answer = client.post(f"{AT}/try", data=form, follow_redirects=False)
    assert answer.status_code == 303
    page = client.get(answer.headers["Location"]).text
    assert "Waiting for a worker" in page
    assert '<meta http-equiv="refresh"' in page
    assert re.search(r'hx-get="/adapters/ann/x/try\?revision=v1&amp;job=[0-9a-f-]+"', page)
    with transaction(services.sessions) as session:
        job = session.scalars(select(Job)).one()
        assert (job.params["prompt"], job.params["max_new_tokens"]) == (form["prompt"], 8)
        result = {"answers": {"base": "one", "adapter": EVIL}, "template": "chat"}
        values = {"state": "succeeded", "result": result, "started_at": func.now(), "finished_at": func.now()}
        session.execute(update(Job).values(**values))
    page = client.get(answer.headers["Location"]).text
    assert "<pre>one</pre>" in page
    assert EVIL not in page
    assert "hx-get" not in page
    sign_in(client, ann)
    assert client.get(answer.headers["Location"]).status_code == 404, "it is bob's"


def test_what_cannot_be_tried_is_said_in_place(client: TestClient, services: Services, ann: Person) -> None:
    adapter(services, ann, "ann/x")
    sign_in(client, ann)
    assert "which is not registered on this hub" in client.get(f"{AT}/try").text
    refused = client.post(f"{AT}/try", data={"prompt": "hello"})
    assert refused.status_code == 422
    base(services)
    for form, why in (
        ({"prompt": ""}, "The prompt cannot be used"),
        ({"prompt": "x", "tokens": "0"}, "The max_new_tokens cannot be used"),
        ({"prompt": "x", "folder": "none"}, "has no sound adapter in its folder"),
    ):
        refused = client.post(f"{AT}/try", data=form)
        assert refused.status_code == 422
        assert why in refused.text
    with transaction(services.sessions) as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0
