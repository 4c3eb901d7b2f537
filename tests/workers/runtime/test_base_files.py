"""Bases of another hub, downloaded by workers: once, whole, checked, and evicted where a limit is set."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.responses import Response
from starlette.testclient import TestClient

from hub import supervisor
from hub.registry.platform.services import Services
from hub.registry.platform.settings import Settings
from hub.registry.platform.storage import CHUNK
from tests.conftest import Person
from tests.other_hub import Other
from tests.support import protocol
from tests.support.serving import serving
from tests.workers.jobs import RUN_ONE, Submit, close, job_of, wait_for
from workers.runner import Runner


@pytest.fixture
def settings(settings: Settings, other: Other) -> Iterator[Settings]:
    with serving(other) as url:
        yield settings.model_copy(update={"upstream_url": url})


@pytest.fixture
def upstream_files(tiny_folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tiny_folder.iterdir()}


Register = Callable[..., str]


@pytest.fixture
def register(client: TestClient, admin: Person, other: Other, upstream_files: Mapping[str, bytes]) -> Register:
    """register(name): a private repo of the other hub as a base with its reader's token; returns its commit."""

    def register(name: str, extra: Mapping[str, bytes] | None = None, **more: Any) -> str:
        with TestClient(other.app, base_url="http://testserver") as there:
            protocol.create(there, other.labs, f"labs/{name}", private=True)
            rest = {"README.md": name.encode(), "modeling.py": b"raise SystemExit", "training_args.bin": b"\x80"}
            head = protocol.committed(there, other.labs, f"labs/{name}", {**upstream_files, **rest, **(extra or {})})
        body = {"id": f"org/{name}", "upstream": f"labs/{name}", "token": other.labs.token, **more}
        answer = client.post("/v1/bases", headers=admin.headers, json=body)
        assert answer.status_code == 201, answer.text
        assert answer.json()["revision"] == head
        other.asked.clear()
        return head

    return register


def prompt(name: str) -> dict[str, Any]:
    return {"kind": "generate", "prompt": "say 1", "base": f"org/{name}", "max_new_tokens": 2}


def outcome(services: Services, runner: Runner, job_id: Any) -> tuple[str, str | None]:
    runner.run(job_id)
    job = job_of(services, job_id)
    return job.state, job.error_code


DONE = ("succeeded", None)


def kept(services: Services) -> set[str]:
    return {path.name for path in (services.settings.cache_dir / "bases").iterdir() if path.is_dir()}


def fetched(other: Other) -> list[str]:
    return [question.rpartition("/")[2] for question, _ in other.asked if question.startswith("GET /labs/")]


def test_a_base_is_downloaded_once_and_nothing_but_what_makes_it(
    services: Services, runner: Runner, submit: Submit, other: Other, register: Register, upstream_files: Any
) -> None:
    head = register("one", dtype="float16")
    assert outcome(services, runner, submit(prompt("one"))) == DONE
    folder = services.settings.cache_dir / "bases" / head
    assert {path.name for path in folder.iterdir()} == {*upstream_files, "README.md"}
    assert all((folder / name).read_bytes() == data for name, data in upstream_files.items())
    assert sorted(fetched(other)) == sorted([*upstream_files, "README.md"]), "each file once"
    assert {token for _, token in other.asked} == {f"Bearer {other.labs.token}"}
    assert runner.bases.get(folder, id="org/one", dtype=torch.float16).dtype == torch.float16
    assert runner.bases.loads == 1, "warm, in the dtype that was registered"
    other.asked.clear()
    other.off = True
    fresh = Runner(services.settings)
    assert outcome(services, fresh, submit(prompt("one"))) == DONE
    assert other.asked == [], "another worker of this machine has it too, and the upstream may be away"
    close(fresh)


@pytest.mark.parametrize("lie", [b"", b"other bytes"])
def test_wrong_bytes_fail_the_job_and_leave_no_base_and_the_next_try_goes_on(
    services: Services, runner: Runner, submit: Submit, other: Other, register: Register, lie: bytes
) -> None:
    head = register("one")
    other.instead = {"GET /labs/one/resolve/" + head + "/tokenizer.json": Response(lie)}
    assert outcome(services, runner, submit(prompt("one"))) == ("failed", "unavailable")
    assert kept(services) == {f"{head}.part"}
    before = fetched(other)
    other.instead = {}
    other.asked.clear()
    assert outcome(services, runner, submit(prompt("one"))) == DONE
    assert kept(services) == {head}
    assert set(before) & set(fetched(other)) == {"tokenizer.json"}, "whole files are not fetched again"


def test_weights_that_are_not_those_registered_are_refused(
    client: TestClient, admin: Person, services: Services, runner: Runner, submit: Submit, tiny_folder: Path
) -> None:
    body = {"id": "org/local", "path": str(tiny_folder)}
    assert client.post("/v1/bases", headers=admin.headers, json=body).status_code == 201
    job_id = submit(prompt("local"))
    with services.sessions.begin() as session:
        job = session.get_one(type(job_of(services, job_id)), job_id)
        job.params = {**job.params, "base": {**job.params["base"], "fingerprint": "0" * 64}}
    assert outcome(services, runner, job_id) == ("failed", "base_changed")


def test_a_killed_download_leaves_nothing_half(
    services: Services, submit: Submit, other: Other, register: Register
) -> None:
    head = register("one", {"large.txt": bytes(3 * CHUNK)})

    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(2 * CHUNK), "more_body": True})
        await receive()
        await receive()

    other.instead = {f"GET /labs/one/resolve/{head}/large.txt": stuck}
    settings = services.settings.model_copy(update={"lease_seconds": 2.0})
    job_id = submit(prompt("one"))
    command = [sys.executable, "-c", RUN_ONE, str(job_id)]
    half = services.settings.cache_dir / "bases" / f"{head}.part" / "large.txt.fresh"
    with subprocess.Popen(
        command, cwd=supervisor.ROOT, env={**os.environ, **supervisor.environment(settings)}
    ) as worker:
        wait_for(lambda: half.exists() and half.stat().st_size >= CHUNK, 250)
        worker.send_signal(signal.SIGKILL)
    assert kept(services) == {f"{head}.part"}
    other.instead = {}
    runner = Runner(settings)
    assert outcome(services, runner, submit(prompt("one"))) == DONE, "no lock outlives its process"
    assert kept(services) == {head}
    assert not list((services.settings.cache_dir / "bases" / head).glob("*.fresh"))
    close(runner)


def test_the_base_used_longest_ago_makes_room_and_none_that_is_in_use(
    services: Services, submit: Submit, register: Register
) -> None:
    heads = {name: register(name) for name in ("a", "b", "c")}
    free = Runner(services.settings)
    assert outcome(services, free, submit(prompt("a"))) == DONE
    size = sum(path.stat().st_size for path in (services.settings.cache_dir / "bases" / heads["a"]).iterdir())
    limited = services.settings.model_copy(update={"base_cache_bytes": int(2.5 * size)})
    runner = Runner(limited)
    assert outcome(services, runner, submit(prompt("b"))) == DONE
    assert kept(services) == {heads["a"], heads["b"]}
    # The first worker has "a" warm, which was used before "b"; what this worker has warm itself, it lets go of.
    assert outcome(services, runner, submit(prompt("c"))) == DONE
    assert kept(services) == {heads["a"], heads["c"]}
    free.bases.drop()
    free.files.release(free.bases.folders)
    assert outcome(services, runner, submit(prompt("b"))) == DONE
    assert kept(services) == {heads["b"], heads["c"]}
    for each in (free, runner):
        close(each)


def test_a_base_above_the_limit_is_refused_with_what_to_do(
    services: Services, submit: Submit, register: Register
) -> None:
    register("one")
    runner = Runner(services.settings.model_copy(update={"base_cache_bytes": 1000}))
    job_id = submit(prompt("one"))
    assert outcome(services, runner, job_id) == ("failed", "base_cache_full")
    assert "BASE_CACHE_BYTES" in (job_of(services, job_id).error_message or "")
    nowhere = Runner(services.settings.model_copy(update={"upstream_url": None}))
    assert outcome(services, nowhere, submit(prompt("one"))) == ("failed", "no_upstream")
    for each in (runner, nowhere):
        close(each)
