"""An adapter's pages: what each tab shows, to whom; nothing of an upload becomes code, in a page or in what is pasted from it."""

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from starlette.testclient import TestClient

from hub.registry.models.adapters import Lineage
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.web.render import markdown
from tests.conftest import Person
from tests.support.files import TINY, peft_folder
from tests.support.http import upload_adapter
from tests.support.pages import HTML, sign_in
from tests.support.published import adapter, base

AT = "/adapters/ann/x"
TABS = ("", "/try", "/files", "/versions", "/lineage", "/similar", "/settings")
ESTIMATE = {"mean": 0.75, "low": 0.5, "high": 0.9}
REPORT: dict[str, Any] = {
    "held_out": 120,
    "verdict": "The module beats base.",
    "arms": [{"name": "base", "exact_match": ESTIMATE}, {"name": "module", "exact_match": ESTIMATE}],
    "comparisons": [{"against": "base", "exact_match": ESTIMATE}],
}


def committed(client: TestClient, person: Person, files: Mapping[str, bytes]) -> None:
    """By the Hub protocol, which takes what is no single adapter too."""
    lines: list[Any] = [{"key": "header", "value": {"summary": "files"}}]
    for path, data in files.items():
        content = b64encode(data).decode()
        lines.append({"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}})
    body = "\n".join(map(json.dumps, lines))
    headers = {**person.headers, "Content-Type": "application/x-ndjson"}
    sent = client.post("/api/models/ann/x/commit/main", headers=headers, content=body)
    assert sent.status_code == 200, sent.text


def with_sidecar(report: Any) -> dict[str, bytes]:
    return {**peft_folder(), "loraloom.json": json.dumps({"report": report}).encode()}


def test_every_tab_answers_and_settings_are_for_those_who_may_write(
    client: TestClient, services: Services, ann: Person, bob: Person
) -> None:
    adapter(services, ann, "ann/x", visibility="public")
    assert [client.get(AT + tab).status_code for tab in TABS[:-1]] == [200] * 6
    assert client.get(f"{AT}/settings", headers=HTML, follow_redirects=False).status_code == 303
    sign_in(client, bob)
    assert "Settings" not in client.get(AT).text
    assert client.get(f"{AT}/settings").status_code == 403
    sign_in(client, ann)
    page = client.get(f"{AT}/settings").text
    assert page.count('aria-current="page"') == 2, "the section and the tab"
    assert "/settings" in client.get(AT).text


def test_snippets_carry_address_id_and_version(client: TestClient, services: Services, ann: Person) -> None:
    base(services, width=64)
    adapter(services, ann, "ann/x", seed=1, width=64)
    second = adapter(services, ann, "ann/x", seed=2, rank=32, width=64)
    sign_in(client, ann)
    proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "hub.example.org"}
    page = client.get(AT, headers=proxied).text
    assert "export HF_ENDPOINT=https://hub.example.org" in page
    assert "export HF_TOKEN=ll_..." in page, "it is not public"
    assert "PeftModel.from_pretrained(base, &#34;ann/x&#34;, revision=&#34;v2&#34;)" in page
    assert f"vllm serve {TINY} --enable-lora --max-lora-rank 32" in page
    assert "--lora-modules x=ann/x.v2" in page
    assert "hf download ann/x --revision v2" in page
    assert "This hub does not keep the files of" in page
    older = client.get(AT, params={"revision": "v1"}).text
    assert "--lora-paths x=ann/x.v1" in older
    assert "main</code> has gone on since" in older
    assert client.get("/adapters/ann/x.v1").text == older
    assert second.id[:12] not in older


def test_what_is_pasted_holds_no_command_of_the_uploader(client: TestClient, services: Services, ann: Person) -> None:
    evil = 'x"; import os; os.system("id") #$(touch /tmp/y)'
    adapter(services, ann, "ann/x", base=evil, visibility="public")
    page = client.get(AT).text
    assert "vllm serve &#39;x&#34;; import os; os.system(&#34;id&#34;) #$(touch /tmp/y)&#39; --" in page
    assert r"from_pretrained(&#34;x\&#34;; import os; os.system(\&#34;id\&#34;) #$(touch /tmp/y)&#34;," in page


def test_a_commit_without_a_version_is_downloaded_first(client: TestClient, services: Services, ann: Person) -> None:
    adapter(services, ann, "ann/x", visibility="public")
    commit = adapter(services, ann, "ann/x", files={**peft_folder(), "notes.txt": b"more"})
    page = client.get(AT).text
    assert f"hf download ann/x --revision {commit.id} --local-dir ./x-{commit.id[:8]}" in page
    assert f"--lora-modules x=./x-{commit.id[:8]}" in page


def test_an_uploaded_report_is_shown_as_the_uploader_s_word(
    client: TestClient, services: Services, ann: Person
) -> None:
    adapter(services, ann, "ann/x", files=with_sidecar(REPORT), visibility="public")
    page = client.get(AT).text
    assert "The module beats base." in page
    assert "0.500 to 0.900" in page
    assert "it was not measured on this hub" in page
    assert "It helped" not in page, "which is said of what was measured here"


def test_a_report_of_another_shape_is_left_out(client: TestClient, services: Services, ann: Person) -> None:
    odd: tuple[Any, ...] = (
        {**REPORT, "arms": []},
        {**REPORT, "arms": [{"name": "base"}, *REPORT["arms"]]},
        {**REPORT, "arms": [{"name": "base", "exact_match": {"mean": "<b>", "low": 0, "high": 1}}]},
        {**REPORT, "verdict": ["x"]},
        "text",
        None,
    )
    for seed, report in enumerate(odd):
        adapter(services, ann, f"ann/y{seed}", files=with_sidecar(report), visibility="public")
        page = client.get(f"/adapters/ann/y{seed}")
        assert page.status_code == 200
        assert "Beside its controls" not in page.text


def test_a_card_gets_an_outline_below_the_page_s_own() -> None:
    html = str(markdown("# One\n\n#### Deep\n\n## Two\n\n| a |\n|---|\n| b |\n"))
    assert re.findall(r"<h(\d)>", html) == ["3", "4", "4"]
    assert '<div class="scroll" tabindex="0"><table>' in html


def test_what_changed_between_two_versions(client: TestClient, services: Services, ann: Person) -> None:
    adapter(services, ann, "ann/x", visibility="public")
    files = {**peft_folder(rank=4, seed=1, base=None), "notes.txt": b"more"}
    adapter(services, ann, "ann/x", files=files)
    page = client.get(f"{AT}/versions", params={"compare": "v1", "revision": "v2"}).text
    assert re.search(r"ranks</th><td>2</td><td>4<", page)
    assert re.search(r"base model</th><td>tests/tiny-base</td><td><span class=\"quiet\">none", page)
    assert re.search(r"added</span> notes.txt <span class=\"quiet\">4 B<", page)
    assert "Set base_model_name_or_path" in page, "a new finding, with its remedy"
    assert "Nothing: both have the same files." in client.get(f"{AT}/versions?compare=v2").text
    assert client.get(f"{AT}/versions?compare=none").status_code == 404
    assert page.count(">changes</a>") == 1, "of each commit that has one before it"


def test_lineage_names_no_more_than_one_may_see(
    client: TestClient, services: Services, ann: Person, bob: Person
) -> None:
    grand = adapter(services, ann, "ann/grand", seed=0, visibility="public")
    parent = adapter(services, ann, "ann/parent", seed=1, visibility="public")
    hidden = adapter(services, ann, "ann/hidden", seed=2, visibility="private")
    deep = adapter(services, ann, "ann/deep", seed=7, visibility="public")
    child = adapter(services, ann, "ann/x", seed=8, visibility="public")
    secret = adapter(services, bob, "bob/secret", seed=9, visibility="private")
    with transaction(services.sessions) as session:
        for below, above, weight in (
            (parent, grand, 0.25),
            (child, parent, 0.5),
            (child, hidden, -0.125),
            (hidden, deep, 1.0),
            (secret, child, 1.0),
        ):
            session.add(Lineage(child=below.id, parent=above.id, role="module", weight=weight))
    page = client.get(f"{AT}/lineage").text
    assert 'href="/adapters/ann/grand/lineage?revision=v1"' in page
    assert ">-0.12<" in page
    assert 'class="weight end"' not in page, "nothing was made from it that a visitor may see"
    assert 'class="weight end"' in client.get("/adapters/ann/parent/lineage").text
    assert "private adapter" in page
    for name in ("hidden", "ann/deep", "bob/secret"):
        assert name not in page.replace('class="node model hidden"', "")
    sign_in(client, ann)
    page = client.get(f"{AT}/lineage").text
    assert "ann/hidden" in page
    assert "ann/deep" in page
    client.delete("/v1/adapters/ann/parent")
    page = client.get(f"{AT}/lineage").text
    assert "deleted adapter" in page
    assert "ann/grand" not in page, "what it was made from went with it"
    assert "cannot be made again" in page


def test_a_repo_without_an_adapter_has_a_page(client: TestClient, services: Services, ann: Person) -> None:
    headers = ann.headers
    client.post("/api/repos/create", headers=headers, json={"name": "ann/x", "visibility": "public"})
    assert "Nothing is in it yet" in client.get(AT).text
    assert "Nothing is in it yet" in client.get(f"{AT}/files").text
    committed(client, ann, {"notes.txt": b"more"})
    page = client.get(AT).text
    assert "holds no LoRA adapter" in page
    assert "Try it" not in page
    assert "notes.txt" in client.get(f"{AT}/files").text
    assert [client.get(AT + tab).status_code for tab in TABS[:-1]] == [200] * 6


def test_a_repo_of_several_adapters_shows_each(client: TestClient, services: Services, ann: Person) -> None:
    client.post("/api/repos/create", headers=ann.headers, json={"name": "ann/x", "visibility": "public"})
    committed(client, ann, {f"{at}/{path}": data for at in ("de", "fr fr") for path, data in peft_folder().items()})
    page = client.get(AT).text
    assert "subfolder=&#34;de&#34;" in page
    assert "x=./x-v1/fr fr" in page
    assert page.count("<h2>Findings</h2>") == 2
    assert [client.get(AT + tab).status_code for tab in TABS[:-1]] == [200] * 6


def test_what_clients_print_leads_to_the_page(client: TestClient, ann: Person) -> None:
    commit = upload_adapter(client, ann.headers, "ann/x", visibility="public")["commit"]
    for path, where in (
        ("/ann/x", AT),
        (f"/ann/x/commit/{commit}", f"{AT}?revision={commit}"),
        ("/ann/x/tree/a%2Fb/folder", f"{AT}?revision=a%2Fb"),
        ("/ann/x/blob/main/README.md", f"{AT}?revision=main"),
        ("/datasets/ann/d/tree/main", "/datasets/ann/d?revision=main"),
    ):
        answer = client.get(path, follow_redirects=False)
        assert (answer.status_code, answer.headers.get("Location")) == (302, where)
    assert "ann/x" in client.get(f"/ann/x/commit/{commit}").text
    for path in ("/v1/nothing", "/API/x", "/static/none.css", "/jobs/x/tree/main"):
        assert client.get(path, follow_redirects=False).status_code == 404, path
    assert client.get("/ann/x/resolve/main/README.md").status_code == 200


def test_a_shared_version_has_a_page_for_whoever_has_the_link(
    client: TestClient, services: Services, ann: Person
) -> None:
    files = {**peft_folder(), "README.md": b"# Card\n\nIt *answers*.\n"}
    adapter(services, ann, "ann/x", files=files, visibility="private")
    sign_in(client, ann)
    page = client.post(f"{AT}/shares", data={"days": "2", "revision": "v1"}).text
    (link,) = set(re.findall(r"http://testserver(/share/[\w-]+)", page))
    assert "Revoke" in page
    assert link not in client.get(f"{AT}/settings").text, "it is shown once"
    client.cookies.clear()
    shared = client.get(link)
    assert "<em>answers</em>" in shared.text
    assert shared.headers["Referrer-Policy"] == "no-referrer"
    for address in re.findall(r'href="(/v1/shares/[^"]+)"', shared.text):
        assert client.get(address).status_code == 200
    assert client.get(AT).status_code == 404
    sign_in(client, ann)
    (revoke,) = re.findall(r'action="([^"]+/revoke)"', page)
    client.post(revoke)
    assert client.get(link, headers=HTML).status_code == 404


def test_settings_ask_before_they_reveal_and_before_they_delete(
    client: TestClient, services: Services, ann: Person
) -> None:
    hidden = adapter(services, ann, "ann/hidden", seed=1, visibility="private")
    child = adapter(services, ann, "ann/x", seed=2, visibility="private")
    with transaction(services.sessions) as session:
        session.add(Lineage(child=child.id, parent=hidden.id, role="module", weight=1.0))
    sign_in(client, ann)
    asked = client.post(f"{AT}/visibility", data={"visibility": "public"})
    assert asked.status_code == 409
    assert "ann/hidden" in asked.text
    assert "Show these names and make it public" in asked.text
    asked = client.post(f"{AT}/shares", data={"days": "1"})
    assert asked.status_code == 409
    assert "Show these names and make the link" in asked.text
    client.post(f"{AT}/visibility", data={"visibility": "public", "reveal": "true"})
    assert 'class="badge public"' in client.get(AT).text
    refused = client.post(f"{AT}/delete", data={"typed_name": "ann/y"})
    assert refused.status_code == 422
    assert "Type ann/x to delete it" in refused.text
    assert client.get(AT).status_code == 200
    client.post(f"{AT}/delete", data={"typed_name": "ann/x"}, follow_redirects=False)
    assert client.get(AT).status_code == 404


def test_a_repair_that_is_refused_says_why_beside_the_form(client: TestClient, services: Services, ann: Person) -> None:
    adapter(services, ann, "ann/x", base=None)
    sign_in(client, ann)
    refused = client.post(f"{AT}/repair", data={"base": "no/such"})
    assert refused.status_code == 404
    assert 'value="no/such"' in refused.text
    assert 'role="alert"' in refused.text
    done = client.post(f"{AT}/repair", data={"licence": "mit"}, follow_redirects=False)
    assert (done.status_code, done.headers["Location"]) == (303, AT)
    assert "<dd>mit</dd>" in client.get(AT).text


def test_the_history_is_paged(client: TestClient, services: Services, ann: Person) -> None:
    for seed in range(32):
        adapter(services, ann, "ann/x", seed=seed, visibility="public")
    first = client.get(f"{AT}/versions").text
    (older,) = re.findall(r'href="([^"]*before=[^"]*)">Older', first)
    rest = client.get(older.replace("&amp;", "&")).text
    shown = [
        set(re.findall(r'<td class="nobreak"><a href="[^"]*revision=([0-9a-f]{40})"', page)) for page in (first, rest)
    ]
    assert [len(each) for each in shown] == [30, 2]
    assert not shown[0] & shown[1]
