"""Publishing a module: the first request stores the bytes and shows what they are, the second publishes what was shown."""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
