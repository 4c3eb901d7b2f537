"""Every route of the API, the protocol and the pages."""

import re
from collections.abc import Iterator

from fastapi.routing import APIRoute

from api import v1
from api.huggingface import auth, cards, commit, info, lfs, refs, resolve, tree, unsupported, xet
from api.huggingface import repos as hub_repos
from hub.web.site import CATCH_ALL_ROUTERS, PAGE_ROUTERS


def api_routes() -> Iterator[APIRoute]:
    hub = (auth, cards, commit, info, lfs, refs, hub_repos, resolve, tree, unsupported, xet)
    routers = [*v1.SUBJECTS, *(module.router for module in (*PAGE_ROUTERS, *CATCH_ALL_ROUTERS, *hub))]
    for router in routers:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            yield route


def row_path(route: APIRoute) -> str:
    return re.sub(r":\w+\}", "}", route.path)
