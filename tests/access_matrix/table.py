"""Who may do what, one row a route. test_matrix.py asks every route as every role, for a private, an internal and a public repo.

The repo belongs to the organization "weavers". A route that has no row here fails the suite.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# The limited token is an administrator's, with all scopes, and limited to one repo that no row asks for.
ROLES = ("visitor", "stranger", "reader", "writer", "owner", "administrator", "limited token")
VISIBILITIES = ("private", "internal", "public")
OK = 0  # stands for the row's own status

# need -> role -> what a private, an internal and a public repo answer; one number where it makes no difference.
ANSWERS: Mapping[str, Mapping[str, int | tuple[int, int, int]]] = {
    "nothing": dict.fromkeys(ROLES, OK),
    "a user": {**dict.fromkeys(ROLES, OK), "visitor": 401},
    "an account": {**dict.fromkeys(ROLES, OK), "visitor": 401, "limited token": 403},
    "an administrator": {**dict.fromkeys(ROLES, 403), "visitor": 401, "administrator": OK},
    "read": {
        **dict.fromkeys(ROLES, OK),
        "visitor": (404, 404, OK),
        "stranger": (404, OK, OK),
        "limited token": (404, 404, OK),
    },
    "read and submit": {
        **dict.fromkeys(ROLES, OK),
        "visitor": 401,
        "stranger": (404, OK, OK),
        "limited token": (404, 404, OK),
    },
    "write": {
        **dict.fromkeys(ROLES, OK),
        "visitor": 401,
        "stranger": (404, 403, 403),
        "reader": 403,
        "limited token": (404, 404, 403),
    },
    "create": {**dict.fromkeys(ROLES, OK), "visitor": 401, "stranger": 403, "reader": 403, "limited token": 403},
    # As "write", but a visitor learns of what is public only.
    "may write": {
        **dict.fromkeys(ROLES, OK),
        "visitor": (404, 404, 401),
        "stranger": (404, 403, 403),
        "reader": 403,
        "limited token": (404, 404, 403),
    },
    "a member": {**dict.fromkeys(ROLES, OK), "visitor": 401, "stranger": 404, "limited token": 404},
    "a member who writes": {
        **dict.fromkeys(ROLES, OK),
        "visitor": 401,
        "stranger": 404,
        "reader": 403,
        "limited token": 404,
    },
    "an owner": {
        **dict.fromkeys(ROLES, 403),
        "visitor": 401,
        "stranger": 404,
        "owner": OK,
        "administrator": OK,
        "limited token": 404,
    },
    "a signed address": dict.fromkeys(ROLES, 403),
    "an upload's own token": dict.fromkeys(ROLES, 401),
    "nobody": dict.fromkeys(ROLES, OK),  # not offered: says so to all alike
}

# What is read and changes something all the same: it signs in, or grants a token to write with.
CHANGING_GETS = {"/login/oidc/callback", "/api/{kind}/{namespace}/{name}/xet-write-token/{revision}"}


@dataclass(frozen=True)
class Row:
    """`path` is the route's own, `asked` what is put in its place (else made from `path`); {repo} and the like are filled in.

    `ok` is the status where the need is met. `spends`: a success uses something up, so the next cell gets new ones.
    `silent`: a success changes nothing that belongs in the audit log; every other success of a method that is not read leaves a line.
    """

    method: str
    path: str
    need: str
    ok: int = 200
    send: Mapping[str, Any] = field(default_factory=dict)
    asked: str = ""
    spends: bool = False
    silent: bool = False


NOWHERE = "00000000-0000-0000-0000-000000000000"
ALIASES = "/v1/adapters/{namespace}/{name}/aliases"
MODULE = "/adapters/{namespace}/{name}"
HUB = "/api/{kind}/{namespace}/{name}"
MINE = "/v1/organizations/{organization}"
TEAM = "/teams/{organization}"
EXAMPLES = {"inline": [{"input": "a", "target": "b"}]}
COMPOSE = {"kind": "compose", "name": "weavers/woven", "modules": [{"repo": "{repo}"}], "examples": EXAMPLES}

FORM = {
    "act": "start",
    "base": "tests/tiny-base",
    "namespace": "weavers",
    "result": "woven{fresh}",
    "module": "{repo}",
    "examples.from": "paste",
    "examples.text": "a\tb",
}

TABLE: tuple[Row, ...] = (
    # the instance
    Row("GET", "/healthz", "nothing"),
    Row("GET", "/readyz", "nothing"),
    Row("GET", "/v1/docs", "nothing"),
    Row("GET", "/static/{name}", "nothing", asked="/static/style.css"),
    # accounts
    Row("GET", "/v1/me", "a user"),
    Row("PUT", "/v1/me/password", "an account", 422, {"json": {"new": "short"}}),
    Row("POST", "/v1/session", "nothing", 401, {"json": {"name": "nobody", "password": "wrong"}}),
    Row("DELETE", "/v1/session", "a user", 204, silent=True),
    Row("GET", "/v1/sessions", "an account"),
    Row("DELETE", "/v1/sessions", "an account", 204),
    Row("DELETE", "/v1/sessions/{session_id}", "an account", 404, asked=f"/v1/sessions/{NOWHERE}"),
    Row("GET", "/v1/tokens", "an account"),
    Row("POST", "/v1/tokens", "an account", 201, {"json": {"name": "t"}}),
    Row("DELETE", "/v1/tokens/{token_id}", "an account", 404, asked=f"/v1/tokens/{NOWHERE}"),
    Row("POST", "/v1/users", "an administrator", 201, {"json": {"name": "u{fresh}"}}),
    Row("GET", "/login", "nothing"),
    Row("POST", "/login", "nothing", 401, {"data": {"name": "nobody", "password": "wrong"}}),
    Row("POST", "/logout", "nothing", 303, silent=True),
    Row("GET", "/login/oidc", "nothing", 404),
    Row("GET", "/login/oidc/callback", "nothing", 404),
    Row("GET", "/device", "a user"),
    Row("GET", "/account", "an account"),
    Row("POST", "/account/password", "an account", 422, {"data": {"new": "short"}}),
    Row("POST", "/account/tokens", "an account", 201, {"data": {"name": "t"}}),
    Row("POST", "/account/tokens/{token_id}/revoke", "an account", 404, asked=f"/account/tokens/{NOWHERE}/revoke"),
    Row("POST", "/account/sessions/end", "an account", 303),
    Row("POST", "/account/sessions/{session_id}/end", "an account", 404, asked=f"/account/sessions/{NOWHERE}/end"),
    Row("GET", "/activity", "an owner", send={"params": {"namespace": "weavers"}}),
    Row("POST", "/device", "an account", 404, {"data": {"code": "AAAA-AAAA", "answer": "deny"}}),
    # organizations
    Row("GET", "/v1/organizations", "a user"),
    Row("POST", "/v1/organizations", "an account", 201, {"json": {"name": "o{fresh}"}}),
    Row("GET", f"{MINE}/members", "a member"),
    Row(
        "PUT",
        f"{MINE}/members/{{user}}",
        "an owner",
        204,
        {"json": {"role": "read"}},
        "/v1/organizations/weavers/members/guest",
    ),
    Row("DELETE", f"{MINE}/members/{{user}}", "an owner", 404, asked="/v1/organizations/weavers/members/nobody"),
    Row("GET", f"{MINE}/invitations", "an owner"),
    Row("POST", f"{MINE}/invitations", "an owner", 201, {"json": {}}),
    Row(
        "DELETE",
        f"{MINE}/invitations/{{invitation_id}}",
        "an owner",
        404,
        asked=f"/v1/organizations/weavers/invitations/{NOWHERE}",
    ),
    Row("POST", "/v1/invitations/accept", "an account", 404, {"json": {"secret": "no such"}}),
    Row("POST", f"{MINE}/services", "an owner", 201, {"json": {"name": "s{fresh}"}}),
    Row("DELETE", f"{MINE}/services/{{service}}", "an owner", 404, asked="/v1/organizations/weavers/services/none"),
    Row("GET", "/v1/namespaces/{namespace}/quota", "a member"),
    Row("PUT", "/v1/namespaces/{namespace}/quota", "an administrator", 200, {"json": {}}),
    Row("GET", "/v1/namespaces/{namespace}/usage", "a member"),
    Row("GET", "/v1/namespaces/{namespace}/webhook", "an owner", 404),
    Row("DELETE", "/v1/namespaces/{namespace}/webhook", "an owner", 404),
    Row(
        "PUT",
        "/v1/namespaces/{namespace}/webhook",
        "an owner",
        200,
        {"json": {"url": "https://hooks.example.org/loraloom"}},
    ),
    Row("GET", "/v1/usage", "an administrator"),
    Row("GET", "/v1/system", "an administrator"),
    Row("GET", "/v1/audit", "an owner", send={"params": {"namespace": "weavers"}}),
    Row("GET", "/v1/audit/export", "an owner", send={"params": {"namespace": "weavers"}}),
    Row("GET", "/system", "an administrator"),
    Row("POST", "/system/users", "an administrator", 201, {"data": {"name": "q{fresh}"}}),
    Row("POST", "/system/quota", "an administrator", 303, {"data": {"namespace": "weavers"}}),
    Row("GET", "/teams", "a user"),
    Row("POST", "/teams", "an account", 303, {"data": {"name": "p{fresh}"}}),
    Row("GET", "/join", "a user"),
    Row("POST", "/join", "an account", 404, {"data": {"invitation": "no such"}}),
    Row("GET", "/teams/{organization}", "a member"),
    Row(
        "POST", f"{TEAM}/members/{{user}}", "an owner", 303, {"data": {"role": "read"}}, "/teams/weavers/members/guest"
    ),
    Row("POST", f"{TEAM}/members/{{user}}/remove", "an owner", 404, asked="/teams/weavers/members/nobody/remove"),
    Row("POST", f"{TEAM}/invitations", "an owner", 201, {"data": {"role": "read"}}),
    Row(
        "POST",
        f"{TEAM}/invitations/{{invitation_id}}/withdraw",
        "an owner",
        404,
        asked=f"/teams/weavers/invitations/{NOWHERE}/withdraw",
    ),
    Row("POST", f"{TEAM}/services", "an owner", 201, {"data": {"name": "f{fresh}", "role": "read"}}),
    Row("POST", f"{TEAM}/services/{{service}}/stop", "an owner", 404, asked="/teams/weavers/services/none/stop"),
    # data sets as pages
    Row("GET", "/datasets", "nothing"),
    Row("GET", "/datasets/new", "a user"),
    Row(
        "POST",
        "/datasets/new",
        "create",
        303,
        {"data": {"namespace": "weavers", "name": "new{fresh}", "examples": '{"input": "a", "target": "b"}'}},
    ),
    Row("GET", "/datasets/{namespace}/{name}", "read", asked="/datasets/{dataset}"),
    Row(
        "POST",
        "/datasets/{namespace}/{name}/visibility",
        "write",
        303,
        {"data": {"visibility": "private"}},
        "/datasets/{dataset}/visibility",
        spends=True,
    ),
    Row("POST", "/datasets/{namespace}/{name}/delete", "write", 303, asked="/datasets/{dataset}/delete", spends=True),
    # modules
    Row("GET", "/", "nothing"),
    Row("GET", "/facets", "nothing"),
    Row("GET", "/map", "nothing"),
    Row("GET", "/v1/map", "nothing", send={"params": {"base_model": "tests/tiny-base"}}),
    Row("GET", "/v1/adapters", "nothing"),
    Row("GET", "/v1/facets", "nothing"),
    Row("POST", "/v1/adapters", "create", 201, {"upload": "adapter"}),
    Row("GET", "/upload", "a user"),
    Row(
        "POST",
        "/upload",
        "create",
        422,
        {"data": {"namespace": "weavers"}, "files": [("files", ("adapter_config.json", b"{}"))]},
    ),
    Row(
        "POST",
        "/upload/publish",
        "a user",
        403,
        {"data": {"namespace": "weavers", "entries": "[]", "expires": "1", "signature": "x"}},
    ),
    Row("GET", "/v1/adapters/{namespace}/{name}", "read"),
    Row("GET", MODULE, "read"),
    *(Row("GET", f"{MODULE}/{tab}", "read") for tab in ("files", "versions", "lineage", "similar", "try")),
    Row("GET", f"{MODULE}/settings", "may write"),
    Row("GET", "/{namespace}/{name}", "nothing", 302),  # where it leads to answers as it should
    *(Row("GET", f"/{{namespace}}/{{name}}/{what}/{{rest}}", "nothing", 302) for what in ("commit", "tree", "blob")),
    Row("GET", "/v1/adapters/{namespace}/{name}/similar", "read"),
    Row("POST", "/v1/adapters/{namespace}/{name}/repair", "write", 200, {"json": {"licence": "mit"}}, spends=True),
    Row("POST", f"{MODULE}/repair", "write", 303, {"data": {"licence": "mit"}}, spends=True),
    Row("POST", f"{MODULE}/try", "read and submit", 303, {"data": {"prompt": "hello"}}),
    Row("POST", f"{MODULE}/visibility", "write", 303, {"data": {"visibility": "private"}}, spends=True),
    Row("POST", f"{MODULE}/delete", "write", 303, {"data": {"typed_name": "{repo}"}}, spends=True),
    Row(
        "GET",
        "/v1/{kind}/{namespace}/{name}/files/{path}",
        "read",
        asked="/v1/adapters/{repo}/files/adapter_config.json",
    ),
    Row("GET", "/v1/{kind}/{namespace}/{name}/archive", "read"),
    Row("PATCH", "/v1/{kind}/{namespace}/{name}", "write", 200, {"json": {"visibility": "private"}}, spends=True),
    Row("DELETE", "/v1/{kind}/{namespace}/{name}", "write", 204, spends=True),
    Row("POST", "/v1/{kind}/{namespace}/{name}/restore", "an administrator", 404),
    Row("GET", ALIASES, "read"),
    Row("PUT", f"{ALIASES}/{{alias}}", "write", 200, {"json": {"revision": "main"}}, spends=True),
    Row("POST", f"{ALIASES}/{{alias}}/rollback", "write", 404),
    Row("PUT", f"{ALIASES}/{{alias}}/gate", "write", 404, {"json": {"dataset": "{dataset}", "path": "train.jsonl"}}),
    Row("DELETE", f"{ALIASES}/{{alias}}/gate", "write", 404),
    Row("DELETE", f"{ALIASES}/{{alias}}", "write", 404),
    Row("POST", f"{MODULE}/aliases", "write", 303, {"data": {"alias": "prod", "revision": "main"}}, spends=True),
    *(
        Row("POST", f"{MODULE}/aliases/{act}", "write", 404, {"data": {"alias": "none"}})
        for act in ("rollback", "ungate", "remove")
    ),
    Row(
        "POST",
        f"{MODULE}/aliases/gate",
        "write",
        404,
        {"data": {"alias": "none", "dataset": "{dataset}", "path": "train.jsonl"}},
    ),
    Row("GET", "/v1/adapters/{namespace}/{name}/shares", "write"),
    Row("POST", "/v1/adapters/{namespace}/{name}/shares", "write", 201, {"json": {}}),
    Row(
        "DELETE",
        "/v1/adapters/{namespace}/{name}/shares/{share_id}",
        "write",
        404,
        asked=f"/v1/adapters/{{repo}}/shares/{NOWHERE}",
    ),
    Row("POST", f"{MODULE}/shares", "write", 200, {"data": {"days": "1"}}),
    Row(
        "POST",
        f"{MODULE}/shares/{{share_id}}/revoke",
        "write",
        404,
        asked=f"/adapters/{{repo}}/shares/{NOWHERE}/revoke",
    ),
    Row("GET", "/share/{secret}", "nothing", 404),
    Row("GET", "/v1/shares/{secret}", "nothing", 404),
    Row("GET", "/v1/shares/{secret}/files/{path}", "nothing", 404),
    Row("GET", "/v1/shares/{secret}/archive", "nothing", 404),
    # data sets
    *(
        Row("GET", f"/datasets/{{namespace}}/{{name}}/{what}/{{rest}}", "nothing", 302)
        for what in ("commit", "tree", "blob")
    ),
    Row("GET", "/v1/datasets", "nothing"),
    Row("POST", "/v1/datasets", "create", 201, {"upload": "dataset"}),
    Row("GET", "/v1/datasets/{namespace}/{name}", "read", asked="/v1/datasets/{dataset}"),
    # bases, jobs, scores
    Row("GET", "/v1/bases", "a user"),
    Row("POST", "/v1/bases", "an administrator", 422, {"json": {"id": "a/b", "path": "/nowhere"}}),
    Row("DELETE", "/v1/bases/{base_id}", "an administrator", 404, asked="/v1/bases/no/such"),
    Row("POST", "/v1/jobs", "create", 202, {"json": COMPOSE}),
    Row("GET", "/v1/jobs", "a user"),
    Row("GET", "/v1/jobs/{job_id}", "a member"),
    Row("POST", "/v1/jobs/{job_id}/cancel", "a member who writes", silent=True),
    Row("GET", "/v1/jobs/{job_id}/events", "a member"),
    Row("GET", "/v1/jobs/{job_id}/stream", "a member"),
    Row("GET", "/v1/scores", "nothing"),
    Row("GET", "/new/{kind}", "a user", asked="/new/compose"),
    Row("GET", "/new/generate", "a user"),
    Row("POST", "/new/{kind}", "create", 303, {"data": FORM}, "/new/compose"),
    Row("POST", "/new/{kind}/estimate", "a user", 200, {"data": FORM}, "/new/compose/estimate", silent=True),
    Row(
        "POST",
        "/new/preview",
        "a user",
        200,
        {"data": {"act": "preview:examples", "examples.text": "a\tb"}},
        silent=True,
    ),
    Row("GET", "/jobs", "a user"),
    Row("GET", "/jobs/{job_id}", "a member"),
    Row("POST", "/jobs/{job_id}/cancel", "a member who writes", 303, silent=True),
    Row("GET", "/scores", "nothing"),
    # the protocol of the Hugging Face Hub
    Row("GET", "/api/whoami-v2", "a user"),
    Row("GET", "/api/agent-harnesses", "nothing"),
    Row("POST", "/oauth/device", "nothing", silent=True),
    Row("POST", "/oauth/token", "nothing", 400, {"data": {"grant_type": "password"}}),
    Row("POST", "/api/validate-yaml", "nothing", send={"json": {"content": "x"}}, silent=True),
    Row(
        "POST",
        "/datasets/{namespace}/{name}.git/info/lfs/objects/batch",
        "write",
        200,
        {"json": {"operation": "upload", "objects": []}},
        "/datasets/{dataset}.git/info/lfs/objects/batch",
        silent=True,
    ),
    Row(
        "POST",
        "/{namespace}/{name}.git/info/lfs/objects/batch",
        "write",
        200,
        {"json": {"operation": "upload", "objects": []}},
        silent=True,
    ),
    Row(
        "POST",
        "/datasets/{namespace}/{name}.git/info/lfs/verify",
        "write",
        422,
        {"json": {"oid": "0" * 64, "size": 1}},
        "/datasets/{dataset}.git/info/lfs/verify",
    ),
    Row("POST", "/{namespace}/{name}.git/info/lfs/verify", "write", 422, {"json": {"oid": "0" * 64, "size": 1}}),
    Row(
        "PUT",
        "/api/lfs/{namespace}/{oid}/content",
        "a signed address",
        asked="/api/lfs/weavers/{oid}/content?size=1&expires=1&signature=x",
        send={"content": b"x"},
    ),
    Row(
        "PUT",
        "/api/lfs/{namespace}/{oid}/part-{number}-{part_bytes}",
        "a signed address",
        asked="/api/lfs/weavers/{oid}/part-1-1?size=1&expires=1&signature=x",
        send={"content": b"x"},
    ),
    Row(
        "POST",
        "/api/lfs/{namespace}/{oid}/complete-{count}",
        "a signed address",
        asked="/api/lfs/weavers/{oid}/complete-1?size=1&expires=1&signature=x",
    ),
    Row("GET", f"{HUB}/xet-write-token/{{revision}}", "write", asked="/api/models/{repo}/xet-write-token/main"),
    Row("POST", "/api/xet/{namespace}/{epoch}/v1/xorb-grants/default/{xorb}", "an upload's own token"),
    Row("POST", "/api/xet/{namespace}/{epoch}/v1/xorbs/default/{xorb}", "an upload's own token"),
    Row("POST", "/api/xet/{namespace}/{epoch}/shards", "an upload's own token"),
    Row("POST", "/api/xet/{namespace}/{epoch}/v1/shards", "an upload's own token"),
    Row("POST", "/api/repos/create", "create", 200, {"json": {"name": "new{fresh}", "organization": "weavers"}}),
    Row("DELETE", "/api/repos/delete", "write", 200, {"json": {"name": "{repo}"}}, spends=True),
    Row(
        "POST",
        "/api/repos/move",
        "write",
        200,
        {"json": {"fromRepo": "{repo}", "toRepo": "weavers/moved{fresh}"}},
        spends=True,
    ),
    Row("POST", f"{HUB}/duplicate", "write", 200, {"json": {"repository": "weavers/copy{fresh}"}}),
    Row("PUT", f"{HUB}/settings", "write", 200, {"json": {"visibility": "private"}}, spends=True),
    Row("GET", f"{HUB}/auth-check", "read"),
    Row("GET", f"{HUB}/auth-check/write", "may write"),
    Row("GET", "/api/settings/repositories", "a user"),
    Row("GET", "/api/organizations/{namespace}/settings/repositories", "create"),
    Row("GET", f"{HUB}/tree/{{rest}}", "read", asked="/api/models/{repo}/tree/main"),
    Row(
        "POST",
        f"{HUB}/paths-info/{{revision}}",
        "read",
        send={"data": {"paths": ["README.md"]}},
        asked="/api/models/{repo}/paths-info/main",
        silent=True,
    ),
    Row("GET", f"{HUB}/commits/{{revision}}", "read", asked="/api/models/{repo}/commits/main"),
    Row("GET", f"{HUB}/refs", "read"),
    Row("POST", f"{HUB}/branch/{{branch}}", "write", asked="/api/models/{repo}/branch/b{fresh}"),
    Row("DELETE", f"{HUB}/branch/{{branch}}", "write", 404, asked="/api/models/{repo}/branch/none"),
    Row(
        "POST",
        f"{HUB}/tag/{{revision}}",
        "write",
        send={"json": {"tag": "t{fresh}"}},
        asked="/api/models/{repo}/tag/main",
    ),
    Row("DELETE", f"{HUB}/tag/{{tag}}", "write", 404, asked="/api/models/{repo}/tag/none"),
    Row(
        "POST",
        f"{HUB}/preupload/{{revision}}",
        "write",
        send={"json": {"files": []}},
        asked="/api/models/{repo}/preupload/main",
        silent=True,
    ),
    Row(
        "POST",
        f"{HUB}/commit/{{revision}}",
        "write",
        send={"content": b'{"key": "header", "value": {"summary": "none"}}\n'},
        asked="/api/models/{repo}/commit/main",
        silent=True,
    ),
    Row("POST", f"{HUB}/lfs-files/{{rest}}", "nobody", 400),
    Row("GET", f"{HUB}/lfs-files", "nobody", 400),
    Row("POST", f"{HUB}/super-squash/{{branch}}", "nobody", 400),
    Row("POST", f"{HUB}/discussions/{{rest}}", "nobody", 400),
    Row("GET", f"{HUB}/discussions/{{rest}}", "nobody", 400),
    Row("POST", f"{HUB}/discussions", "nobody", 400),
    Row("GET", f"{HUB}/discussions", "nobody", 400),
    Row("GET", "/api/{kind}", "nothing", asked="/api/models"),
    # A name without a namespace is nobody's here.
    Row("GET", "/api/{kind}/{name}", "nothing", 404, asked="/api/models/alone"),
    Row("GET", "/api/{kind}/{name}/revision/{revision}", "nothing", 404, asked="/api/models/alone/revision/main"),
    Row("GET", "/{name}/resolve/{rest}", "nothing", 404, asked="/alone/resolve/main/config.json"),
    Row("HEAD", "/{name}/resolve/{rest}", "nothing", 404, asked="/alone/resolve/main/config.json"),
    Row("GET", HUB, "read"),
    Row("GET", f"{HUB}/revision/{{revision}}", "read", asked="/api/models/{repo}/revision/main"),
    Row(
        "GET",
        "/datasets/{namespace}/{name}/resolve/{rest}",
        "read",
        asked="/datasets/{dataset}/resolve/main/train.jsonl",
    ),
    Row(
        "HEAD",
        "/datasets/{namespace}/{name}/resolve/{rest}",
        "read",
        asked="/datasets/{dataset}/resolve/main/train.jsonl",
    ),
    Row("GET", "/{namespace}/{name}/resolve/{rest}", "read", asked="/{repo}/resolve/main/adapter_config.json"),
    Row("HEAD", "/{namespace}/{name}/resolve/{rest}", "read", asked="/{repo}/resolve/main/adapter_config.json"),
)
