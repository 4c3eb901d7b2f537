"""What is one's own: tokens, sessions, password, and the log of who did what."""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
