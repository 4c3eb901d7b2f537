"""Which adapters can be composed is decided from facts alone; every other adapter has its reason."""

import pytest

from hub.registry.inspection.facts import NOT_PLAIN
from hub.registry.jobs import eligibility
from hub.registry.jobs.eligibility import incompatibility_reason
from hub.registry.jobs.requests.common import Module
from hub.registry.jobs.requests.compose import ON_FACTORS
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import TINY
from tests.support.published import adapter, base

Adapter = tuple[str | None, str | None, list[str], list[int]]  # base id, base model, flags, ranks

OWN: Adapter = ("a/base", "a/base", [], [8])


@pytest.mark.parametrize(
    ("candidate", "form", "equal_to", "reason"),
    [
        (OWN, "sum", None, ""),
        (OWN, "product", [8], ""),
        (("a/base", "an/alias", [], [8]), "sum", None, ""),
        ((None, None, [], [8]), "sum", None, "names no base"),
        ((None, "b/base", [], [8]), None, None, "is for b/base, which is not registered here"),
        (("b/base", "b/base", [], [8]), None, None, "is for b/base"),
        (("a/base", "a/base", ["dora"], [8]), "sum", None, "uses dora, which a weighted sum of A and B cannot express"),
        (("a/base", "a/base", ["dora"], [8]), None, None, ""),
        (("a/base", "a/base", ["rslora"], [8]), "sum", None, ""),
        (("a/base", "a/base", [], [4, 8]), "sum", None, ""),
        (
            ("a/base", "a/base", [], [4, 8]),
            "product",
            [8],
            "has rank 4 and 8, and the form product needs rank 8 as the others have",
        ),
    ],
)
def test_why_one_does_not_fit(candidate: Adapter, form: str | None, equal_to: list[int] | None, reason: str) -> None:
    assert incompatibility_reason(*candidate, "a/base", form, equal_to) == reason


@pytest.mark.parametrize("flag", sorted(NOT_PLAIN))
def test_nothing_that_is_not_plain_is_offered(flag: str) -> None:
    assert flag in incompatibility_reason("a/base", "a/base", [flag], [8], "a/base", "sum", None)


def test_what_is_offered_is_what_the_viewer_may_see(services: Services, ann: Person, bob: Person) -> None:
    base(services)
    base(services, "tests/other")
    adapter(services, ann, "ann/a", seed=1, visibility="private")
    adapter(services, bob, "bob/hidden", seed=2, visibility="private")
    adapter(services, bob, "bob/shown", seed=3, visibility="internal")
    adapter(services, bob, "bob/foreign", seed=4, base="tests/other")
    with transaction(services.sessions) as session:
        for form in (None, "sum", *ON_FACTORS):
            found = eligibility.candidates(session, ann.viewer, TINY, form=form)
            assert [offer.reference for offer in found.fitting] == ["bob/shown", "ann/a"]
            assert [(offer.reference, offer.reason) for offer in found.others] == [
                ("bob/foreign", "is for tests/other")
            ]
            assert not found.more
        assert eligibility.candidates(session, None, TINY).fitting == []
        assert eligibility.bases_with_modules(session, ann.viewer) == [(TINY, 2), ("tests/other", 1)]
        assert eligibility.bases_with_modules(session, None) == [("tests/other", 0), (TINY, 0)]
        assert eligibility.base_of(session, ann.viewer, Module(repo="bob/foreign")) == "tests/other"


def test_equal_ranks_are_those_of_the_first_chosen_else_the_commonest(services: Services, ann: Person) -> None:
    base(services)
    for seed, rank in enumerate((2, 2, 4)):
        adapter(services, ann, f"ann/m{seed}", seed=seed, rank=rank)
    with transaction(services.sessions) as session:

        def names(chosen: list[str]) -> list[str]:
            found = eligibility.candidates(session, ann.viewer, TINY, form="product", chosen=chosen)
            return [offer.repo for offer in found.fitting]

        assert names([]) == ["ann/m1", "ann/m0"]
        assert names(["ann/m2"]) == ["ann/m2"]
        assert names(["ann/none", "ann/m0", "ann/m2"]) == ["ann/m1", "ann/m0"]


def test_only_the_newest_are_listed(services: Services, ann: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    base(services)
    for seed in range(3):
        adapter(services, ann, f"ann/m{seed}", seed=seed)
    monkeypatch.setattr(eligibility, "MOST", 2)
    with transaction(services.sessions) as session:
        found = eligibility.candidates(session, ann.viewer, TINY, form="sum")
    assert [offer.repo for offer in found.fitting] == ["ann/m2", "ann/m1"]
    assert found.more
