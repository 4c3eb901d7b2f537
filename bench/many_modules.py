"""A library of any number of made-up modules, written straight into a migrated database: rows alone, nothing in S3.

Shares are skewed as in real libraries: a few bases, owners and tags have most of the modules, owners keep to a few bases each, and what is
new is made for other bases than what is old. Three modules of a hundred are public and a quarter private, so that one viewer sees little
and another much; three of ten have an older version. Everything is drawn from seed 0.
"""

import json
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from typing import Any

import psycopg
from sqlalchemy import make_url

from hub.registry.content.text_index import searchable, short_words
from hub.similarity import WIDTH
from hub.starter.words import REGULAR_NOUNS

NOW = datetime(2026, 11, 1, tzinfo=UTC)
METHODS = ("lora", "loraplus", "dora", "lorahub", "par", "reduce", "pissa", "oft")
TASKS = ("CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "FEATURE_EXTRACTION", "QUESTION_ANS", None)
VISIBILITIES = ("public", "internal", "private")
LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "llama3.1", None)
VERBS = ("Answers", "Classifies", "Corrects", "Explains", "Extracts", "Rewrites", "Sorts", "Summarises", "Translates")
SENTENCES = (
    "日本語の文を中国語に翻訳する。",
    "短い質問に答える。",
    "中文摘要与改写。",
    "按主题分类客户来信。",
    "長い記事を要約する。",
)
NO_LICENCE = {
    "code": "no_licence",
    "severity": "warning",
    "path": "README.md",
    "message": "It names none.",
    "remedy": "",
}

_source = random.Random(0)
NAMESPACES = [f"{_source.choice(REGULAR_NOUNS)}-{index:03}" for index in range(200)]
BASES = [f"{_source.choice(REGULAR_NOUNS)}-ai/model-{index:02}" for index in range(40)]
REGISTERED = BASES[:10]
TAGS = [f"{_source.choice(REGULAR_NOUNS)}-{index}" for index in range(500)]
# Of the descriptions, the most frequent first: common ones, compounds, and two thousand that few use.
WORDS = _source.sample(REGULAR_NOUNS, len(REGULAR_NOUNS))
WORDS += [_source.choice(REGULAR_NOUNS) + noun for noun in REGULAR_NOUNS]
WORDS += ["".join(_source.choices("abcdefghiklmnoprstuwy", k=8)) for _ in range(2_000)]

Row = dict[str, Any]


def fill(database_url: str, modules: int) -> None:
    """Write the rows and ANALYZE. The one user who is no administrator makes everything, and is a member of five namespaces."""
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as server:
        found = server.execute("SELECT id FROM users WHERE NOT is_admin").fetchone()
        assert found, "nobody to make the modules"
        _copy(server, "namespaces", [{"name": name, "kind": "organization"} for name in NAMESPACES])
        members = [{"namespace": name, "user_id": found[0], "role": "write"} for name in NAMESPACES[10::40]]
        _copy(server, "memberships", members)
        base = {"dtype": "bfloat16", "shapes": "{}", "fingerprint": "0" * 64}
        _copy(server, "base_models", [{"id": name, **base} for name in REGISTERED])
        made = _modules(found[0], modules)
        while some := list(islice(made, 5_000)):
            repos, commits, facts = zip(*some, strict=True)
            _copy(server, "repos", repos)
            _copy(server, "commits", [row for rows in commits for row in rows])
            _copy(server, "adapter_facts", [row for rows in facts for row in rows])
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("VACUUM ANALYZE")


def _copy(server: psycopg.Connection[Any], table: str, rows: Sequence[Row]) -> None:
    with server.cursor().copy(f"COPY {table} ({', '.join(rows[0])}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(list(row.values()))


def _modules(author: uuid.UUID, count: int) -> Iterator[tuple[Row, list[Row], list[Row]]]:
    """One repo after another, the oldest first, each with its commits and their facts."""
    source = random.Random(1)
    owner_of = _skewed(source, range(len(NAMESPACES)))
    tag_of, word_of = _skewed(source, TAGS), _skewed(source, WORDS)
    for index in range(count):
        owner = owner_of()
        name = f"{source.choice(REGULAR_NOUNS)}-{source.choice(REGULAR_NOUNS)}-{index}"
        at = NOW - timedelta(minutes=5 * (count - index), seconds=source.random() * 200)
        repo = {
            "id": uuid.UUID(int=source.getrandbits(128), version=4),
            "type": "model",
            "namespace": NAMESPACES[owner],
            "name": name,
            "visibility": source.choices(VISIBILITIES, (3, 72, 25))[0],
            "updated_at": at,
        }
        # Four bases at first and all of them at last; each owner keeps to a few of what there is.
        there = 4 + (len(BASES) - 4) * index // count
        base = BASES[(owner * 7 + int(source.expovariate(0.4))) % there]
        commits, facts = [], []
        for age in range(1 + (source.random() < 0.3)):
            commit = f"{source.getrandbits(160):040x}"
            when = at - timedelta(days=age)
            commits.append(
                {"id": commit, "repo_id": repo["id"], "author_id": author, "message": "Upload", "created_at": when}
            )
            of_repo = {"repo_id": repo["id"], **{key: repo[key] for key in ("namespace", "name", "visibility")}}
            place = {"commit_id": commit, "folder": "", "current": age == 0, "published_at": when}
            facts.append(place | of_repo | _facts(source, f"{NAMESPACES[owner]}/{name}", base, tag_of, word_of))
        yield repo, commits, facts


def _facts(
    source: random.Random, full_name: str, base: str, tag_of: Callable[[], str], word_of: Callable[[], str]
) -> Row:
    rank = source.choices((4, 8, 16, 32, 64), (1, 4, 5, 3, 1))[0]
    method = source.choices(METHODS, (60, 20, 8, 6, 3, 2, 0.9, 0.1))[0]
    tags = list(dict.fromkeys(tag_of() for _ in range(source.randint(1, 6))))
    width = 512 * (1 + BASES.index(base) % 8)
    licence = source.choices(LICENCES, (50, 25, 10, 5, 10))[0]
    description = " ".join(word_of() for _ in range(source.randint(8, 32)))
    description = f"{source.choice(VERBS)} the {description}"[:300]
    if source.random() < 0.05:
        description = source.choice(SENTENCES) + description
    value = source.randint(10, 190) / 200
    measured = {"metric": "exact_match", "value": value, "low": value - 0.05, "high": value + 0.05, "examples": 200}
    layers = [f"model.layers.{layer}.self_attn.{part}_proj" for layer in range(16) for part in "qv"]
    facts = {
        "task_type": source.choices(TASKS, (75, 10, 6, 4, 2, 1, 2))[0],
        "licence": licence,
        "parameters": 2 * width * rank * len(layers),
        "size_bytes": 4 * width * rank * len(layers) + source.randint(4_000, 9_000),
        "shapes": dict.fromkeys(layers, (width, width, rank)),
        "description": description,
    }
    searched = searchable(" ".join([full_name, base, method, *tags, description]))
    return {
        "base_id": base if base in REGISTERED else None,
        "base_model": base,
        "method": method,
        "rank": rank,
        "tags": tags,
        "facts": json.dumps(facts),
        "findings": json.dumps([] if licence else [NO_LICENCE]),
        "measured": json.dumps(measured) if source.random() < 0.4 else None,
        "search": searched,
        "short": short_words(searched),
        "sketch": source.randbytes(4 * WIDTH),
    }


def _skewed(source: random.Random, values: Sequence[Any]) -> Callable[[], Any]:
    """Draws from values of which each has the share 1/place."""
    weights = list(accumulate(1 / (place + 1) for place in range(len(values))))
    return lambda: source.choices(values, cum_weights=weights)[0]
