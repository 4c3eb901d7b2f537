"""Bases of another hub, registered without downloading them: the other one is a second instance of this, with its own users and tokens."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.responses import Response
from starlette.testclient import TestClient

from hub.registry.access import encryption
from hub.registry.bases import base_folder
from hub.registry.models.bases import RegisteredBase
from hub.registry.platform import upstream_client
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.registry.platform.settings import Settings
from tests.conftest import Person
from tests.other_hub import Other
from tests.support import protocol
from tests.support.files import safetensors
from tests.support.serving import serving
from tests.tiny_models import llama

CARD = b"---\nlicense: other\nlicense_name: tiny-licence\n---\n# A base\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model of 8 MB, most of it in one matrix."""
    model = llama(
        vocab_size=32_000,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp("base") / "sharded"
    model.save_pretrained(folder, max_shard_size="8200KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.fixture
def settings(settings: Settings, other: Other) -> Iterator[Settings]:
    with serving(other) as url:
        yield settings.model_copy(update={"upstream_url": url})


def sent(other: Other, name: str, files: Mapping[str, bytes]) -> str:
    """The commit of a private repo of the other hub."""
    with TestClient(other.app, base_url="http://testserver") as client:
        protocol.create(client, other.labs, name, private=True)
        head = protocol.committed(client, other.labs, name, files)
    other.asked.clear()
    other.sent = 0
    return head


@pytest.fixture
def head(other: Other, folder: Path) -> str:
    """The base beside what is none of it: other formats, code, and the same weights in one file under a name that nothing loads."""
    other_weights = safetensors({"w": ((1,), bytes(4))})
    rest = {"README.md": CARD, "modeling.py": b"1", "fp8/model.safetensors": other_weights, "training_args.bin": b"x"}
    rest["consolidated.safetensors"] = other_weights
    return sent(other, "labs/base", {path.name: path.read_bytes() for path in folder.iterdir()} | rest)


def register(client: TestClient, person: Person, **body: Any) -> Any:
    return client.post("/v1/bases", headers=person.headers, json={"id": "org/base", **body})


def test_a_base_is_pinned_and_read_without_its_weights(
    client: TestClient, services: Services, other: Other, admin: Person, head: str, folder: Path
) -> None:
    size = sum(path.stat().st_size for path in folder.iterdir())
    token = other.labs.token
    answer = register(client, admin, upstream="labs/base", revision="main", token=token, aliases=["labs/base"])
    assert answer.status_code == 201, answer.text
    base, local = answer.json(), base_folder.read(folder)
    assert (base["upstream"], base["revision"], base["path"], base["dtype"]) == ("labs/base", head, None, "auto")
    assert (base["licence"], base["aliases"]) == ("tiny-licence", ["labs/base"])
    assert (base["fingerprint"], base["layers"]) == (local.fingerprint, len(local.shapes))
    assert size > 8e6 > 10 * other.sent, "what it needs are beginnings"
    assert {shown for _, shown in other.asked} == {f"Bearer {token}"}
    touched = {question.rpartition("/")[2] for question, _ in other.asked if f"/resolve/{head}/" in question}
    assert touched == {
        "config.json",
        "README.md",
        "model.safetensors.index.json",
        *(path.name for path in folder.glob("*.safetensors")),
    }
    assert [*services.storage.keys(upstream_client.KEPT)] == [], "what this token may read is not for everybody here"


def test_a_token_is_never_shown_again(
    client: TestClient,
    services: Services,
    other: Other,
    admin: Person,
    ann: Person,
    head: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "hub")
    token = other.labs.token
    answer = register(client, admin, upstream="labs/base", token=token)
    bad = register(client, admin, upstream="labs/base", token=token, dtype="int8")
    body = {"kind": "generate", "prompt": "x", "base": "org/base"}
    job = client.post("/v1/jobs", headers=ann.headers, json=body)
    pinned = job.json()["params"]["base"]
    assert (pinned["upstream"], pinned["revision"], pinned["path"]) == ("labs/base", head, None)
    seen = [client.get(path, headers=admin.headers) for path in ("/v1/bases", "/v1/audit", "/v1/jobs")]
    for text in (*(each.text for each in (answer, bad, job, *seen)), caplog.text):
        assert token not in text
    with transaction(services.sessions) as session:
        kept = session.scalars(select(RegisteredBase.token)).one()
        assert kept is not None
        assert token.encode() not in kept
        assert encryption.unseal(session, kept) == token


def test_without_a_token_of_its_own_the_hub_s_is_shown(
    client: TestClient, services: Services, other: Other, admin: Person, head: str
) -> None:
    refused = register(client, admin, upstream="labs/base")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "repo_not_found")
    object.__setattr__(services.upstream, "_settings", services.settings.model_copy(update={"upstream_token": "x"}))
    assert register(client, admin, upstream="labs/base").status_code == 404
    assert other.asked[-1][1] == "Bearer x"


def test_registering_again_moves_the_base_to_another_commit(
    client: TestClient, other: Other, admin: Person, head: str
) -> None:
    asked: dict[str, Any] = {"upstream": "labs/base", "token": other.labs.token, "licence": "mit", "dtype": "float16"}
    first = register(client, admin, **asked).json()
    with TestClient(other.app, base_url="http://testserver") as there:
        weights = safetensors({"model.embed_tokens.weight": ((4, 8), bytes(128))})
        second = protocol.committed(there, other.labs, "labs/base", {"model.safetensors": weights})
    again = register(client, admin, **asked).json()
    assert (first["revision"], again["revision"]) == (head, second)
    assert (again["licence"], again["dtype"], again["layers"]) == ("mit", "float16", 2), "one file goes before shards"
    assert again["fingerprint"] != first["fingerprint"]
    assert register(client, admin, **asked, revision=head).json()["fingerprint"] == first["fingerprint"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"upstream": "https://elsewhere.example/labs/base"}, "upstream"),
        ({"upstream": "//elsewhere.example/base"}, "upstream"),
        ({"upstream": "../whoami-v2"}, "upstream"),
        ({"upstream": "labs/base", "path": "/models"}, "not both"),
        ({}, "not neither"),
        ({"path": "/models", "token": "x"}, "a folder needs none"),
        ({"upstream": "labs/base", "dtype": "int8"}, "'auto', 'float32', 'bfloat16' or 'float16'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anybody_is_asked(
    client: TestClient, other: Other, admin: Person, body: dict[str, Any], reason: str
) -> None:
    answer = register(client, admin, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert reason in answer.json()["error"]["message"]
    assert other.asked == []


CONFIG = {"config.json": b'{"model_type": "llama"}'}
INDEX = "model.safetensors.index.json"


def index(**weights: str) -> dict[str, bytes]:
    return {**CONFIG, INDEX: json.dumps({"weight_map": weights}).encode()}


def test_what_is_no_base_is_refused_with_the_reason(client: TestClient, other: Other, admin: Person) -> None:
    repos = {
        "pickle": ({**CONFIG, "weights.bin": b"\x80\x04."}, "it needs config.json and model.safetensors"),
        "bare": ({"model.safetensors": safetensors({})}, "it needs config.json and model.safetensors"),
        "missing": (index(a="one.safetensors"), "names 1 files that are not there, 'one.safetensors' first"),
        "pickled": (index(a="one.bin"), "are not safetensors"),
        "no-index": ({**CONFIG, INDEX: b"[]"}, "does not map weights to files"),
        "listed": ({"config.json": b"[]", "model.safetensors": safetensors({})}, "is not a JSON object"),
    }
    for name, (files, reason) in repos.items():
        sent(other, f"labs/{name}", files)
        answer = register(client, admin, upstream=f"labs/{name}", token=other.labs.token)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_base"), answer.text
        assert reason in answer.json()["error"]["message"]
        assert f"labs/{name}" in answer.json()["error"]["message"] or INDEX in answer.json()["error"]["message"]
    for wanted in ({"upstream": "labs/absent"}, {"upstream": "labs/listed", "revision": "absent"}):
        assert register(client, admin, **wanted, token=other.labs.token).status_code == 404


def test_an_upstream_that_answers_nonsense_is_an_error_with_a_sentence(
    client: TestClient, other: Other, admin: Person, head: str
) -> None:
    other_bytes = Response(b"x" * 300, 206)
    lies = {
        "GET /api/models/labs/base/revision": [Response("[]"), Response('{"sha": "main"}'), Response("<html>")],
        "GET /api/models/labs/base/tree": [Response('{"a": 1}'), Response('[{"path": 1}]')],
        "GET /labs/base/resolve": [other_bytes, Response(status_code=500)],
    }
    for asked, answers in lies.items():
        for lie in answers:
            other.instead = {asked: lie}
            answer = register(client, admin, upstream="labs/base", token=other.labs.token)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable"), (asked, answer.text)
    other.instead = {"HEAD /labs/base": Response(status_code=403, headers={"X-Error-Code": "GatedRepo"})}
    gated = register(client, admin, upstream="labs/base", token=other.labs.token)
    assert (gated.status_code, gated.json()["error"]["code"]) == (404, "repo_not_found")
    assert "terms" in gated.json()["error"]["message"]


def test_without_an_upstream_there_is_none_to_take_a_base_from(
    services: Services, admin: Person, client: TestClient
) -> None:
    services.upstream.url = ""
    answer = register(client, admin, upstream="labs/base")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_base")
    assert "UPSTREAM_URL" in answer.json()["error"]["message"]
