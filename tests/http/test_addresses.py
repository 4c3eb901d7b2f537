"""The hub's own address: the one that the visitor wrote, behind a proxy too, in every link that the hub gives out."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from starlette.testclient import TestClient

from tests.conftest import Person
from tests.support.http import upload_adapter
from tests.support.pages import sign_in

PROXIED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "hub.example.org"}


def test_links_of_the_api_and_of_pages_have_the_address_before_the_proxy(client: TestClient, ann: Person) -> None:
    upload_adapter(client, ann.headers, "ann/m")
    made = client.post("/v1/adapters/ann/m/shares", json={}, headers={**ann.headers, **PROXIED})
    api = urlsplit(made.json()["address"])
    assert (api.scheme, api.netloc) == ("https", "hub.example.org")
    sign_in(client, ann)
    page = client.post("/adapters/ann/m/shares", data={"days": "1"}, headers=PROXIED).text
    assert re.search(r"https://hub\.example\.org/share/[\w-]{20,}", page)
    client.post("/teams", data={"name": "weavers"})
    page = client.post("/teams/weavers/invitations", data={"role": "read"}, headers=PROXIED).text
    assert re.search(r"https://hub\.example\.org/join\?invitation=[\w-]{20,}", page)


def test_only_one_function_reads_the_hub_s_address() -> None:
    """Starlette's own ways to say it know nothing of X-Forwarded-Host."""
    root = Path(__file__).parents[2]
    found = [
        str(path.relative_to(root))
        for folder in ("api", "hub")
        for path in (root / folder).rglob("*.py")
        if re.search(r"request\.(base_url|url_for|url\.netloc)", path.read_text())
    ]
    assert found == ["hub/http/addresses.py"]
