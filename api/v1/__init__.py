"""The REST API, by subject: each package has its routes and the schemas of their requests and answers."""

from fastapi import APIRouter

from api.v1.account.routes import router as account
from api.v1.adapters.routes import router as adapters
from api.v1.aliases.routes import router as aliases
from api.v1.bases.routes import router as bases
from api.v1.datasets.routes import router as datasets
from api.v1.health.routes import router as health
from api.v1.jobs.routes import router as jobs
from api.v1.library.routes import router as library
from api.v1.repos.routes import router as repos
from api.v1.shares.routes import router as shares
from api.v1.system.routes import router as system
from api.v1.teams.routes import router as teams

# Bases and teams come before repos, whose /v1/{kind}/{namespace}/{name} would take what they name for a repo.
SUBJECTS = (health, account, adapters, aliases, library, datasets, shares, bases, teams, repos, jobs, system)

router = APIRouter()
for subject in SUBJECTS:
    router.include_router(subject)
