"""Teachers for a job: bases that this worker runs, servers that the administrator has named, and their replies kept by content."""

import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import torch
from pydantic import BaseModel, ConfigDict, HttpUrl, RootModel, SecretStr

from hub.lora.core.bases import DTYPES, WarmBases
from hub.lora.core.errors import LoraError
from hub.lora.par.voting import BATCH, BaseTeacher, Teacher
from hub.registry.jobs.contracts.common import BaseParams, PinnedBase
from hub.registry.jobs.contracts.par import PinnedTeacher
from workers.runtime.work import BaseWork

PAUSES = (1.0, 2.0, 4.0)  # seconds before a server is asked again
PASSING = (408, 429, 500, 502, 503, 504)  # what a server may answer that another try may mend


class UnknownTeacher(LoraError):
    code = "unknown_teacher"


class TeacherUnavailable(LoraError):
    code = "teacher_unavailable"


class Server(BaseModel):
    """One entry of the file that TEACHERS_FILE names: an OpenAI-compatible server, up to and with /v1, and the model to ask there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: HttpUrl
    model: str
    key: SecretStr | None = None
    max_tokens: int = 1024
    timeout: float = 120.0


class _Servers(RootModel[dict[str, Server]]):
    pass


@dataclass(frozen=True)
class ServerTeacher:
    name: str
    server: Server

    def replies(self, prompts: Sequence[str]) -> list[str]:
        key = self.server.key
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        with (
            httpx.Client(headers=headers, timeout=self.server.timeout) as client,
            ThreadPoolExecutor(BATCH) as pool,
        ):
            return list(pool.map(lambda prompt: self._reply(client, prompt), prompts))

    def _reply(self, client: httpx.Client, prompt: str) -> str:
        body = {
            "model": self.server.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self.server.max_tokens,
        }
        why = ""
        for pause in (0.0, *PAUSES):
            time.sleep(pause)
            try:
                answer = client.post(f"{str(self.server.url).rstrip('/')}/chat/completions", json=body)
            except httpx.TransportError as error:
                why = type(error).__name__
                continue
            if answer.is_success:
                return _content(self.name, answer)
            why = f"status {answer.status_code}"
            if answer.status_code not in PASSING:
                break
        raise TeacherUnavailable(
            f"The teacher {self.name} does not answer ({why}). Ask the administrator, or choose another."
        )


def _content(name: str, answer: httpx.Response) -> str:
    try:
        return str(answer.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, LookupError, TypeError) as error:
        raise TeacherUnavailable(f"The teacher {name} answers with something that is no chat completion.") from error


@dataclass(frozen=True)
class LazyBaseTeacher:
    """A base that is loaded only when a reply is not known yet; of those beside the job's own, one at a time is in memory."""

    work: BaseWork[BaseParams]
    pinned: PinnedBase
    others: WarmBases

    @property
    def name(self) -> str:
        return self.pinned.id

    def replies(self, prompts: Sequence[str]) -> list[str]:
        own = self.name == self.work.base.id
        if own:
            return BaseTeacher(self.work.base).replies(prompts)
        base = self.others.get(self.work.folder_of(self.pinned), id=self.name, dtype=dtype_of(self.pinned), alone=True)
        return BaseTeacher(base).replies(prompts)


@dataclass(frozen=True)
class CachedTeacher:
    """A teacher whose replies are kept in files, each named by who was asked (`identity`) and what."""

    teacher: Teacher
    identity: str
    folder: Path

    @property
    def name(self) -> str:
        return self.teacher.name

    def replies(self, prompts: Sequence[str]) -> list[str]:
        places = [self._place(prompt) for prompt in prompts]
        new = [index for index, place in enumerate(places) if not place.exists()]
        if new:
            for index, reply in zip(new, self.teacher.replies([prompts[index] for index in new]), strict=True):
                self._keep(places[index], reply)
        return [place.read_text(encoding="utf-8") for place in places]

    def _place(self, prompt: str) -> Path:
        digest = hashlib.sha256(f"{self.identity}\0{prompt}".encode()).hexdigest()
        return self.folder / digest[:2] / digest

    def _keep(self, place: Path, reply: str) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False, encoding="utf-8") as fresh:
            fresh.write(reply)
        Path(fresh.name).replace(place)


def teachers_of(work: BaseWork[BaseParams], pinned: Sequence[PinnedTeacher]) -> list[Teacher]:
    """The teachers that a job names. Raises UnknownTeacher for a server that no administrator has named."""
    servers = _named(work.settings.teachers_file)
    folder, others = work.settings.cache_dir / "votes", WarmBases()
    found: list[Teacher] = []
    for teacher in pinned:
        if teacher.base is not None:
            identity = f"{teacher.base.fingerprint} {dtype_of(teacher.base) or work.base.dtype}"
            found.append(CachedTeacher(LazyBaseTeacher(work, teacher.base, others), identity, folder))
            continue
        name = teacher.server or ""
        if name not in servers:
            known = ", ".join(sorted(servers)) or "none"
            raise UnknownTeacher(f"There is no teacher {name!r}; the administrator has named: {known}.")
        server = servers[name]
        identity = f"{server.url} {server.model} {server.max_tokens}"
        found.append(CachedTeacher(ServerTeacher(name, server), identity, folder))
    return found


def dtype_of(pinned: PinnedBase) -> torch.dtype | None:
    return DTYPES[pinned.dtype]


def _named(file: Path | None) -> Mapping[str, Server]:
    if file is None:
        return {}
    return _Servers.model_validate(json.loads(file.read_text(encoding="utf-8"))).root
