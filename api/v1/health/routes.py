"""Is the process up, and can it do its work."""

from fastapi import APIRouter

from api.v1.health import schemas
from hub.http.identity import ServicesDep

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> schemas.State:
    """The process answers."""
    return schemas.State(status="ok")


@router.get("/readyz")
def readyz(services: ServicesDep) -> schemas.State:
    """Database, storage and broker answer too; 503 names the one that does not."""
    services.check()
    return schemas.State(status="ready")
