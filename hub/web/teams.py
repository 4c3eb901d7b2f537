"""Teams, their members and what they use."""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
