"""Health checks: whether the process is up, and whether it can serve requests."""

from fastapi import APIRouter

from api.v1.health import schemas
from hub.http.identity import ServicesDep
from hub.version import VERSION

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> schemas.Health:
    """The process answers, and which version it is."""
    return schemas.Health(status="ok", version=VERSION)


@router.get("/readyz")
def readyz(services: ServicesDep) -> schemas.State:
    """Database, storage and broker answer too; 503 names the one that does not."""
    services.check()
    return schemas.State(status="ready")
