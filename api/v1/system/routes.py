"""/v1: the instance as a whole, for its administrators."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.v1.system import schemas
from hub.http.identity import SessionDep
from hub.http.permissions import CanAdministerHub
from hub.registry.jobs import usage

router = APIRouter(prefix="/v1", tags=["system"])


@router.get("/usage")
def list_usage(
    session: SessionDep, hub: CanAdministerHub, months: Annotated[int, Query(ge=1, le=120)] = 12
) -> list[schemas.DeviceSeconds]:
    """Device-seconds of every namespace by month, device and kind of job, this month first (administrators)."""
    used = usage.of_instance(session, months)
    return [schemas.DeviceSeconds.model_validate(row, from_attributes=True) for row in used]


@router.get("/system")
def show_system(session: SessionDep, hub: CanAdministerHub) -> schemas.System:
    """Queued and running jobs, live workers, bytes held, and this month's device-seconds (administrators)."""
    return schemas.System.model_validate(usage.system(session), from_attributes=True)
