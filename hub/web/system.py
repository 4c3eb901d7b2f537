"""How the instance is: queues, workers, storage, device-seconds."""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
