"""Every route, asked as every role for repos of every visibility, answers what the table says; and every route is in the table."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, func, select

from api import huggingface
from hub.http.identity import COOKIE
from hub.registry.access import credentials
from hub.registry.models.access import AuditEvent
from hub.registry.platform.db import transaction
from tests.access_matrix.conftest import ORGANIZATION, Instance
from tests.access_matrix.routes import api_routes, row_path
from tests.access_matrix.table import ANSWERS, CHANGING_GETS, OK, ROLES, TABLE, VISIBILITIES, Row
from tests.support.files import examples_file, peft_folder
from tests.support.http import upload


def asked(row: Row, things: Mapping[str, str]) -> str:
    """The row's address with the things filled in; a parameter that nothing stands for gets a name that nothing has."""
    path = row.asked or row.path.replace("{kind}", "models" if row.path.startswith("/api/") else "adapters")
    path = path.replace("{namespace}/{name}", "{repo}").replace("{namespace}", ORGANIZATION)
    path = path.replace("{organization}", ORGANIZATION)
    return re.sub(r"\{(\w+)\}", lambda match: things.get(match[1], "none"), path)


def filled(value: Any, things: Mapping[str, str]) -> Any:
    if not isinstance(value, Mapping):
        return value
    text = re.sub(r"\{(repo|dataset|fresh)\}", lambda match: things[match[1]], json.dumps(value))
    return json.loads(text)


def answer(instance: Instance, row: Row, role: str, visibility: str) -> int:
    things = instance.named(visibility)
    person = instance.people.get(role)
    headers = person.headers if person else {}
    instance.client.cookies.clear()
    kind = row.send.get("upload")
    if kind is not None:
        name = f"{ORGANIZATION}/up{things['fresh']}"
        files = peft_folder() if kind == "adapter" else {"train.jsonl": examples_file()}
        return int(upload(instance.client, headers, name, files, kind=f"{kind}s").status_code)
    send = {key: filled(value, things) for key, value in row.send.items()}
    url = asked(row, things)
    response = instance.client.request(row.method, url, headers=headers, follow_redirects=False, **send)
    return response.status_code


def audit_lines(instance: Instance) -> int:
    with transaction(instance.services.sessions) as session:
        events = select(func.count()).select_from(AuditEvent).where(AuditEvent.action != "sign_in.failed")
        return session.scalar(events) or 0


@contextmanager
def writes(instance: Instance) -> Iterator[list[str]]:
    """The statements meanwhile that change rows."""
    statements: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE")):
            statements.append(statement)

    engine = instance.services.sessions.kw["bind"]
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def check_record(row: Row, status: int, lines: int) -> None:
    """An act leaves its line in the audit log; what was refused, or only read, leaves none."""
    acts = status < 400 and row.method not in ("GET", "HEAD") and not row.silent
    assert (lines > 0) == acts, f"{lines} lines of the audit log for the status {status}"


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.method} {row.path}")
def test_a_route_answers_each_role_as_the_table_says(instance: Instance, row: Row) -> None:
    expected, found = {}, {}
    # What the need makes no difference of by visibility is asked for one alone.
    by_role = ANSWERS[row.need]
    visibilities = VISIBILITIES if any(isinstance(codes, tuple) for codes in by_role.values()) else VISIBILITIES[:1]
    for role in ROLES:
        codes = by_role[role]
        for place, visibility in enumerate(visibilities):
            code = codes[place] if isinstance(codes, tuple) else codes
            expected[role, visibility] = code if code != OK else row.ok
            instance.named(visibility)  # made before lines of the audit log are counted
            before = audit_lines(instance)
            with writes(instance) as statements:
                found[role, visibility] = answer(instance, row, role, visibility)
            if row.method in ("GET", "HEAD") and row.path not in CHANGING_GETS:
                assert statements == []
            check_record(row, found[role, visibility], audit_lines(instance) - before)
            if row.spends and found[role, visibility] < 400:
                instance.spend(visibility)
    assert found == expected


def routes() -> Iterator[tuple[str, str]]:
    for route in api_routes():
        for method in route.methods or ():
            yield method, row_path(route)


def test_every_route_has_its_row_and_no_row_is_of_a_route_that_is_gone(instance: Instance) -> None:
    table = [(row.method, row.path) for row in TABLE]
    assert len(table) == len(set(table))
    assert set(table) == set(routes())
    # And the modules named above are all that the application answers with.
    assert sum(1 for _ in huggingface.router.routes) == 11


# Those of the protocol take tokens and signed addresses alone.
PROTOCOL = ("/v1/", "/api/", "/oauth/", "/{namespace}/{name}.git/")
FORMS = [row for row in TABLE if row.method == "POST" and not row.path.startswith(PROTOCOL)]


@pytest.mark.parametrize("row", FORMS, ids=lambda row: row.path)
def test_a_form_of_another_site_does_nothing_with_the_visitor_s_cookie(instance: Instance, row: Row) -> None:
    owner, client = instance.people["owner"], instance.client
    client.cookies.clear()
    with transaction(instance.services.sessions) as session:
        client.cookies.set(COOKIE, credentials.start_session(session, owner.viewer, 1))
    things = instance.named("private")
    send = {key: filled(value, things) for key, value in row.send.items() if key != "upload"}
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
    ):
        assert client.post(asked(row, things), headers=headers, follow_redirects=False, **send).status_code == 403
    client.cookies.clear()
