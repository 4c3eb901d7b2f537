"""Who is asking: names, tokens and sessions of which nothing but a hash is kept, and who may write where."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text, update

from hub.registry.access import credentials, permissions, users
from hub.registry.access.permissions import Write
from hub.registry.access.viewer import Viewer
from hub.registry.models.access import BrowserSession, Membership, Token, User
from hub.registry.platform.db import Table, transaction
from hub.registry.platform.errors import Forbidden, NotFound, NotSignedIn
from hub.registry.platform.services import Services
from tests.conftest import Person


@pytest.mark.parametrize("name", ["a", "Ann", "ann.b", "ann-b_c", "a" * 96, "0ann", "ann_"])
def test_names_that_clients_accept(name: str) -> None:
    assert users.check_name(name, "The name") == name


@pytest.mark.parametrize(
    "name", ["", "a" * 97, "-a", "a-", ".a", "a.", "_a", "a--b", "a..b", "a b", "a/b", "é", "a\n", "a\0", "../a"]
)
def test_names_that_clients_would_refuse(name: str) -> None:
    with pytest.raises(users.BadName, match="The name"):
        users.check_name(name, "The name")


def test_a_user_comes_with_a_namespace_of_the_same_name(services: Services, ann: Person) -> None:
    with transaction(services.sessions) as session:
        assert permissions.role(session, ann.viewer, "ann") == "admin"
        assert users.get_user(session, "ann").id == ann.viewer.id
        with pytest.raises(NotFound, match="nobody"):
            users.get_user(session, "nobody")


@pytest.mark.parametrize("name", ["ann", "ANN", "Ann"])
def test_a_name_is_taken_however_it_is_written(services: Services, ann: Person, name: str) -> None:
    with transaction(services.sessions) as session, pytest.raises(users.NameTaken, match=name):
        users.create_user(session, name)


def test_of_many_who_want_a_name_at_once_one_gets_it(services: Services) -> None:
    def create(_: int) -> bool:
        try:
            with transaction(services.sessions) as session:
                users.create_user(session, "zoe")
        except users.NameTaken:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(create, range(6))) == [False] * 5 + [True]


def test_ensuring_a_user_twice_gives_the_same_one(services: Services) -> None:
    with transaction(services.sessions) as session:
        first = users.ensure_user(session, "starter").id
    with transaction(services.sessions) as session:
        assert users.ensure_user(session, "starter").id == first
        assert session.scalar(select(func.count()).select_from(User)) == 1
        assert session.get_one(Membership, ("starter", first)).role == "admin"


def everything(services: Services) -> Iterator[str]:
    """Every row of every table, as text."""
    with transaction(services.sessions) as session:
        for table in Table.metadata.sorted_tables:
            yield from session.scalars(text(f'SELECT t::text FROM "{table.name}" t'))  # noqa: S608 - our own names


def test_no_table_holds_a_secret(services: Services, ann: Person) -> None:
    with transaction(services.sessions) as session:
        _, second = credentials.issue_token(session, ann.viewer.id, "another")
        cookie = credentials.start_session(session, ann.viewer, days=1)
    kept = "\n".join(everything(services))
    assert "another" in kept  # the search does find what is kept
    for secret in (ann.token, second, cookie):
        assert secret not in kept
        assert secret.removeprefix(credentials.TOKEN_PREFIX) not in kept


def test_secrets_are_long_and_never_the_same(services: Services, ann: Person) -> None:
    with transaction(services.sessions) as session:
        made = {credentials.issue_token(session, ann.viewer.id, "t")[1] for _ in range(20)}
    assert len(made) == 20
    assert all(secret.startswith("ll_") and len(secret) >= 43 for secret in made)


def test_a_token_says_who_asks(services: Services, ann: Person, admin: Person) -> None:
    with transaction(services.sessions) as session:
        assert credentials.identify_token(session, ann.token) == ann.viewer
        assert credentials.identify_token(session, admin.token).is_admin


def test_what_is_not_a_live_token_signs_nobody_in(services: Services, ann: Person) -> None:
    with transaction(services.sessions) as session:
        token, secret = credentials.issue_token(
            session, ann.viewer.id, "short", expires_at=datetime.now(UTC) + timedelta(hours=1)
        )
        stored = token.hash
        assert credentials.identify_token(session, secret) == ann.viewer
    with transaction(services.sessions) as session:
        session.execute(update(Token).where(Token.name == "short").values(expires_at=text("now()")))
    for wrong in (secret, stored, ann.token[:-1], ann.token + "x", "", "ll_", ann.token.swapcase()):
        with transaction(services.sessions) as session, pytest.raises(NotSignedIn):
            credentials.identify_token(session, wrong)


def test_a_session_lasts_its_days_or_until_it_is_ended(services: Services, ann: Person) -> None:
    with transaction(services.sessions) as session:
        secret = credentials.start_session(session, ann.viewer, days=14)
        other = credentials.start_session(session, ann.viewer, days=14)
    with transaction(services.sessions) as session:
        assert credentials.identify_session(session, secret) == ann.viewer
        left = session.scalar(select(func.min(BrowserSession.expires_at) - func.now()))
        assert left is not None
        assert timedelta(days=13, hours=23) < left <= timedelta(days=14)
        credentials.end_session(session, secret)
    with transaction(services.sessions) as session:
        assert credentials.identify_session(session, secret) is None
        assert credentials.identify_session(session, other) == ann.viewer
        session.execute(update(BrowserSession).values(expires_at=text("now() - interval '1 second'")))
    with transaction(services.sessions) as session:
        assert credentials.identify_session(session, other) is None
        credentials.start_session(session, ann.viewer, days=1)
    with transaction(services.sessions) as session:  # a new session takes the dead ones away
        assert session.scalar(select(func.count()).select_from(BrowserSession)) == 1


def test_a_session_s_secret_is_no_token(services: Services, ann: Person) -> None:
    with transaction(services.sessions) as session:
        cookie = credentials.start_session(session, ann.viewer, days=1)
        with pytest.raises(NotSignedIn):
            credentials.identify_token(session, cookie)
        assert credentials.identify_session(session, ann.token) is None


def test_only_the_owner_and_administrators_write_in_a_namespace(
    services: Services, ann: Person, bob: Person, admin: Person
) -> None:
    with transaction(services.sessions) as session:
        assert permissions.authorize_in(session, ann.viewer, Write, "ann").viewer == ann.viewer
        assert permissions.authorize_in(session, admin.viewer, Write, "ann").viewer == admin.viewer
        with pytest.raises(NotSignedIn):
            permissions.authorize_in(session, None, Write, "ann")
        with pytest.raises(Forbidden) as refused:
            permissions.authorize_in(session, bob.viewer, Write, "ann")
        with pytest.raises(Forbidden) as absent:
            permissions.authorize_in(session, bob.viewer, Write, "zoe")
        # The same answer, so that it does not tell which namespaces there are.
        assert refused.value.message.replace("ann", "zoe") == absent.value.message


def test_nobody_writes_in_a_namespace_that_is_not_there(services: Services, admin: Person) -> None:
    with transaction(services.sessions) as session, pytest.raises(Forbidden):
        permissions.authorize_in(session, admin.viewer, Write, "nowhere")


def test_a_viewer_who_owns_nothing_reads_what_members_read(services: Services) -> None:
    stranger = Viewer(uuid.uuid4(), "stranger", False)
    with transaction(services.sessions) as session, pytest.raises(Forbidden):
        permissions.authorize_in(session, stranger, Write, "stranger")
