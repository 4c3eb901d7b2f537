"""Data sets: the list, and one with a look at its examples."""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
