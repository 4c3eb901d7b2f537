"""Strict publishing: all or nothing, and never more visible than was asked for."""

from collections.abc import Callable

import pytest
from sqlalchemy import func, select

from hub.registry.content import repo_visibility, repos
from hub.registry.inspection.inspect import BadAdapter
from hub.registry.library import publishing
from hub.registry.models.content import Blob, Commit, Repo
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import Forbidden
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import TINY, peft_folder
from tests.support.published import adapter, base, dataset, incoming


@pytest.mark.parametrize("publish", [adapter, dataset])
def test_what_is_to_be_private_is_not_put_where_others_read(
    services: Services, ann: Person, publish: Callable[..., Commit]
) -> None:
    first = publish(services, ann, "ann/shown")
    files = {"a.jsonl": b'{"input": "a", "target": "b"}\n'} if publish is dataset else peft_folder(seed=9)
    with pytest.raises(repo_visibility.MoreVisible, match="ann/shown is internal"):
        publish(services, ann, "ann/shown", files=files, visibility="private")
    with transaction(services.sessions) as session:
        repo = session.get_one(Repo, first.repo_id)
        assert repos.resolve(session, repo).id == first.id
        assert session.scalar(select(func.count()).select_from(Blob)) == len(repos.files(session, first))
    assert publish(services, ann, "ann/shown", files=files, visibility="internal").parent == first.id


def test_a_repo_keeps_its_visibility_whatever_later_uploads_wish(services: Services, ann: Person) -> None:
    commit = adapter(services, ann, "ann/hidden", visibility="private")
    adapter(services, ann, "ann/hidden", seed=2, visibility="public")
    adapter(services, ann, "ann/hidden", seed=3)
    with transaction(services.sessions) as session:
        assert session.get_one(Repo, commit.repo_id).visibility == "private"


def test_refused_uploads_leave_neither_rows_nor_bytes(services: Services, ann: Person, bob: Person) -> None:
    with pytest.raises(BadAdapter):
        adapter(services, ann, "ann/broken", files={**peft_folder(), "adapter_config.json": b"{}"})
    with pytest.raises(publishing.NoExamples):
        dataset(services, ann, "ann/none", {"empty.jsonl": b"", "notes.txt": b"hi"})
    with pytest.raises(Forbidden):
        adapter(services, bob, "ann/foreign")
    with transaction(services.sessions) as session:
        for table in (Repo, Commit, Blob):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def test_the_answer_says_which_registered_base_was_meant(services: Services, ann: Person) -> None:
    base(services, "org/base", TINY)
    published = publishing.publish_adapter(
        services, ann.viewer, "ann/a", incoming(peft_folder()), visibility=None, message="Upload"
    )
    assert (published.version, published.base_ids) == ("v1", {"": "org/base"})
