"""Finding adapters: each filter alone and together, pages without gaps while others publish, and nobody sees more than they may."""

import pytest

from hub.registry.access import users
from hub.registry.access.viewer import Viewer
from hub.registry.content import rename_copy, repo_visibility, repos
from hub.registry.library import scores, search
from hub.registry.library.scores import Figure
from hub.registry.library.search import SORTS, Filters, Sort
from hub.registry.models.content import Commit
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput
from hub.registry.platform.services import Services
from hub.vocabulary import Metric
from tests.conftest import Person
from tests.support.files import TINY, peft_folder
from tests.support.published import adapter, base

NO_FILTERS = Filters()


def names(
    services: Services, viewer: Viewer | None, limit: int = 50, sort: Sort = "newest", filters: Filters = NO_FILTERS
) -> list[str]:
    with transaction(services.sessions) as session:
        page = search.search(session, viewer, filters, sort=sort, limit=limit, cursor=None)
        return [hit.repo for hit in page.hits]


def test_newest_first(services: Services, ann: Person) -> None:
    for index in range(3):
        adapter(services, ann, f"ann/a{index}", seed=index)
    assert names(services, ann.viewer) == ["ann/a2", "ann/a1", "ann/a0"]
    adapter(services, ann, "ann/a0", seed=9)
    assert names(services, ann.viewer) == ["ann/a0", "ann/a2", "ann/a1"]


def test_a_base_is_found_under_each_of_its_names(services: Services, ann: Person) -> None:
    base(services, "org/base", "org/base-4bit", "/models/base")
    adapter(services, ann, "ann/one", base="org/base")
    adapter(services, ann, "ann/two", base="org/base-4bit")
    adapter(services, ann, "ann/other", base="org/another")
    for name in ("org/base", "org/base-4bit", "/models/base"):
        assert names(services, ann.viewer, filters=Filters(base_model=name)) == ["ann/two", "ann/one"]
    assert names(services, ann.viewer, filters=Filters(base_model="org/another")) == ["ann/other"]
    assert names(services, ann.viewer, filters=Filters(base_model="org/b")) == []


def test_an_adapter_that_came_before_its_base_is_found_by_it(services: Services, ann: Person) -> None:
    adapter(services, ann, "ann/early", base="org/base-4bit")
    assert names(services, ann.viewer, filters=Filters(base_model="org/base")) == []
    base(services, "org/base", "org/base-4bit")
    assert names(services, ann.viewer, filters=Filters(base_model="org/base")) == ["ann/early"]
    base(services, "org/base")  # the alias is taken away again
    assert names(services, ann.viewer, filters=Filters(base_model="org/base")) == []
    assert names(services, ann.viewer, filters=Filters(base_model="org/base-4bit")) == ["ann/early"]


def test_filters_by_rank_method_tag_and_owner(services: Services, ann: Person, bob: Person) -> None:
    adapter(services, ann, "ann/two", rank=2)
    adapter(services, ann, "ann/four", rank=4)
    sidecar = {"loraloom.json": b'{"method": "lorahub"}'}
    card = b"---\nlicense: mit\ntags: [verbs, test]\n---\nMade of others.\n"
    adapter(services, bob, "bob/woven", files={**peft_folder(rank=2, seed=5), **sidecar, "README.md": card})
    assert names(services, ann.viewer, filters=Filters(rank=4)) == ["ann/four"]
    assert names(services, ann.viewer, filters=Filters(method="lorahub")) == ["bob/woven"]
    assert names(services, ann.viewer, filters=Filters(method="lora")) == ["ann/four", "ann/two"]
    assert names(services, ann.viewer, filters=Filters(tag=["test"])) == ["bob/woven", "ann/four", "ann/two"]
    assert names(services, ann.viewer, filters=Filters(tag=["test", "verbs"])) == ["bob/woven"]
    assert names(services, ann.viewer, filters=Filters(tag=["test", "absent"])) == []
    assert names(services, ann.viewer, filters=Filters(owner="bob")) == ["bob/woven"]
    assert names(services, ann.viewer, filters=Filters(task="CAUSAL_LM")) == ["bob/woven", "ann/four", "ann/two"]
    assert names(services, ann.viewer, filters=Filters(task="SEQ_CLS")) == []
    assert names(services, ann.viewer, filters=Filters(visibility="internal")) == ["bob/woven", "ann/four", "ann/two"]
    assert names(services, ann.viewer, filters=Filters(visibility="public")) == []
    assert names(services, ann.viewer, filters=Filters(owner="ann", rank=2, tag=["tiny"])) == ["ann/two"]
    assert names(services, ann.viewer, filters=Filters(owner="bob", rank=4)) == []


def test_every_word_must_occur_somewhere(services: Services, ann: Person) -> None:
    card = b"---\nlicense: mit\ntags: [grammar]\n---\n# Plurals\n\nTurns a noun into its plural.\n"
    adapter(services, ann, "ann/nouns", files={**peft_folder(), "README.md": card})
    adapter(services, ann, "ann/100_percent", seed=2, base="org/Big-Base")
    for words in ("nouns", "NOUN", "grammar", "ann/nouns plural", "plural  grammar", "turns"):
        assert names(services, ann.viewer, filters=Filters(text=words)) == ["ann/nouns"], words
    assert names(services, ann.viewer, filters=Filters(text="big-base")) == ["ann/100_percent"]
    assert names(services, ann.viewer, filters=Filters(text="plural big-base")) == []
    # The pattern characters of LIKE stand for themselves.
    assert names(services, ann.viewer, filters=Filters(text="0_p")) == ["ann/100_percent"]
    for pattern in ("100%", "n_uns", "%", "\\"):
        assert names(services, ann.viewer, filters=Filters(text=pattern)) == [], pattern


def walk(services: Services, viewer: Viewer, limit: int, sort: Sort = "newest") -> list[str]:
    seen: list[str] = []
    cursor = None
    while True:
        with transaction(services.sessions) as session:
            page = search.search(session, viewer, Filters(), sort=sort, limit=limit, cursor=cursor)
        assert len(page.hits) <= limit
        seen += [hit.repo for hit in page.hits]
        cursor = page.cursor
        if cursor is None:
            return seen


def own_score(services: Services, commit: Commit, value: float, metric: Metric = "exact_match") -> None:
    loss, figure = Figure("target_loss", 2.0, 1.9, 2.1, 80), Figure(metric, value, value - 0.1, value + 0.1, 80)
    with transaction(services.sessions) as session:
        scores.keep_own(session, commit.id, [loss, figure])


def test_each_order(services: Services, ann: Person, bob: Person) -> None:
    adapter(services, ann, "ann/zebra", rank=4, seed=1)
    own_score(services, adapter(services, bob, "bob/middle", rank=2, seed=2), 0.9)
    own_score(services, adapter(services, ann, "ann/apple", rank=8, seed=3), 0.25)
    adapter(services, ann, "ann/late", rank=2, seed=4)
    orders: dict[Sort, list[str]] = {
        "newest": ["ann/late", "ann/apple", "bob/middle", "ann/zebra"],
        "name": ["ann/apple", "ann/late", "ann/zebra", "bob/middle"],
        "size": ["ann/apple", "ann/zebra", "ann/late", "bob/middle"],
        "score": ["bob/middle", "ann/apple", "ann/late", "ann/zebra"],
    }
    for sort, expected in orders.items():
        assert names(services, ann.viewer, sort=sort) == expected
        assert [walk(services, ann.viewer, limit, sort) for limit in (1, 2, 3)] == [expected] * 3
    assert names(services, ann.viewer, sort="name", filters=Filters(owner="ann")) == [
        "ann/apple",
        "ann/late",
        "ann/zebra",
    ]


@pytest.mark.parametrize("sort", SORTS)
def test_a_cursor_is_good_for_its_own_order_alone(services: Services, ann: Person, sort: Sort) -> None:
    for index in range(2):
        adapter(services, ann, f"ann/a{index}", seed=index)
    with transaction(services.sessions) as session:
        cursor = search.search(session, ann.viewer, Filters(), sort=sort, limit=1, cursor=None).cursor
        for other in SORTS:
            if other == sort:
                assert search.search(session, ann.viewer, Filters(), sort=other, limit=1, cursor=cursor).hits
            else:
                with pytest.raises(InvalidInput, match="cursor"):
                    search.search(session, ann.viewer, Filters(), sort=other, limit=1, cursor=cursor)


def test_what_a_line_tells(services: Services, ann: Person) -> None:
    base(services)
    files = peft_folder(rank=2)
    commit = adapter(services, ann, "ann/a", files=files)
    own_score(services, commit, 0.5)
    with transaction(services.sessions) as session:
        (hit,) = search.search(session, ann.viewer, Filters(), limit=1, cursor=None).hits
    assert (hit.repo, hit.folder, hit.commit, hit.visibility) == ("ann/a", "", commit.id, "internal")
    assert (hit.base, hit.method, hit.task, hit.rank, hit.licence) == (TINY, "lora", "CAUSAL_LM", 2, "apache-2.0")
    assert (hit.parameters, hit.size_bytes) == (64, len(files["adapter_model.safetensors"]))
    assert hit.tags == ["tiny", "test"]
    assert hit.score == search.OwnScore("exact_match", 0.5, 0.4, 0.6, 80)


def test_a_score_stays_with_the_weights(services: Services, ann: Person) -> None:
    def score(limit: int = 1) -> float | None:
        with transaction(services.sessions) as session:
            (hit,) = search.search(session, ann.viewer, Filters(), limit=limit, cursor=None).hits
            return hit.score.value if hit.score else None

    own_score(services, adapter(services, ann, "ann/a", seed=1), 0.5)
    adapter(services, ann, "ann/a", files={**peft_folder(seed=1), "README.md": b"---\nlicense: mit\n---\n# Again\n"})
    assert score() == 0.5
    adapter(services, ann, "ann/a", seed=2)
    assert score() is None


def test_lists_follow_a_repo_that_changes(services: Services, ann: Person, bob: Person) -> None:
    """What facts repeat of their repo: its name, who may see it, whether it is deleted."""
    adapter(services, ann, "ann/a")
    adapter(services, ann, "ann/a", seed=2)
    with transaction(services.sessions) as session:
        users.create_namespace(session, "weavers", "organization", ann.viewer.id)
        repo = repo_visibility.change_visibility(
            session, repos.writable(session, ann.viewer, "model", "ann/a"), "private", reveal=False
        )
    assert (names(services, bob.viewer), names(services, ann.viewer, filters=Filters(visibility="private"))) == (
        [],
        ["ann/a"],
    )
    with transaction(services.sessions) as session:
        rename_copy.move(session, repos.writable(session, ann.viewer, "model", repo.full_name), "weavers/b")
    assert (
        names(services, ann.viewer, filters=Filters(owner="ann")),
        names(services, ann.viewer, filters=Filters(owner="weavers")),
    ) == (
        [],
        ["weavers/b"],
    )
    with transaction(services.sessions) as session:
        repo_visibility.change_visibility(
            session, repos.writable(session, ann.viewer, "model", "weavers/b"), "public", reveal=False
        )
    assert names(services, None) == ["weavers/b"]
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "model", "weavers/b"))
    assert names(services, ann.viewer) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
def test_pages_of_any_size_hold_everything_once(services: Services, ann: Person, limit: int) -> None:
    made = [f"ann/a{index}" for index in range(6)]
    for index, name in enumerate(made):
        adapter(services, ann, name, seed=index)
    assert walk(services, ann.viewer, limit) == made[::-1]


def test_what_is_published_between_two_pages_neither_repeats_nor_hides_anything(
    services: Services, ann: Person
) -> None:
    made = [f"ann/a{index}" for index in range(5)]
    for index, name in enumerate(made):
        adapter(services, ann, name, seed=index)
    seen: list[str] = []
    cursor = None
    for turn in range(10):
        with transaction(services.sessions) as session:
            page = search.search(session, ann.viewer, Filters(), limit=2, cursor=cursor)
        seen += [hit.repo for hit in page.hits]
        cursor = page.cursor
        if cursor is None:
            break
        adapter(services, ann, f"ann/new{turn}", seed=20 + turn)
    assert seen == made[::-1]


def test_adapters_of_one_commit_are_paged_one_by_one(services: Services, ann: Person) -> None:
    """They share time and commit; the folder keeps them apart."""
    commit = adapter(services, ann, "ann/a")
    with transaction(services.sessions) as session:
        (facts,) = repos.facts(session, commit)
        columns = {c.key: getattr(facts, c.key) for c in facts.__table__.columns if c.computed is None}
        for folder in ("b", "c", "d"):
            session.add(type(facts)(**{**columns, "folder": folder}))
    seen, cursor = [], None
    while True:
        with transaction(services.sessions) as session:
            page = search.search(session, ann.viewer, Filters(), limit=1, cursor=cursor)
        seen += [hit.folder for hit in page.hits]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == ["d", "c", "b", ""]


def test_nobody_finds_what_they_may_not_read(services: Services, ann: Person, bob: Person, admin: Person) -> None:
    adapter(services, ann, "ann/private", visibility="private", seed=1)
    adapter(services, ann, "ann/internal", seed=2)
    adapter(services, ann, "ann/public", visibility="public", seed=3)
    everything = ["ann/public", "ann/internal", "ann/private"]
    assert names(services, ann.viewer) == everything
    assert names(services, admin.viewer) == everything
    assert names(services, bob.viewer) == everything[:2]
    assert names(services, None) == everything[:1]
    assert names(services, bob.viewer, filters=Filters(text="private")) == []
    assert names(services, bob.viewer, limit=2) == everything[:2]


def test_hidden_adapters_do_not_show_in_where_a_page_ends(services: Services, ann: Person, bob: Person) -> None:
    adapter(services, ann, "ann/public", visibility="public", seed=1)
    adapter(services, ann, "ann/private", visibility="private", seed=2)
    with transaction(services.sessions) as session:
        page = search.search(session, bob.viewer, Filters(), limit=1, cursor=None)
    assert ([hit.repo for hit in page.hits], page.cursor) == (["ann/public"], None)


def test_deleted_adapters_are_not_found(services: Services, ann: Person) -> None:
    adapter(services, ann, "ann/a")
    with transaction(services.sessions) as session:
        repos.delete(session, repos.writable(session, ann.viewer, "model", "ann/a"))
    assert names(services, ann.viewer) == []


@pytest.mark.parametrize("cursor", ["!!", "é", "AAAA", "bm90IGEgY3Vyc29y", "MjAyNgBhAGI", " "])
def test_a_cursor_that_is_not_ours_is_refused(services: Services, ann: Person, cursor: str) -> None:
    with transaction(services.sessions) as session, pytest.raises(InvalidInput, match="cursor"):
        search.search(session, ann.viewer, Filters(), limit=1, cursor=cursor)


def test_words_of_two_characters_are_found_in_scripts_without_spaces(services: Services, ann: Person) -> None:
    card = "---\nlicense: mit\ntags: [翻訳]\n---\n日本語の文を中国語に翻訳する。\n".encode()
    adapter(services, ann, "ann/translates", files={**peft_folder(seed=1), "README.md": card})
    wide = "---\nlicense: mit\n---\nＳＱＬ queries\n".encode()
    adapter(services, ann, "ann/sql", files={**peft_folder(seed=2), "README.md": wide})
    for words in ("日本", "文を", "翻訳", "中国 日本"):
        assert names(services, ann.viewer, filters=Filters(text=words)) == ["ann/translates"], words
    assert names(services, ann.viewer, filters=Filters(text="日中")) == []
    for words in ("日", "。", "す", "ti", "lo", "an"):  # and how words in letters begin
        assert "ann/translates" in names(services, ann.viewer, filters=Filters(text=words)), words
    for words in ("猫", "ef", "zq", "%", "\\", "e/"):
        assert names(services, ann.viewer, filters=Filters(text=words)) == [], words
    for words in ("sq", "s", "s/", "q-", "q"):
        assert names(services, ann.viewer, filters=Filters(text=words))[:1] == ["ann/sql"], words
    for words in ("sql", "ｓｑｌ", "SQL"):
        assert names(services, ann.viewer, filters=Filters(text=words)) == ["ann/sql"], words
