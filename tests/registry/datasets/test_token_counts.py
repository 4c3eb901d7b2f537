"""Tokens are counted by the base's own tokenizer where it is at hand, and guessed where it is not."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from hub.registry.bases import base_models
from hub.registry.datasets import token_counts
from hub.registry.datasets.token_counts import Counted
from hub.registry.library.publishing import publish_model
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.support.files import LAYERS
from tests.support.published import incoming


@pytest.fixture
def tokenizer() -> Tokenizer:
    """One token a word; what it does not know is one token too."""
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "red": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def register(services: Services, path: Path | None, base_id: str = "ann/base") -> None:
    with transaction(services.sessions) as session:
        base_models.register(
            session,
            base_id,
            path=str(path) if path else None,
            revision=None,
            dtype="float32",
            licence=None,
            aliases=["ann/alias"],
            shapes=dict.fromkeys(LAYERS, (8, 8)),
            fingerprint="f" * 64,
        )


def count(services: Services, *texts: str, base_id: str = "ann/base") -> Counted:
    with transaction(services.sessions) as session:
        return token_counts.count(session, services.storage, base_id, texts)


def test_of_a_folder_on_this_machine(services: Services, tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    register(services, tmp_path)
    assert count(services, "red green blue", "red", "") == Counted([3, 1, 0], exact=True)
    assert count(services, "red red", base_id="ann/alias") == Counted([2], exact=True)


def test_of_the_built_in_base_which_is_a_repo_here(services: Services, ann: Person, tokenizer: Tokenizer) -> None:
    register(services, None)
    assert not count(services, "red").exact, "its repo is not there yet"
    files = incoming({"tokenizer.json": tokenizer.to_str().encode()})
    publish_model(services, ann.viewer, "ann/base", files, visibility="public", message="Base")
    assert count(services, "red green blue") == Counted([3], exact=True)


def test_where_there_is_none_it_is_a_guess_from_the_bytes(services: Services, tmp_path: Path) -> None:
    register(services, tmp_path)
    assert count(services, "12345678", "123456789", "你好", "") == Counted([2, 3, 2, 0], exact=False)
    assert not count(services, "red", base_id="no/such").exact
    (tmp_path / "tokenizer.json").write_text("{}")
    assert not count(services, "red").exact, "a file that cannot be read is none"
