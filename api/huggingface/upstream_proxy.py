"""Routes that also answer for repos of an upstream hub, where one is configured (hub.registry.platform.upstream_client)."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute

from hub.http.addresses import raw_path, root_url
from hub.http.identity import identify
from hub.registry.content import read_through
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import RepoNotFound
from hub.registry.platform.services import Services

MAX_FORM_BYTES = 1 << 20
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def serves(request: Request) -> bool:
    """Whether the upstream hub answers for the repo of this request."""
    services: Services = request.app.state.services
    full_name = f"{request.path_params.get('namespace')}/{request.path_params.get('name')}"
    with transaction(services.sessions) as session:
        return read_through.serves(session, services.upstream, identify(request, session), full_name)


class UpstreamFallbackRoute(APIRoute):
    """Forward GET and paths-info requests for unknown repos to the upstream hub."""

    def get_route_handler(self) -> Handler:
        local = super().get_route_handler()

        async def answer(request: Request) -> Response:
            form = await _form(request)  # read before parsing, which consumes it
            try:
                return await local(request)
            except RepoNotFound:
                forwardable = request.method == "GET" or form
                if not forwardable or not await run_in_threadpool(serves, request):
                    raise
            return await run_in_threadpool(_forward, request, form)

        return answer


async def _form(request: Request) -> bytes:
    """The form of a paths-info request; empty for any other request, and if the form is too large to forward."""
    length = request.headers.get("Content-Length", "")
    is_paths_info = request.method == "POST" and request.url.path.split("/")[5:6] == ["paths-info"]
    return await request.body() if is_paths_info and length.isdecimal() and int(length) <= MAX_FORM_BYTES else b""


def _forward(request: Request, form: bytes) -> Response:
    path = raw_path(request)
    services: Services = request.app.state.services
    answer = services.upstream.ask(path, request.url.query, form)
    link = {"Link": f'<{root_url(request)}{answer.following}>; rel="next"'} if answer.following else {}
    return Response(answer.text, headers=link, media_type="application/json")
