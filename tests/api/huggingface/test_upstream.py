"""Read-through of another hub: a second instance of this one, with its own database, users and tokens."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx2
import pytest
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from api.app import create_app
from hub.registry.access import users
from hub.registry.library import importing
from hub.registry.operations import garbage
from hub.registry.platform import upstream_client
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput, Unavailable
from hub.registry.platform.services import Services, connect
from hub.registry.platform.settings import Settings
from hub.registry.platform.storage import Storage
from tests.api.huggingface.conftest import RunClient
from tests.conftest import Person
from tests.other_hub import Other
from tests.support import protocol
from tests.support.files import peft_folder
from tests.support.serving import serving

FILES = {
    **peft_folder(),
    "sub dir/ünïcode & 100%.txt": "Grüße".encode(),
    "empty": b"",
    "large.npz": bytes(range(256)) * 12_000,
}


@pytest.fixture
def transport() -> str:
    return "xet"


@pytest.fixture
def head(other: Other) -> str:
    """The commit of a private repo of the other hub."""
    with TestClient(other.app, base_url="http://testserver") as client:
        protocol.create(client, other.labs, "labs/base", private=True)
        head = protocol.committed(client, other.labs, "labs/base", FILES)
    other.asked.clear()
    return head


@pytest.fixture
def settings(settings: Settings, other: Other, head: str) -> Iterator[Settings]:
    with serving(other) as url:
        token = other.labs.token
        yield settings.model_copy(
            update={"upstream_url": url, "upstream_token": token, "upstream_namespaces": "labs more"}
        )


@pytest.fixture(autouse=True)
def nothing_kept(services: Services) -> Iterator[None]:
    yield
    garbage.drop_old(services, upstream_client.KEPT, timedelta(seconds=-60))  # the bucket is that of all tests


def test_off_by_default(base_settings: Settings) -> None:
    assert (base_settings.upstream_url, base_settings.upstream_namespaces) == (None, "")


DOWNLOAD = """
    from huggingface_hub import HfApi, HfFileSystem, snapshot_download
    print(snapshot_download("labs/base", local_dir="{0}", revision="{1}"))
    assert HfApi().get_paths_info("labs/base", ["empty"], revision="{1}")[0].size == 0
"""


def test_a_stock_client_downloads_and_what_came_stays(
    run_client: RunClient, other: Other, head: str, ann: Person, services: Services
) -> None:
    run_client(DOWNLOAD.format("first", "main"))
    place = services.settings.cache_dir.parent
    for path, data in FILES.items():
        assert (place / "first" / path).read_bytes() == data
    # The other hub has heard of no token but its own, and its token has gone to nobody.
    assert {token for _, token in other.asked} == {f"Bearer {other.labs.token}"}
    fetched = [question for question, _ in other.asked if question.startswith("GET /labs/base/resolve")]
    assert len(fetched) == len([path for path, data in FILES.items() if data])
    other.asked.clear()
    run_client("""
        from huggingface_hub import snapshot_download
        snapshot_download("labs/base", local_dir="second")
    """, home="elsewhere")  # fmt: skip
    assert (place / "second/large.npz").read_bytes() == FILES["large.npz"]
    assert not [question for question, _ in other.asked if question.startswith("GET /labs/base/resolve")]


def test_a_commit_is_kept_also_when_the_upstream_is_away(
    client: TestClient, other: Other, head: str, ann: Person
) -> None:
    questions = [
        f"/api/models/labs/base/revision/{head}",
        f"/api/models/labs/base/tree/{head}?recursive=true",
        f"/labs/base/resolve/{head}/large.npz",
        f"/labs/base/resolve/{head}/README.md",
    ]
    before = [client.get(question, headers=ann.headers) for question in questions]
    assert [answer.status_code for answer in before] == [200] * 4
    other.off = True
    other.asked.clear()
    again = [client.get(question, headers=ann.headers) for question in questions]
    assert [answer.content for answer in again] == [answer.content for answer in before]
    assert other.asked == []
    message = protocol.error_of(client.get("/api/models/labs/base", headers=ann.headers), 503)
    assert other.labs.token not in message


def test_headers_and_ranges_are_those_of_a_file_here(client: TestClient, head: str, ann: Person) -> None:
    large, small = FILES["large.npz"], FILES["README.md"]
    for path, data, etag in [
        ("large.npz", large, protocol.sha256(large)),
        ("README.md", small, protocol.git_oid(small)),
        ("empty", b"", protocol.git_oid(b"")),
    ]:
        answer = client.head(f"/labs/base/resolve/main/{path}", headers=ann.headers)
        assert answer.headers["X-Repo-Commit"] == head
        assert (answer.headers["ETag"], answer.headers["Content-Length"]) == (f'"{etag}"', str(len(data)))
    for _ in range(2):  # as it comes, and when the whole has been kept
        part = client.get("/labs/base/resolve/main/large.npz", headers={**ann.headers, "Range": "bytes=1000-2999"})
        assert (part.status_code, part.content) == (206, large[1000:3000])
        assert part.headers["Content-Range"] == f"bytes 1000-2999/{len(large)}"
        assert client.get("/labs/base/resolve/main/large.npz", headers=ann.headers).content == large


def test_pages_lead_on_through_this_hub(client: TestClient, other: Other, ann: Person) -> None:
    seen, url = [], "/api/models/labs/base/tree/main?limit=2&recursive=true"
    while url:
        page = client.get(url, headers=ann.headers)
        seen += [item["path"] for item in page.json()]
        link = page.headers.get("Link", "")
        assert link == "" or link.startswith("<http://testserver/api/models/labs/base/tree/main?")
        url = link.removeprefix("<http://testserver").partition(">")[0]
    assert {path for path in seen if path != "sub dir"} == set(FILES)


def test_only_who_is_signed_in_and_only_what_is_listed(
    client: TestClient, services: Services, other: Other, ann: Person, make_user: Callable[..., Person]
) -> None:
    paths = ["/api/models/{}", "/api/models/{}/tree/main", "/{}/resolve/main/README.md", "/api/models/{}/refs"]
    for path in paths:
        for name, headers in [("labs/base", {}), ("unlisted/base", ann.headers), ("ann/absent", ann.headers)]:
            protocol.error_of(client.get(path.format(name), headers=headers), 404, "RepoNotFound")
    assert other.asked == []
    for path in paths:
        protocol.error_of(client.get(path.format("labs/absent"), headers=ann.headers), 404, "RepoNotFound")
        assert client.get(path.format("labs/base"), headers=ann.headers).status_code == 200
    protocol.error_of(client.get("/api/models/labs/base/revision/absent", headers=ann.headers), 404, "RevisionNotFound")
    protocol.error_of(client.get("/labs/base/resolve/main/absent", headers=ann.headers), 404, "EntryNotFound")
    protocol.error_of(protocol.commit(client, ann, "labs/base", protocol.inline("a", b"a")), 404, "RepoNotFound")
    other.asked.clear()
    with transaction(services.sessions) as session:
        users.create_namespace(session, "labs", "organization", ann.viewer.id)
    for path in paths:  # now the namespace is one of this hub
        protocol.error_of(client.get(path.format("labs/base"), headers=ann.headers), 404, "RepoNotFound")
    assert other.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/models/labs/base/tree/main/%2E%2E/%2E%2E/%2E%2E/%2E%2E/whoami-v2",
        "/api/models/labs/base/tree/main/..%2F..%2F..%2F..%2F..%2Fwhoami-v2",
        "/api/models/labs/base/revision/..%2F..%2F..%2F..%2Fwhoami-v2",
        "/api/models/labs/base/revision/..%5C..%5Cwhoami-v2",
        "/api/models/labs/%2E%2E/revision/main",
        "/labs/base/resolve/main/..%2F..%2F..%2F..%2Fapi%2Fwhoami-v2",
        "/labs/base/resolve/..%2F..%2F..%2Fapi%2Fwhoami-v2/x",
    ],
)
def test_no_address_leads_out_of_the_repo(client: TestClient, other: Other, ann: Person, path: str) -> None:
    """The upstream's token goes with each question, so that no other must be asked by it."""
    assert client.get(path, headers=ann.headers).status_code == 404
    assert other.asked == []


def test_the_bytes_may_lie_on_another_host_which_never_sees_the_token(
    client: TestClient, other: Other, ann: Person, head: str
) -> None:
    """As on a hub that redirects to S3. That host gets no token, neither the upstream's nor the caller's."""
    seen: list[dict[bytes, bytes]] = []
    data = FILES["large.npz"]

    async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            seen.append(dict(scope["headers"]))
            await Response(data)(scope, receive, send)

    linked = {"X-Repo-Commit": head, "X-Linked-ETag": f'"{protocol.sha256(data)}"', "X-Linked-Size": str(len(data))}
    with serving(elsewhere) as url:
        redirect = RedirectResponse(f"{url}/signed?for=this", 302, headers=linked)
        other.instead = {f"{method} /labs/base/resolve": redirect for method in ("HEAD", "GET")}
        assert client.get("/labs/base/resolve/main/large.npz", headers=ann.headers).content == data
    assert len(seen) == 1  # nothing but the bytes is asked for there
    assert b"authorization" not in seen[0]


def test_a_repo_that_was_renamed_is_found_at_its_new_name(
    client: TestClient, other: Other, ann: Person, head: str
) -> None:
    for kind, path in [("GET", "/api/models/labs/old"), ("HEAD", "/labs/old/resolve/main/README.md")]:
        other.instead[f"{kind} {path}"] = RedirectResponse(path.replace("old", "base"), 307)
    assert client.get("/api/models/labs/old", headers=ann.headers).json()["sha"] == head
    answer = client.head("/labs/old/resolve/main/README.md", headers=ann.headers)
    assert answer.headers["X-Repo-Commit"] == head


def test_whatever_else_the_upstream_answers_is_an_error_with_a_sentence(
    client: TestClient, other: Other, ann: Person, services: Services, head: str
) -> None:
    info, tree, file = "/api/models/labs/base", "/api/models/labs/base/tree/main", "/labs/base/resolve/main/README.md"
    good = {"X-Repo-Commit": head, "ETag": '"x"', "Content-Length": "3"}
    lies: list[tuple[str, str, ASGIApp]] = [
        (info, f"GET {info}", Response("<html>")),
        (info, f"GET {info}", Response("[" * 100_000)),
        (info, f"GET {info}", Response("[NaN]")),
        (info, f"GET {info}", RedirectResponse("http://127.0.0.1:9/api/models/labs/base")),
        (info, f"GET {info}", RedirectResponse(info)),  # for ever
        (info, f"GET {info}", RedirectResponse("http://[")),
        (info, f"GET {info}", Response(b"no gzip", headers={"Content-Encoding": "gzip"})),
        (info, f"GET {info}", Response(status_code=429)),
        (info, f"GET {info}", StreamingResponse(b" " * (1 << 20) for _ in range(100))),
        (tree, f"GET {tree}", Response("[]", headers={"Link": '<x:@elsewhere/next>; rel="next"'})),
        (tree, f"GET {tree}", Response("[]", headers={"Link": '<http://host:port/>; rel="next"'})),
        (file, "HEAD /labs", Response()),
        (file, "HEAD /labs", Response(headers={**good, "X-Repo-Commit": "main"})),
        (file, "HEAD /labs", Response(headers={**good, "ETag": '"\xff"'})),
        (file, "HEAD /labs", Response(headers={**good, "X-Linked-Size": "9" * 5_000})),
        (file, "GET /labs", Response(status_code=404)),
        (file, "GET /labs", RedirectResponse("http://127.0.0.1:9/")),
    ]
    for path, asked, lie in lies:
        other.instead = {asked: lie}
        said = protocol.error_of(client.get(path, headers=ann.headers), 503)
        assert "upstream hub" in said
        assert other.labs.token not in said
    other.instead = {f"GET {tree}": Response("[]", headers={"Link": '<http://elsewhere/a?b=c>; rel="next"'})}
    assert client.get(tree, headers=ann.headers).headers["Link"] == '<http://testserver/a?b=c>; rel="next"'
    other.instead = {f"GET {info}": Response(r'["\ud800"]')}
    assert client.get(info, headers=ann.headers).content == rb'["\ud800"]'
    other.instead = {"GET /api": Response(status_code=403, headers={"X-Error-Code": "GatedRepo"})}
    assert "terms" in protocol.error_of(client.get(info, headers=ann.headers), 404, "RepoNotFound")
    assert [*services.storage.keys(upstream_client.KEPT)] == []


def test_an_upstream_that_is_not_there_is_an_error_with_a_sentence(services: Services, ann: Person, head: str) -> None:
    settings = services.settings.model_copy(update={"upstream_url": "http://127.0.0.1:9"})
    alone = connect(settings)
    with TestClient(create_app(alone)) as client:
        for path in ("/api/models/labs/base", "/labs/base/resolve/main/README.md"):
            assert "ConnectError" in protocol.error_of(client.get(path, headers=ann.headers), 503)
    alone.close()


@pytest.mark.parametrize("path", ["large.npz", "README.md"])  # by SHA-256, by git's id
def test_wrong_bytes_end_before_the_last_and_are_not_kept(
    hub_url: str, services: Services, other: Other, ann: Person, path: str
) -> None:
    data = FILES[path]
    for wrong in (bytes(len(data)), data[:-1], data + b"x"):
        other.instead = {"GET /labs/base/resolve": Response(wrong)}
        with pytest.raises(
            (httpx2.RemoteProtocolError, httpx2.HTTPStatusError)
        ):  # cut off, or known before the first byte
            httpx2.get(f"{hub_url}/labs/base/resolve/main/{path}", headers=ann.headers).raise_for_status()
    wait_until_all_is_stored()
    assert [*services.storage.keys(f"{upstream_client.KEPT}bytes/")] == []
    other.instead = {}
    assert httpx2.get(f"{hub_url}/labs/base/resolve/main/{path}", headers=ann.headers).content == data


def storing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "(store)" in thread.name]


def wait_until_all_is_stored() -> None:
    deadline = time.monotonic() + 30
    while storing():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_reader_who_goes_away_leaves_no_thread_and_nothing_kept(
    hub_url: str, services: Services, other: Other, ann: Person, head: str
) -> None:
    size = 200 << 20
    going_on = threading.Event()

    def endless() -> Iterator[bytes]:
        for _ in range(size >> 20):
            going_on.wait(0.01)
            yield bytes(1 << 20)

    headers = {"X-Repo-Commit": head, "ETag": f'"{"0" * 64}"', "Content-Length": str(size)}
    other.instead = {
        "HEAD /labs/base/resolve": Response(headers=headers),
        "GET /labs/base/resolve": StreamingResponse(endless(), headers=headers),
    }
    with httpx2.stream("GET", f"{hub_url}/labs/base/resolve/main/large.npz", headers=ann.headers) as answer:
        next(answer.iter_bytes())
        assert len(storing()) == 1
    wait_until_all_is_stored()
    assert [*services.storage.keys(f"{upstream_client.KEPT}bytes/")] == []
    assert httpx2.get(f"{hub_url}/api/whoami-v2", headers=ann.headers, timeout=5).status_code == 200


@pytest.mark.parametrize("path", ["large.npz", "README.md"])
def test_a_file_passes_also_where_s3_takes_nothing(
    client: TestClient, ann: Person, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def refuse(*arguments: object, **named: object) -> str:
        raise Unavailable("S3 is full.")

    monkeypatch.setattr(Storage, "put_stream", refuse)
    answer = client.get(f"/labs/base/resolve/main/{path}", headers=ann.headers)
    assert answer.content == FILES[path]
    assert storing() == []


def test_a_large_file_without_a_hash_passes_and_is_not_kept(
    client: TestClient, services: Services, other: Other, ann: Person, head: str
) -> None:
    data = bytes(upstream_client.MAX_SMALL_BYTES + 1)
    headers = {"X-Repo-Commit": head, "ETag": '"of-another-kind"'}
    other.instead = {"GET /labs/base/resolve": Response(data), "HEAD /labs": Response(data, headers=headers)}
    assert client.get("/labs/base/resolve/main/x", headers=ann.headers).content == data
    assert [*services.storage.keys(f"{upstream_client.KEPT}bytes/")] == []


def test_what_is_asked_of_a_branch_is_not_kept(client: TestClient, other: Other, ann: Person, head: str) -> None:
    """Not even where a file is called like a commit."""
    for path in ("/api/models/labs/base/tree/main", f"/api/models/labs/base/tree/main/{head}"):
        client.get(path, headers=ann.headers)
        other.asked.clear()
        client.get(path, headers=ann.headers)
        assert len(other.asked) == 1


def test_what_came_is_removed_in_time(client: TestClient, services: Services, ann: Person) -> None:
    client.get("/labs/base/resolve/main/large.npz", headers=ann.headers)
    assert [*services.storage.keys(f"{upstream_client.KEPT}bytes/")]
    garbage.drop_old(services, upstream_client.KEPT, timedelta(days=1))
    assert [*services.storage.keys(f"{upstream_client.KEPT}bytes/")]
    garbage.drop_old(services, upstream_client.KEPT, timedelta(seconds=-60))
    assert [*services.storage.keys(upstream_client.KEPT)] == []


def test_its_adapters_are_imported_one_line_each(services: Services, other: Other, head: str, ann: Person) -> None:
    nested = {f"b/{path}": data for path, data in peft_folder(seed=4).items()}
    with TestClient(other.app, base_url="http://testserver") as client:
        for name, files in {"nested": nested, "notes": {"README.md": b"nothing"}}.items():
            protocol.create(client, other.labs, f"labs/{name}")
            protocol.committed(client, other.labs, f"labs/{name}", files)

    def lines(address: str) -> dict[str, str]:
        found = importing.import_upstream(services, ann.viewer, "ann", address)
        return {each.name: each.outcome for each in found}

    outcomes = {"ann/base": "accepted", "ann/nested-b": "accepted", "ann/notes": "refused"}
    assert lines("hf:labs/*") == outcomes
    assert lines("hf:labs/*") == {**outcomes, "ann/base": "unchanged", "ann/nested-b": "unchanged"}
    assert lines("hf:labs/base") == {"ann/base": "unchanged"}
    assert lines("hf:labs/none") == {"ann/none": "refused"}
    for namespace in ("others", "ann"):
        with pytest.raises(InvalidInput, match="UPSTREAM_NAMESPACES"):
            lines(f"hf:{namespace}/*")
    other.off = True
    assert lines("hf:labs/nested") == {"ann/nested": "refused"}
