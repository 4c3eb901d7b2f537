"""Forms that start jobs: compose, train, LoRA-PAR, reduce, evaluate."""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
