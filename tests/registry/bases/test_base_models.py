"""Registered bases: one name means one base, and what is registered later is known to what came before."""

from typing import Any

import pytest

from hub.registry.bases import base_models
from hub.registry.content import repos
from hub.registry.models.bases import RegisteredBase
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.published import adapter


def register(services: Services, base_id: str, *aliases: str, **changes: Any) -> RegisteredBase:
    values = {
        "path": "/models/base",
        "revision": None,
        "dtype": "float32",
        "licence": None,
        "shapes": {"layer": (8, 16)},
        "fingerprint": "0" * 64,
        **changes,
    }
    with transaction(services.sessions) as session:
        return base_models.register(session, base_id, aliases=aliases, **values)


def find(services: Services, name: str) -> RegisteredBase:
    with transaction(services.sessions) as session:
        return base_models.find(session, name)


def test_a_base_is_found_under_each_of_its_names(services: Services) -> None:
    register(services, "org/base", "org/base-4bit", "/models/base")
    for name in ("org/base", "org/base-4bit", "/models/base"):
        assert find(services, name).id == "org/base"
    with transaction(services.sessions) as session:
        names = {"org/base", "org/base-4bit", "/models/base"}
        assert base_models.names(session) == dict.fromkeys(names, "org/base")


def test_an_unknown_base_is_refused_naming_the_known_ones(services: Services) -> None:
    with pytest.raises(base_models.BaseNotFound, match="none yet"):
        find(services, "org/base")
    register(services, "org/b")
    register(services, "org/a")
    with pytest.raises(base_models.BaseNotFound, match="org/a, org/b"):
        find(services, "org/base")


def test_registering_again_brings_a_base_up_to_date(services: Services) -> None:
    register(services, "org/base", "old", "kept")
    register(services, "org/base", "kept", "new", revision="r2", dtype="bfloat16", shapes={"other": (4, 4)})
    base = find(services, "new")
    assert (base.revision, base.dtype, base.shapes) == ("r2", "bfloat16", {"other": [4, 4]})
    with transaction(services.sessions) as session:
        assert sorted(base_models.names(session)) == ["kept", "new", "org/base"]
        assert len(base_models.listing(session)) == 1


def test_a_name_means_one_base(services: Services) -> None:
    register(services, "org/one", "shared")
    for base_id, alias in (("org/two", "shared"), ("shared", "org/x"), ("org/two", "org/one")):
        with pytest.raises(base_models.BaseExists):
            register(services, base_id, alias)
    with transaction(services.sessions) as session:
        assert base_models.names(session) == {"org/one": "org/one", "shared": "org/one"}


def test_a_base_s_own_id_among_its_aliases_is_no_other_base(services: Services) -> None:
    for _ in range(2):
        assert [alias.alias for alias in register(services, "org/one", "org/one", "b", "a", "a").aliases] == ["a", "b"]


def test_inspection_receives_names_and_shapes(services: Services) -> None:
    register(services, "org/base", "alias")
    with transaction(services.sessions) as session:
        (known,) = base_models.known(session)
    assert (known.id, known.aliases, dict(known.shapes)) == ("org/base", ("alias",), {"layer": (8, 16)})


def test_adapters_that_came_before_their_base_learn_of_it_and_of_its_loss_of_a_name(
    services: Services, ann: Person
) -> None:
    commit = adapter(services, ann, "ann/a", base="/home/me/base")
    other = adapter(services, ann, "ann/b", base="org/another")

    def base_id(of: Any) -> str | None:
        with transaction(services.sessions) as session:
            return repos.facts(session, of)[0].base_id

    assert base_id(commit) is None
    register(services, "org/base", "/home/me/base")
    assert base_id(commit) == "org/base"
    assert base_id(other) is None
    register(services, "org/another")
    register(services, "org/base")
    assert base_id(commit) is None
    assert base_id(other) == "org/another"
