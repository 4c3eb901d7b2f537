"""The map of a library through the database: near duplicates, by base, and never what the viewer may not see."""

from collections.abc import Sequence

import pytest
from starlette.testclient import TestClient

from hub.registry.access.viewer import Viewer
from hub.registry.library import similar
from hub.registry.library.similar import TooManyModules
from hub.registry.models.adapters import AdapterFacts
from hub.registry.operations import sweep
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import TINY
from tests.support.http import upload_adapter
from tests.support.published import adapter, base


def map_of(services: Services, viewer: Viewer | None, name: str = TINY, namespaces: Sequence[str] = ()) -> similar.Map:
    with transaction(services.sessions) as session:
        return similar.library_map(session, viewer, name, namespaces=namespaces)


def names(found: similar.Map) -> list[str]:
    return [module.name for module in found.modules]


def test_a_map_has_the_modules_of_one_base_under_any_of_its_names(services: Services, ann: Person) -> None:
    base(services, TINY, "org/tiny-4bit")
    adapter(services, ann, "ann/one", seed=1)
    adapter(services, ann, "ann/twin", seed=1, base="org/tiny-4bit", lora_alpha=7)
    adapter(services, ann, "ann/two", seed=2)
    adapter(services, ann, "ann/elsewhere", seed=1, base="org/other")
    for name in (TINY, "org/tiny-4bit"):
        found = map_of(services, ann.viewer, name)
        assert names(found) == ["ann/one", "ann/twin", "ann/two"]
        assert [(i, j) for i, j, _ in found.duplicates] == [(0, 1)]
        assert found.cosines[0, 1] == pytest.approx(1)
        assert abs(found.cosines[0, 2]) < 0.5
        assert found.clusters == [[0, 1], [2]]
    assert names(map_of(services, ann.viewer, "org/other")) == ["ann/elsewhere"]
    assert names(map_of(services, ann.viewer, "org/nothing")) == []


def test_a_map_shows_each_viewer_what_they_may_see(services: Services, ann: Person, bob: Person) -> None:
    adapter(services, ann, "ann/private", seed=1, visibility="private")
    adapter(services, ann, "ann/public", seed=1, visibility="public")
    adapter(services, bob, "bob/internal", seed=1)
    assert names(map_of(services, ann.viewer)) == ["ann/private", "ann/public", "bob/internal"]
    assert names(map_of(services, bob.viewer)) == ["ann/public", "bob/internal"]
    assert names(map_of(services, None)) == ["ann/public"]
    assert names(map_of(services, bob.viewer, namespaces=["bob"])) == ["bob/internal"]


def test_a_map_has_the_head_of_main_and_nothing_deleted(services: Services, ann: Person, client: TestClient) -> None:
    adapter(services, ann, "ann/one", seed=1)
    adapter(services, ann, "ann/one", seed=2)
    adapter(services, ann, "ann/two", seed=2)
    adapter(services, ann, "ann/gone", seed=2)
    assert client.delete("/v1/adapters/ann/gone", headers=ann.headers).status_code == 204
    found = map_of(services, ann.viewer)
    assert names(found) == ["ann/one", "ann/two"]
    assert len(found.duplicates) == 1


def test_what_is_no_update_of_the_base_has_no_place(services: Services, ann: Person) -> None:
    adapter(services, ann, "ann/plain")
    adapter(services, ann, "ann/pissa", init_lora_weights="pissa")
    found = map_of(services, ann.viewer)
    assert names(found) == ["ann/plain"]
    assert [module.name for module in found.unplaced] == ["ann/pissa"]


def test_a_map_has_a_limit(services: Services, ann: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "MAX_MODULES", 1)
    adapter(services, ann, "ann/one")
    map_of(services, ann.viewer)
    adapter(services, ann, "ann/two")
    with pytest.raises(TooManyModules, match="2 adapters"):
        map_of(services, ann.viewer)


def test_modules_from_before_there_were_sketches_get_theirs_from_the_sweep(services: Services, ann: Person) -> None:
    commits = [adapter(services, ann, f"ann/a{seed}", seed=seed) for seed in range(3)]
    with transaction(services.sessions) as session:
        kept = [session.get_one(AdapterFacts, (commit.id, "")).sketch for commit in commits]
        for commit in commits:
            session.get_one(AdapterFacts, (commit.id, "")).sketch = None
    assert names(map_of(services, ann.viewer)) == []
    assert similar.sketch_missing(services, limit=2) == 2
    sweep.sweep(services)
    with transaction(services.sessions) as session:
        assert [session.get_one(AdapterFacts, (commit.id, "")).sketch for commit in commits] == kept
    assert similar.sketch_missing(services) == 0


def test_an_upload_s_answer_alone_names_its_near_duplicates(client: TestClient, ann: Person, bob: Person) -> None:
    upload_adapter(client, ann.headers, "ann/hidden", seed=1, visibility="private")
    upload_adapter(client, ann.headers, "ann/first", seed=1, visibility="public")
    answer = upload_adapter(client, bob.headers, "bob/copy", seed=1, lora_alpha=6, visibility="public")
    (warning,) = [finding for finding in answer["findings"] if finding["code"] == "near_duplicate"]
    assert "1.00 the same as that of ann/first" in warning["message"]
    assert "hidden" not in str(answer)
    kept = client.get("/v1/adapters/bob/copy").json()
    assert "near_duplicate" not in str(kept)
    again = upload_adapter(client, bob.headers, "bob/other", seed=2)
    assert "near_duplicate" not in str(again)
    newer = upload_adapter(client, bob.headers, "bob/other", seed=2, lora_alpha=9)
    assert "near_duplicate" not in str(newer), "a repo is no duplicate of itself"


def test_similar_modules_and_the_map_over_rest(client: TestClient, ann: Person, bob: Person) -> None:
    upload_adapter(client, ann.headers, "ann/hidden", seed=1, visibility="private")
    upload_adapter(client, ann.headers, "ann/first", seed=1, visibility="public")
    upload_adapter(client, ann.headers, "ann/apart", seed=5, visibility="public")
    upload_adapter(client, bob.headers, "bob/copy", seed=1, visibility="public")
    found = client.get("/v1/adapters/bob/copy/similar", headers=bob.headers).json()
    assert [each["module"]["repo"] for each in found] == ["ann/first"]
    assert found[0]["cosine"] == pytest.approx(1)
    everything = client.get("/v1/adapters/bob/copy/similar?least=-1", headers=ann.headers).json()
    assert [each["module"]["repo"] for each in everything] == ["ann/first", "ann/hidden", "ann/apart"]
    assert client.get("/v1/adapters/ann/hidden/similar", headers=bob.headers).status_code == 404

    drawn = client.get("/v1/map", params={"base_model": TINY}).json()
    assert [module["repo"] for module in drawn["modules"]] == ["ann/apart", "ann/first", "bob/copy"]
    assert [(pair["first"], pair["second"]) for pair in drawn["duplicates"]] == [(1, 2)]
    assert drawn["clusters"] == [[1, 2], [0]]
    assert [row[i] for i, row in enumerate(drawn["cosines"])] == [1, 1, 1]
    assert drawn["scores"] == []
    assert client.get("/v1/map").status_code == 422
