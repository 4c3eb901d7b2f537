"""Repos: commits that never change, refs, versions, names, what is deleted and what a change of visibility gives away."""

import re
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from hub.registry.access import users
from hub.registry.access.permissions import AdministerHub, authorize
from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.content import blobs, history, repo_visibility, repos
from hub.registry.content.history import Parent
from hub.registry.inspection.inspect import inspect
from hub.registry.library import provenance
from hub.registry.library.publishing import entries
from hub.registry.models.adapters import AdapterFacts, Lineage
from hub.registry.models.content import Commit, Ref, Repo, Tree, TreeEntry
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import FileNotInRepo, Forbidden, InvalidInput, RepoNotFound, RevisionNotFound
from hub.registry.platform.services import Services
from hub.vocabulary import Visibility
from tests.conftest import Person
from tests.support.files import TINY, peft_folder
from tests.support.published import adapter, base, dataset, incoming


def tree_of(services: Services, commit: Commit) -> dict[str, str]:
    with transaction(services.sessions) as session:
        return {entry.path: entry.sha256 for entry in repos.files(session, commit)}


def found(services: Services, viewer: Viewer | None, name: str) -> Repo:
    with transaction(services.sessions) as session:
        return repos.find(session, viewer, "model", name)


def resolved(services: Services, person: Person, name: str, revision: str) -> str:
    with transaction(services.sessions) as session:
        return repos.resolve(session, repos.find(session, person.viewer, "model", name), revision).id


def test_a_commit_keeps_its_tree_and_its_bytes_when_others_follow(services: Services, ann: Person) -> None:
    files = peft_folder(seed=1)
    first = adapter(services, ann, "ann/a", files=files)
    assert re.fullmatch("[0-9a-f]{40}", first.id)
    before = tree_of(services, first)
    second = adapter(services, ann, "ann/a", seed=2)
    assert second.parent == first.id
    assert tree_of(services, first) == before != tree_of(services, second)
    for path, sha256 in before.items():
        assert services.storage.read(sha256, 0, len(files[path])) == files[path]


def test_the_same_tree_is_kept_once(services: Services, ann: Person, bob: Person) -> None:
    """Two repos, two commits, one tree. The commits differ: they say who made them, where and when."""
    mine = adapter(services, ann, "ann/a", seed=1)
    yours = adapter(services, bob, "bob/a", seed=1)
    assert mine.tree == yours.tree
    assert mine.id != yours.id
    with transaction(services.sessions) as session:
        assert session.scalar(select(func.count()).select_from(Tree)) == 1
        assert session.scalar(select(func.count()).select_from(TreeEntry)) == 3


def test_an_equal_tree_makes_no_new_commit(services: Services, ann: Person) -> None:
    first = adapter(services, ann, "ann/a", seed=1)
    assert adapter(services, ann, "ann/a", seed=1).id == first.id
    with transaction(services.sessions) as session:
        steps, _ = provenance.history(session, found(services, ann.viewer, "ann/a"))
        assert [step.commit.id for step in steps] == [first.id]


def test_versions_follow_main_s_adapter_and_nothing_else(services: Services, ann: Person) -> None:
    files = peft_folder(seed=1)
    first = adapter(services, ann, "ann/a", files=files)
    reworded = adapter(services, ann, "ann/a", files={**files, "README.md": b"---\nlicense: mit\n---\nOther words.\n"})
    changed = adapter(services, ann, "ann/a", seed=2)
    back = adapter(services, ann, "ann/a", files=files)
    with transaction(services.sessions) as session:
        assert repos.version_of(session, first) == "v1"
        assert repos.version_of(session, reworded) is None
        assert repos.version_of(session, changed) == "v2"
        assert repos.version_of(session, back) == "v3"


def test_two_publishers_at_once_give_two_versions(services: Services, ann: Person) -> None:
    """One has read the repo before the other commits; it still counts on from the number that the other gave."""
    first = adapter(services, ann, "ann/a", seed=1)
    files = incoming(peft_folder(seed=3))
    blobs.store(services.sessions, services.storage, "ann", files)
    with transaction(services.sessions) as session:
        repo = repos.find(session, ann.viewer, "model", "ann/a")
        assert repo.versions == 1
        second = adapter(services, ann, "ann/a", seed=2)
        inspection = inspect({file.path: file for file in files}, ())
        third = history.publish(
            session, repo, entries(files), author_id=ann.viewer.id, message="third", inspection=inspection
        )
    assert third.parent == second.id
    versions = {version: resolved(services, ann, "ann/a", version) for version in ("v1", "v2", "v3")}
    assert versions == {"v1": first.id, "v2": second.id, "v3": third.id}


def test_a_branch_a_version_and_a_whole_commit_id_name_a_commit(services: Services, ann: Person) -> None:
    first = adapter(services, ann, "ann/a", seed=1)
    second = adapter(services, ann, "ann/a", seed=2)
    other = adapter(services, ann, "ann/b", seed=3)
    assert resolved(services, ann, "ann/a", "main") == second.id
    assert resolved(services, ann, "ann/a", "v1") == first.id
    assert resolved(services, ann, "ann/a", first.id) == first.id
    for wrong in ("v3", "dev", first.id[:12], other.id, ""):
        with pytest.raises(RevisionNotFound, match="ann/a"):
            resolved(services, ann, "ann/a", wrong)


def test_a_file_is_found_by_its_path(services: Services, ann: Person) -> None:
    commit = adapter(services, ann, "ann/a")
    with transaction(services.sessions) as session:
        assert repos.file(session, commit, "README.md").path == "README.md"
        with pytest.raises(FileNotInRepo, match=r"absent\.txt"):
            repos.file(session, commit, "absent.txt")


@pytest.mark.parametrize("name", ["ann/x.v1", "ann/x.v20", "ann/", "ann/a b", "ann/-x", "ann/a--b", "ann/x/y"])
def test_names_that_clients_could_not_use_or_that_mean_a_version_are_refused(
    services: Services, ann: Person, name: str
) -> None:
    with transaction(services.sessions) as session, pytest.raises(users.BadName):
        repos.check_target(session, ann.viewer, "model", name)


def test_a_name_that_only_resembles_a_version_is_a_name(services: Services, ann: Person) -> None:
    with transaction(services.sessions) as session:
        for name in ("ann/x.v", "ann/x-v1", "ann/x.v1a", "ann/v1"):
            assert repos.check_target(session, ann.viewer, "model", name).repo is None


def test_a_name_without_a_namespace_is_no_repo(services: Services, ann: Person) -> None:
    with transaction(services.sessions) as session, pytest.raises(InvalidInput, match="namespace/name"):
        repos.find(session, ann.viewer, "model", "a")


def test_a_model_and_a_data_set_may_have_the_same_name(services: Services, ann: Person) -> None:
    adapter(services, ann, "ann/a")
    dataset(services, ann, "ann/a")
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "dataset", "ann/a"))
    assert found(services, ann.viewer, "ann/a").type == "model"


def test_a_repo_that_one_may_not_read_answers_like_one_that_does_not_exist(
    services: Services, ann: Person, bob: Person, admin: Person
) -> None:
    adapter(services, ann, "ann/private", visibility="private")
    adapter(services, ann, "ann/internal")
    adapter(services, ann, "ann/public", visibility="public")
    hidden = [(bob.viewer, "ann/private"), (None, "ann/private"), (None, "ann/internal")]
    for viewer, name in hidden:
        with pytest.raises(RepoNotFound) as refused:
            found(services, viewer, name)
        with pytest.raises(RepoNotFound) as absent:
            found(services, viewer, "ann/absent")
        assert refused.value.message.replace(name, "ann/absent") == absent.value.message
        assert (refused.value.status, refused.value.details) == (404, absent.value.details)
    seen = [(ann.viewer, "ann/private"), (admin.viewer, "ann/private"), (bob.viewer, "ann/internal")]
    for viewer, name in [*seen, (None, "ann/public")]:
        assert found(services, viewer, name).full_name == name


def test_unreadable_is_not_found_and_unwritable_is_forbidden(services: Services, ann: Person, bob: Person) -> None:
    adapter(services, ann, "ann/private", visibility="private")
    adapter(services, ann, "ann/internal")
    with transaction(services.sessions) as session:
        with pytest.raises(RepoNotFound):
            repos.delete(session, repos.writable(session, bob.viewer, "model", "ann/private"))
        with pytest.raises(RepoNotFound):
            repo_visibility.change_visibility(
                session, repos.writable(session, bob.viewer, "model", "ann/private"), "public", reveal=True
            )
        with pytest.raises(Forbidden):
            repos.delete(session, repos.writable(session, bob.viewer, "model", "ann/internal"))
        with pytest.raises(Forbidden):
            repo_visibility.change_visibility(
                session, repos.writable(session, bob.viewer, "model", "ann/internal"), "public", reveal=True
            )
        # A name in a namespace that one may not write in is refused before anything is said of it.
        messages = set()
        for name in ("ann/private", "ann/internal", "ann/absent"):
            with pytest.raises(Forbidden) as refused:
                repos.check_target(session, bob.viewer, "model", name)
            messages.add(refused.value.message)
        assert len(messages) == 1


def test_a_deleted_repo_is_gone_for_all_and_its_name_is_held(
    services: Services, ann: Person, bob: Person, admin: Person
) -> None:
    adapter(services, ann, "ann/a")
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "model", "ann/a"))
    for person in (ann, bob, admin):
        with pytest.raises(RepoNotFound):
            found(services, person.viewer, "ann/a")
    with pytest.raises(repos.RepoExists):
        adapter(services, ann, "ann/a", seed=2)


def test_only_an_administrator_restores_and_only_within_the_days(
    services: Services, ann: Person, admin: Person
) -> None:
    commit = adapter(services, ann, "ann/a")
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "model", "ann/a"))
    with transaction(services.sessions) as session, pytest.raises(Forbidden):
        repos.restore(session, authorize(ann.viewer, AdministerHub), "model", "ann/a", days=7)
    with transaction(services.sessions) as session:
        session.execute(update(Repo).values(deleted_at=datetime.now(UTC) - timedelta(days=7, minutes=1)))
    with transaction(services.sessions) as session, pytest.raises(RepoNotFound):
        repos.restore(session, authorize(admin.viewer, AdministerHub), "model", "ann/a", days=7)
    with transaction(services.sessions) as session:
        session.execute(update(Repo).values(deleted_at=datetime.now(UTC) - timedelta(days=6, hours=23)))
        repos.restore(session, authorize(admin.viewer, AdministerHub), "model", "ann/a", days=7)
    assert resolved(services, ann, "ann/a", "v1") == commit.id


def composed(services: Services, person: Person, name: str, *inputs: Commit) -> Commit:
    """A result made from other commits, as a finished job publishes it."""
    files = incoming(peft_folder(seed=99))
    blobs.store(services.sessions, services.storage, person.name, files)
    with transaction(services.sessions) as session:
        repo = repos.ensure(session, person.viewer, "model", name, "private")
        parents = [Parent(commit.id, "module", 0.5) for commit in inputs]
        return history.publish(
            session, repo, entries(files), author_id=person.viewer.id, message="made", parents=parents
        )


def widen(services: Services, person: Person, name: str, to: Visibility, *, reveal: bool = False) -> str:
    with transaction(services.sessions) as session:
        return repo_visibility.change_visibility(
            session, repos.writable(session, person.viewer, "model", name), to, reveal=reveal
        ).visibility


def test_widening_a_result_past_its_inputs_lists_the_names_it_would_reveal(services: Services, ann: Person) -> None:
    secret = adapter(services, ann, "ann/secret", seed=1, visibility="private")
    internal = adapter(services, ann, "ann/internal", seed=2)
    composed(services, ann, "ann/result", secret, internal)
    with pytest.raises(repo_visibility.WouldReveal) as refused:
        widen(services, ann, "ann/result", "internal")
    assert refused.value.details == {"reveals": ["ann/secret"]}
    with pytest.raises(repo_visibility.WouldReveal) as refused:
        widen(services, ann, "ann/result", "public")
    assert refused.value.details == {"reveals": ["ann/internal", "ann/secret"]}
    assert found(services, ann.viewer, "ann/result").visibility == "private"
    assert widen(services, ann, "ann/result", "public", reveal=True) == "public"
    assert widen(services, ann, "ann/result", "internal") == "internal"  # narrowing reveals nothing


def test_widening_what_was_made_from_nothing_hidden_needs_no_confirmation(services: Services, ann: Person) -> None:
    public = adapter(services, ann, "ann/open", visibility="public")
    composed(services, ann, "ann/result", public)
    assert widen(services, ann, "ann/result", "public") == "public"
    assert widen(services, ann, "ann/open", "private") == "private"


def current(session: Session, name: str) -> list[str]:
    rows = select(AdapterFacts.commit_id).join(Repo, Repo.id == AdapterFacts.repo_id)
    return list(session.scalars(rows.where(Repo.name == name.partition("/")[2], AdapterFacts.current)))


def test_facts_are_current_at_the_head_of_main_alone_and_kept_for_the_rest(services: Services, ann: Person) -> None:
    first = adapter(services, ann, "ann/a", seed=1, rank=2)
    second = adapter(services, ann, "ann/a", seed=2, rank=3)
    other = adapter(services, ann, "ann/b", seed=1)
    with transaction(services.sessions) as session:
        assert current(session, "ann/a") == [second.id]
        assert current(session, "ann/b") == [other.id]
        assert [facts.rank for facts in repos.facts(session, first)] == [2]
        assert [facts.rank for facts in repos.facts(session, second)] == [3]


def test_each_adapter_of_a_repo_has_its_own_findings(services: Services, ann: Person) -> None:
    """A sound adapter at the top is not blamed for one in a folder below it, nor for one in a folder with a longer name."""
    tree = {**peft_folder(seed=1, base=TINY)}
    tree |= {f"sub/{path}": data for path, data in peft_folder(seed=2, base=None).items()}
    tree |= {f"sub-2/{path}": data for path, data in peft_folder(seed=3, base=TINY).items()}
    base(services)
    files = incoming(tree)
    blobs.store(services.sessions, services.storage, "ann", files)
    with transaction(services.sessions) as session:
        inspection = inspect({file.path: file for file in files}, base_models.known(session))
        repo = repos.ensure(session, ann.viewer, "model", "ann/several", None)
        commit = history.publish(
            session, repo, entries(files), author_id=ann.viewer.id, message="three", inspection=inspection
        )
        found = {facts.folder: {item["code"] for item in facts.findings} for facts in repos.facts(session, commit)}
    assert found == {"": set(), "sub": {"no_base"}, "sub-2": set()}


def test_two_publishers_of_one_repo_take_turns(services: Services, ann: Person) -> None:
    adapter(services, ann, "ann/a", seed=1)
    with transaction(services.sessions) as session:
        repo = repos.find(session, ann.viewer, "model", "ann/a")
        session.refresh(repo, with_for_update=True)
        second = threading.Thread(target=adapter, args=(services, ann, "ann/a"), kwargs={"seed": 2})
        second.start()
        time.sleep(0.5)
        assert second.is_alive()
    second.join(10)
    assert not second.is_alive()
    assert resolved(services, ann, "ann/a", "v2") == resolved(services, ann, "ann/a", "main")


def test_main_moves_and_remembers_who_moved_it(services: Services, ann: Person, admin: Person) -> None:
    adapter(services, ann, "ann/a", seed=1)
    moved = adapter(services, admin, "ann/a", seed=2)
    with transaction(services.sessions) as session:
        repo = repos.find(session, ann.viewer, "model", "ann/a")
        refs = {ref.name: (ref.kind, ref.commit_id, ref.moved_by) for ref in repos.refs(session, repo)}
        assert set(refs) == {"main", "v1", "v2"}
        assert refs["main"] == ("branch", moved.id, admin.viewer.id)
        assert refs["v1"][2] == ann.viewer.id
        assert session.scalar(select(func.count()).select_from(Ref)) == 3


def test_lineage_is_written_with_the_commit(services: Services, ann: Person) -> None:
    one, two = adapter(services, ann, "ann/one", seed=1), adapter(services, ann, "ann/two", seed=2)
    made = composed(services, ann, "ann/result", one, two)
    with transaction(services.sessions) as session:
        lines = session.scalars(select(Lineage).where(Lineage.child == made.id)).all()
        assert {(line.parent, line.role, line.weight) for line in lines} == {
            (one.id, "module", 0.5),
            (two.id, "module", 0.5),
        }


def test_the_least_visible_input_decides(services: Services, ann: Person) -> None:
    private = adapter(services, ann, "ann/private", seed=1, visibility="private")
    internal = adapter(services, ann, "ann/internal", seed=2)
    public = adapter(services, ann, "ann/public", seed=3, visibility="public")
    with transaction(services.sessions) as session:
        assert repo_visibility.least_visible(session, []) == "public"
        assert repo_visibility.least_visible(session, [public.id]) == "public"
        assert repo_visibility.least_visible(session, [public.id, internal.id]) == "internal"
        assert repo_visibility.least_visible(session, [internal.id, private.id, public.id]) == "private"


def test_a_listing_has_every_readable_repo_once_in_the_order_of_names(
    services: Services, ann: Person, bob: Person
) -> None:
    for name in ("ann/c", "ann/a", "ann/b"):
        dataset(services, ann, name)
    dataset(services, bob, "bob/a")
    dataset(services, bob, "bob/hidden", visibility="private")

    def pages(viewer: Viewer | None) -> list[str]:
        names, cursor = [], None
        while True:
            with transaction(services.sessions) as session:
                page, cursor = repos.listing(session, viewer, "dataset", limit=2, cursor=cursor)
            names += [repo.full_name for repo, _ in page]
            if cursor is None:
                return names

    assert pages(ann.viewer) == ["ann/a", "ann/b", "ann/c", "bob/a"]
    assert pages(bob.viewer) == ["ann/a", "ann/b", "ann/c", "bob/a", "bob/hidden"]
    assert pages(None) == []
