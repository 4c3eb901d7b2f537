"""What `make dev` fills an instance with: a team, its members, an adapter, two data sets and a few jobs. Running it again adds nothing."""

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from hub.local.files import write_private
from hub.registry.access import credentials, organizations, permissions, users
from hub.registry.access.permissions import OPERATOR, ManageAccount, UseJobs
from hub.registry.access.viewer import Viewer, viewer_of
from hub.registry.jobs.kinds import JobRequest
from hub.registry.jobs.submit import submit
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.starter.publish import MODULES, publish_data, publish_module
from hub.starter.tasks import DEMO, TASKS
from hub.vocabulary import Role

TEAM = "weavers"
MEMBERS: dict[str, Role] = {"ann": "admin", "bob": "write", "cleo": "read"}
OUTSIDER = "olaf"
TOKENS = "people.json"  # in the data directory: the tokens of the people that were made


def fill(services: Services, data: Path) -> dict[str, str]:
    """Make what is not there yet; returns everybody's token by name. The starter library must have been published."""
    tokens = make_people(services, data / TOKENS)
    with transaction(services.sessions) as session:
        people = {name: viewer_of(users.get_user(session, name)) for name in MEMBERS}
        make_team(session, people)
    ann, bob = people["ann"], people["bob"]
    publish_data(services, ann, DEMO, f"{TEAM}/{DEMO.name}-data", "internal")
    publish_data(services, ann, TASKS[0], f"{TEAM}/{TASKS[0].name}-data", "private")
    publish_module(services, bob, MODULES / "plurals", f"{TEAM}/plurals", "internal")
    for name, body in jobs().items():
        request = TypeAdapter(JobRequest).validate_python(body)
        submit(services, permissions.authorize(bob, UseJobs), request, idempotency_key=f"sample-{name}")
    return tokens


def make_people(services: Services, path: Path) -> dict[str, str]:
    """Tokens are shown once, so they are kept in a file that only its owner can read."""
    tokens: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    with transaction(services.sessions) as session:
        for name in (*MEMBERS, OUTSIDER):
            if name not in tokens:
                user = users.ensure_user(session, name)
                tokens[name] = credentials.create_token_for(session, OPERATOR, user, "dev")
    write_private(path, json.dumps(tokens, indent=2) + "\n")
    return tokens


def make_team(session: Session, people: dict[str, Viewer]) -> None:
    """The first of them founds it and invites the others, as in the browser."""
    founder, *others = people.values()
    if permissions.role(session, founder, TEAM) is None:
        organizations.create(session, permissions.authorize(founder, ManageAccount), TEAM)
    organization = organizations.administer(session, founder, TEAM)
    for member in others:
        if permissions.role(session, member, TEAM) is None:
            _, secret = organizations.invite(session, organization, MEMBERS[member.name], days=1)
            organizations.accept(session, permissions.authorize(member, ManageAccount), secret)


def jobs() -> dict[str, dict[str, object]]:
    """Bodies of requests, small enough for a laptop: one of each kind that ends within a minute, and one that fails."""
    data = f"{TEAM}/{DEMO.name}-data"
    examples = [asdict(pair) for pair in DEMO.train[:8]]
    return {
        "generate": {"kind": "generate", "prompt": DEMO.held_out[0].input, "module": {"repo": f"{TEAM}/plurals"}},
        "evaluate": {
            "kind": "evaluate",
            "modules": [{"repo": f"{TEAM}/plurals"}, {"repo": "starter/upper-case"}],
            "datasets": [{"dataset": data, "path": "held_out.jsonl"}],
            "limit": 20,
        },
        "compose": {
            "kind": "compose",
            "name": f"{TEAM}/{DEMO.name}",
            "modules": [{"repo": f"starter/{name}"} for name in ("plurals", "upper-case", "past-tense")],
            "examples": {"inline": examples},
            "held_out": {"dataset": data, "path": "held_out.jsonl"},
            "controls": "quick",
            "budget": 6,
            "tune": {"steps": 6},
        },
        "fails": {
            "kind": "train",
            "name": f"{TEAM}/too-long",
            "base": "loraloom/SmolLM2-135M-Instruct-Q4_1",
            "examples": {"inline": [{"input": "word " * 3_000, "target": "end"}]},
            "max_length": 64,
        },
    }
