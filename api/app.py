"""The API process: routes, pages, middleware and the one error handler."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from api import huggingface, v1
from api.huggingface.errors import render
from api.v1.jobs.watch import Watcher
from hub.http.errors import install_error_handlers
from hub.http.limits import LimitBody, LimitRate
from hub.http.stamp import StampVersion
from hub.registry.platform.log import configure_logging
from hub.registry.platform.rate_limits import RateLimits
from hub.registry.platform.services import Services, connect
from hub.registry.platform.settings import load_settings
from hub.version import VERSION
from hub.web.render import error_page
from hub.web.site import CATCH_ALL_ROUTERS, PAGE_ROUTERS

log = logging.getLogger(__name__)


class Application(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        """Starlette's own handler of unforeseen errors goes around all middleware that is added the usual way."""
        return StampVersion(super().build_middleware_stack())


def create_app(services: Services | None = None) -> FastAPI:
    """The application. `uvicorn --factory api.app:create_app` calls it without arguments; tests hand in their services."""
    if services is None:
        configure_logging()
        services = connect(load_settings())
    watcher = Watcher(services.sessions)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        polling = asyncio.create_task(watcher.run())
        yield
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling
        app.state.limits.close()

    app = Application(
        title="Loraloom",
        version=VERSION,
        description="A registry of LoRA adapters and the jobs that weave new ones.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # hub.web has a page that loads nothing from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.services = services
    app.state.watcher = watcher
    app.state.limits = RateLimits(services.settings)
    app.router.routes.extend(_routes())
    install_error_handlers(app, error_page, render)
    app.add_middleware(LimitBody, limit=services.settings.max_upload_bytes)
    app.add_middleware(LimitRate, limits=app.state.limits)
    return app


@cache
def _routes() -> Sequence[BaseRoute]:
    """Those of every module. FastAPI takes a fifth of a second to prepare them, which each application of a test would pay again."""
    router = APIRouter()
    for module in (v1, *PAGE_ROUTERS, huggingface, *CATCH_ALL_ROUTERS):
        router.include_router(module.router)
    return router.routes
