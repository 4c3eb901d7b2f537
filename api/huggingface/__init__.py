"""The protocol of the Hugging Face Hub, so that its clients work unchanged with HF_ENDPOINT set to this hub (docs/huggingface.md)."""

from fastapi import APIRouter

from api.huggingface import auth, cards, commit, info, lfs, refs, repos, resolve, tree, unsupported, xet

router = APIRouter(include_in_schema=False)  # the Hub documents this protocol; /v1/openapi.json describes /v1 alone
# Fixed addresses come before those with a kind of repo in them.
for module in (auth, cards, lfs, xet, repos, tree, refs, commit, unsupported, info, resolve):
    router.include_router(module.router)
