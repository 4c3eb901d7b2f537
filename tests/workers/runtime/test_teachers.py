"""Teachers behind a real OpenAI-compatible server (`transformers serve`), their replies kept, and what is said when one is away."""

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from hub.lora.core.bases import Base
from hub.lora.par.voting import BALLOT, BaseTeacher
from hub.registry.platform.services import Services
from tests.conftest import Person
from tests.lora.teacher import task, trained_teacher
from tests.workers.jobs import Submit, download, job_of, wait_for
from tests.workers.two_systems import HELD_OUT, two_systems
from workers.runner import Runner
from workers.runtime import teachers as module
from workers.runtime.teachers import CachedTeacher, Server, ServerTeacher, TeacherUnavailable

MODEL = "tests/tiny"
BALLOTS = [
    BALLOT.format(model=MODEL, input=each.input, target=each.target) for each in (task(7, 1), task(7, 2), task(90, 2))
]


@pytest.fixture(scope="module")
def teacher() -> Base:
    return trained_teacher(MODEL)


@pytest.fixture(scope="module")
def teacher_folder(teacher: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "knowing"
    teacher.model.save_pretrained(folder)
    teacher.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(teacher_folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as out, subprocess.Popen(command, env=env, stdout=out, stderr=out) as process:
        try:
            wait_for(lambda: _is_up(port, process, log), seconds=120)
            yield Server(url=f"http://127.0.0.1:{port}/v1", model=str(teacher_folder), max_tokens=8)
        finally:
            process.terminate()


def _is_up(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_server_replies_as_the_model_does_here(server: Server, teacher: Base) -> None:
    assert ServerTeacher("served", server).replies(BALLOTS) == ["System1", "System2", "System2"]
    assert BaseTeacher(teacher).replies(BALLOTS) == ["System1", "System2", "System2"]


class Moody(BaseHTTPRequestHandler):
    """Too busy for two requests, then well; it wants a key."""

    left, seen = 2, 0

    def do_POST(self) -> None:
        type(self).seen += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != "Bearer secret-key":
            self._answer(401, {})
        elif type(self).left:
            type(self).left -= 1
            self._answer(503, {})
        else:
            text = "nothing" if body["model"] == "wrong" else "System2"
            self._answer(200, {} if body["model"] == "wrong" else {"choices": [{"message": {"content": text}}]})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(Moody, "left", 2)
    monkeypatch.setattr(Moody, "seen", 0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Moody) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
        http.shutdown()
        thread.join()


def asked(url: str, *, model: str = "any", key: str | None = "secret-key") -> ServerTeacher:
    return ServerTeacher("moody", Server(url=url, model=model, key=key))


def test_a_busy_server_is_asked_again_and_a_reply_is_asked_for_once(moody: str, tmp_path: Path) -> None:
    teacher = CachedTeacher(asked(moody), "any", tmp_path)
    assert teacher.replies(["a"]) == ["System2"]
    assert Moody.seen == 3
    assert teacher.replies(["a", "b"]) == ["System2", "System2"]
    assert Moody.seen == 4, "only what is new is asked"
    assert CachedTeacher(asked(moody), "other", tmp_path).replies(["a"]) == ["System2"]
    assert Moody.seen == 5, "another model's replies are its own"


def test_what_no_other_try_can_mend_is_said_without_the_key(moody: str) -> None:
    with pytest.raises(TeacherUnavailable, match=r"moody does not answer \(status 401\)") as refused:
        asked(moody, key="wrong-key").replies(["a"])
    assert Moody.seen == 1, "not asked again"
    assert "wrong-key" not in f"{refused.value} {asked(moody, key='wrong-key')!r}"
    with pytest.raises(TeacherUnavailable, match="no chat completion"):
        asked(moody, model="wrong").replies(["a"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        with pytest.raises(TeacherUnavailable, match="ConnectError"):
            asked(f"http://127.0.0.1:{taken.getsockname()[1]}/v1").replies(["a"])


def bare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in ("input", "target")} for row in rows]


@pytest.mark.usefixtures("library")
def test_a_job_whose_teachers_vote(
    client: TestClient,
    services: Services,
    admin: Person,
    ann: Person,
    submit: Submit,
    server: Server,
    teacher_folder: Path,
    tmp_path: Path,
) -> None:
    named = tmp_path / "teachers.json"
    named.write_text(json.dumps({"served": {"url": str(server.url), "model": server.model, "max_tokens": 8}}))
    for base_id in ("tests/teacher", "tests/teacher-2"):
        body = {"id": base_id, "path": str(teacher_folder)}
        assert client.post("/v1/bases", headers=admin.headers, json=body).status_code == 201
    runner = Runner(services.settings.model_copy(update={"teachers_file": named}))
    gold = [{**vars(task(number, system)), "system": system} for number in range(100, 109) for system in (1, 2)]
    teachers = [{"server": "served"}, {"base": "tests/teacher"}, {"base": "tests/teacher-2"}]
    rows = two_systems()["examples"]["inline"]
    split = {"teachers": teachers, "gold": {"inline": gold}}
    asked_for = two_systems(examples={"inline": bare(rows)}, held_out={"inline": HELD_OUT}, split=split)
    job_id = submit(asked_for)
    runner.run(job_id)
    job = client.get(f"/v1/jobs/{job_id}", headers=ann.headers).json()
    assert job["state"] == "succeeded", job["error"]
    found = job["result"]["split"]
    assert (found["by"], found["system1"], found["system2"], found["ties"]) == ("vote", 24, 12, 0)
    assert found["unanimous"] == 1.0
    assert [(trust["teacher"], trust["right"]) for trust in found["teachers"]] == [
        ("served", 1.0),
        ("tests/teacher", 1.0),
        ("tests/teacher-2", 1.0),
    ]
    folder = download(client, ann, "ann/two", tmp_path / "two")
    votes = [json.loads(line) for line in (folder / "votes.jsonl").read_text().splitlines()]
    assert [line["system"] for line in votes] == [row["system"] for row in rows]
    assert votes[0]["votes"] == {"served": 1, "tests/teacher": 1, "tests/teacher-2": 1}
    assert "| tests/teacher-2 | 1.000 [0.824, 1.000] | 1.000 | 0 |" in (folder / "README.md").read_text()
    page = client.get(f"/jobs/{job_id}", headers=ann.headers).text
    assert "100.0% of the examples were unanimous" in page
    assert '<th scope="row">tests/teacher-2</th>' in page
    assert "gold" in json.loads((folder / "loraloom.json").read_text())["inputs"]

    wrong = {
        "unknown_teacher": [{"server": "elsewhere"}],
        "teacher_no_better_than_chance": [{"base": "tests/tiny"}],
    }
    for code, chosen in wrong.items():
        failing = submit(
            asked_for | {"name": f"ann/{code[:7]}", "split": {"teachers": chosen, "gold": {"inline": gold}}}
        )
        runner.run(failing)
        assert job_of(services, failing).error_code == code
    runner.services.close()


@pytest.mark.parametrize(
    ("teachers", "words"),
    [
        ([{"server": "a"}, {"server": "b"}], "must be odd"),
        ([{"server": "a"}, {"server": "a"}, {"base": "b"}], "each teacher once"),
        ([{"server": "a", "base": "b"}], "either a base or a server"),
        ([{"url": "http://169.254.169.254/v1"}], "url"),
    ],
)
def test_a_vote_that_cannot_be_decided_or_names_an_address_is_refused(
    client: TestClient, ann: Person, teachers: list[dict[str, str]], words: str
) -> None:
    split = {"teachers": teachers, "gold": {"inline": [{"input": "a", "target": "b", "system": 1}]}}
    answer = client.post("/v1/jobs", headers=ann.headers, json=two_systems(split=split))
    assert answer.status_code == 422
    assert words in answer.text
