"""Facets: counts under the other filters, exact to a thousand, and nothing of what the viewer may not see."""

import pytest
from sqlalchemy import func, select, update

from hub.registry.access.viewer import Viewer
from hub.registry.content import repos
from hub.registry.library import facets
from hub.registry.library.facets import Facet, Facets
from hub.registry.library.search import Filters
from hub.registry.models.adapters import AdapterFacts
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import peft_folder
from tests.support.published import adapter, base

NO_FILTERS = Filters()


def found(services: Services, viewer: Viewer | None, filters: Filters = NO_FILTERS) -> Facets:
    with transaction(services.sessions) as session:
        return facets.facets(session, viewer, filters)


def counts(services: Services, viewer: Viewer | None, facet: Facet, filters: Filters = NO_FILTERS) -> dict[str, int]:
    values = found(services, viewer, filters).values[facet]
    assert not any(value.more for value in values)
    return {value.value: value.count for value in values}


def tagged(*tags: str, method: str = "lora", seed: int = 0, base: str = "org/base") -> dict[str, bytes]:
    card = f"---\nlicense: mit\ntags: [{', '.join(tags)}]\n---\nA module.\n".encode()
    return {
        **peft_folder(seed=seed, base=base),
        "README.md": card,
        "loraloom.json": f'{{"method": "{method}"}}'.encode(),
    }


def library(services: Services, ann: Person, bob: Person) -> None:
    base(services, "org/base", "org/base-4bit")
    adapter(services, ann, "ann/one", files=tagged("verbs", "test", seed=1))
    adapter(services, ann, "ann/two", files=tagged("verbs", seed=2, base="org/base-4bit"), visibility="public")
    adapter(services, bob, "bob/three", files=tagged("nouns", method="lorahub", seed=3, base="org/other"))


def test_each_facet(services: Services, ann: Person, bob: Person) -> None:
    library(services, ann, bob)
    assert found(services, ann.viewer).total == facets.Count(3, more=False)
    assert counts(services, ann.viewer, "base") == {"org/base": 2, "org/other": 1}
    assert counts(services, ann.viewer, "method") == {"lora": 2, "lorahub": 1}
    assert counts(services, ann.viewer, "task") == {"CAUSAL_LM": 3}
    assert counts(services, ann.viewer, "tag") == {"verbs": 2, "nouns": 1, "test": 1}
    assert counts(services, ann.viewer, "owner") == {"ann": 2, "bob": 1}
    assert counts(services, ann.viewer, "visibility") == {"internal": 2, "public": 1}


def test_a_facet_is_counted_under_the_other_filters(services: Services, ann: Person, bob: Person) -> None:
    library(services, ann, bob)
    assert counts(services, ann.viewer, "owner", filters=Filters(method="lora")) == {"ann": 2}
    assert counts(services, ann.viewer, "method", filters=Filters(method="lora")) == {"lora": 2, "lorahub": 1}
    assert counts(services, ann.viewer, "method", filters=Filters(method="lora", owner="bob")) == {"lorahub": 1}
    assert counts(services, ann.viewer, "base", filters=Filters(base_model="org/base-4bit", text="three")) == {
        "org/other": 1
    }
    assert found(services, ann.viewer, filters=Filters(method="lora", owner="bob")).total.count == 0
    # A further tag narrows the search.
    assert counts(services, ann.viewer, "tag", filters=Filters(tag=["verbs"])) == {"verbs": 2, "test": 1}


def test_nobody_counts_what_they_may_not_see(services: Services, ann: Person, bob: Person, admin: Person) -> None:
    base(services, "org/base")
    adapter(services, bob, "bob/seen", files=tagged("shared", seed=1), visibility="public")
    secret = tagged("shared", "merger", method="secret-method", seed=2, base="acme/secret-base")
    adapter(services, ann, "ann/hidden", files=secret, visibility="private")
    inside = tagged("shared", "staff", seed=3)
    adapter(services, ann, "ann/inside", files=inside)
    for viewer, total in ((None, 1), (bob.viewer, 2), (ann.viewer, 3), (admin.viewer, 3)):
        seen = found(services, viewer)
        assert seen.total.count == total
        assert {value.value: value.count for value in seen.values["tag"]}["shared"] == total
        listed = {value.value for values in seen.values.values() for value in values}
        hidden = {"merger", "secret-method", "acme/secret-base", "private"}
        assert listed & hidden == (hidden if total == 3 else set())
        assert ("staff" in listed, "ann" in listed) == (total > 1, total > 1)
        searches: tuple[Filters, ...] = (
            Filters(text="hidden"),
            Filters(tag=["merger"]),
            Filters(owner="ann", visibility="private"),
        )
        for filters in searches:
            asked = found(services, viewer, filters)
            assert asked.total.count == (1 if total == 3 else 0)
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "model", "ann/inside"))
    assert counts(services, ann.viewer, "tag") == {"shared": 2, "merger": 1}


def test_a_token_that_is_limited_counts_what_it_may_read(services: Services, ann: Person) -> None:
    for name in ("one", "two"):
        adapter(services, ann, f"ann/{name}", files=tagged(name, seed=len(name)), visibility="private")
    limited = Viewer(ann.viewer.id, "ann", is_admin=False, repos=("ann/one",))
    assert counts(services, limited, "tag") == {"one": 1}


def test_counts_are_exact_to_a_thousand(services: Services, ann: Person) -> None:
    commit = adapter(services, ann, "ann/a", files=tagged("most", "common"))
    with transaction(services.sessions) as session:
        (facts,) = repos.facts(session, commit)
        columns = {c.key: getattr(facts, c.key) for c in facts.__table__.columns if c.computed is None}
        for index in range(1, 1001):
            tags = ["most"] if index == 1000 else ["most", "common"]
            session.add(AdapterFacts(**{**columns, "folder": f"{index}", "tags": tags}))
    seen = found(services, ann.viewer)
    assert seen.total == facets.Count(1000, more=True)
    assert seen.values["tag"] == [facets.Value(1000, True, "most"), facets.Value(1000, False, "common")]
    assert seen.values["owner"] == [facets.Value(1000, True, "ann")]


@pytest.mark.parametrize("same", [(), ("two", "three"), ("one", "two"), ("one", "two", "three", "four")])
def test_what_lies_beyond_the_window_is_counted_exactly(
    services: Services, ann: Person, bob: Person, monkeypatch: pytest.MonkeyPatch, same: tuple[str, ...]
) -> None:
    """As it is for a search that finds more than are looked at: the values come from the newest ones, their counts from all.

    `same`: those published at one time, of which the window's end may have one in and one out.
    """
    library(services, ann, bob)
    adapter(services, ann, "ann/four", files=tagged("verbs", "test", seed=4), visibility="private")
    with transaction(services.sessions) as session:
        times = select(func.max(AdapterFacts.published_at)).where(AdapterFacts.name.in_(same)).scalar_subquery()
        session.execute(update(AdapterFacts).where(AdapterFacts.name.in_(same)).values(published_at=times))
    facets_of: tuple[Facet, ...] = ("base", "method", "task", "tag", "owner", "visibility")
    searches: tuple[Filters, ...] = (
        Filters(),
        Filters(method="lora"),
        Filters(tag=["verbs"]),
        Filters(text="verbs", owner="ann"),
        Filters(visibility="private"),
    )
    whole = [{f: counts(services, ann.viewer, f, filters=each) for f in facets_of} for each in searches]
    monkeypatch.setattr(facets, "WINDOW", 2)
    monkeypatch.setattr(facets, "WIDE", 2)
    for each, expected in zip(searches, whole, strict=True):
        for facet in facets_of:
            seen = counts(services, ann.viewer, facet, filters=each)
            assert seen.items() <= expected[facet].items()
            assert seen or not expected[facet]
    assert counts(services, ann.viewer, "owner") == {"ann": 3, "bob": 1}
    assert counts(services, ann.viewer, "tag") == {"verbs": 3, "test": 2, "nouns": 1}
    # Of what bob may not see, nothing is counted there either.
    assert counts(services, bob.viewer, "owner") == {"ann": 2, "bob": 1}
