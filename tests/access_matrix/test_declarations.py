"""Every route that changes something declares in its signature what it needs, or says why it needs nothing."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

import hub
from hub.http.identity import SignedIn
from hub.http.permissions import Public
from hub.registry.access.permissions import Permit
from tests.access_matrix.routes import api_routes, row_path
from tests.access_matrix.table import CHANGING_GETS

READING = {"GET", "HEAD", "OPTIONS"}


def declarations(dependant: Dependant) -> Iterator[object]:
    for dependency in dependant.dependencies:
        yield from declarations(dependency)
        if isinstance(dependency.call, Public):
            yield dependency.call
        elif dependency.call is not None:
            hint = get_type_hints(dependency.call).get("return")
            if isinstance(hint, type) and issubclass(hint, Permit):
                yield hint


def changing() -> list[APIRoute]:
    return [
        route for route in api_routes() if not (route.methods or set()) <= READING or row_path(route) in CHANGING_GETS
    ]


def test_every_route_that_changes_something_declares_its_permit() -> None:
    without = [
        f"{sorted(route.methods or ())} {route.path}" for route in changing() if not list(declarations(route.dependant))
    ]
    assert without == []
    assert {row_path(route) for route in changing()} > CHANGING_GETS


def test_a_route_declares_either_a_permit_or_that_it_is_public() -> None:
    for route in changing():
        kinds = {isinstance(each, Public) for each in declarations(route.dependant)}
        assert len(kinds) == 1, route.path


def test_a_public_route_says_why() -> None:
    public = [each for route in changing() for each in declarations(route.dependant) if isinstance(each, Public)]
    assert all(each.why for each in public)


def test_to_be_signed_in_is_no_declaration() -> None:
    router = APIRouter()

    @router.post("/thing")
    def change(viewer: SignedIn) -> None: ...

    (route,) = router.routes
    assert isinstance(route, APIRoute)
    assert list(declarations(route.dependant)) == []


def permits(base: type[Permit] = Permit) -> Iterator[type[Permit]]:
    for permit in base.__subclasses__():
        yield from (permit, *permits(permit))


def test_permits_are_made_only_where_somebody_was_checked() -> None:
    made = re.compile(rf"(?<!class )\b({'|'.join(permit.__name__ for permit in permits())})\(")
    root = Path(hub.__file__).parent.parent
    files = [path for package in ("api", "hub", "workers") for path in (root / package).rglob("*.py")]
    makers = {(path.name, call[1]) for path in files for call in made.finditer(path.read_text())}
    assert makers == {("repos.py", "WriteRepo"), ("repos.py", "Target"), ("organizations.py", "RemoveMember")}
