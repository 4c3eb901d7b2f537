"""Uploads as a browser or curl sends them, and the JSON of an answer."""

from collections.abc import Mapping
from typing import Any

from httpx2 import Client, Response

from tests.support.files import peft_folder


def json_of(answer: Response) -> dict[str, Any]:
    """The JSON object of an answer."""
    body = answer.json()
    assert isinstance(body, dict), body
    return body


def upload(
    client: Client,
    headers: Mapping[str, str],
    name: str,
    files: Mapping[str, bytes],
    kind: str = "adapters",
    **form: str,
) -> Response:
    """POST the files as a browser or curl would."""
    parts = [("files", (path, data, "application/octet-stream")) for path, data in files.items()]
    return client.post(f"/v1/{kind}", headers=dict(headers), data={"name": name, **form}, files=parts)


def upload_adapter(client: Client, headers: Mapping[str, str], name: str, **options: Any) -> dict[str, Any]:
    """Upload a sound adapter and return the answer's body."""
    form = {key: options.pop(key) for key in ("visibility", "message") if key in options}
    answer = upload(client, headers, name, peft_folder(**options), **form)
    assert answer.status_code == 201, answer.text
    return json_of(answer)
