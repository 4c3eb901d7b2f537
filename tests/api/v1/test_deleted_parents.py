"""What was made from something that is deleted stays, says that it cannot be made again, and no more once that is restored."""

from typing import Any

from starlette.testclient import TestClient

from hub.registry.content.history import Parent
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.published import adapter, woven


def test_a_deleted_parent_is_counted_on_the_child_until_it_is_restored(
    client: TestClient, services: Services, ann: Person, admin: Person
) -> None:
    parent = adapter(services, ann, "ann/parent", seed=1)
    woven(services, ann, "ann/child", "internal", Parent(parent.id, "module", 1.0))

    def child() -> Any:
        return client.get("/v1/adapters/ann/child", headers=ann.headers).json()

    assert child()["lost_inputs"] == 0
    assert client.delete("/v1/adapters/ann/parent", headers=ann.headers).status_code == 204
    assert child()["lost_inputs"] == 1
    assert [line["repo"] for line in child()["parents"]] == ["private module"]
    assert client.get("/v1/adapters/ann/child/archive", headers=ann.headers).status_code == 200
    assert client.post("/v1/adapters/ann/parent/restore", headers=admin.headers).status_code == 200
    assert child()["lost_inputs"] == 0
