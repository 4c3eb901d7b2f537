"""/v1/map and .../similar: which adapters of a library are alike, from their own weights alone."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.v1.adapters.routes import score_infos
from api.v1.library import schemas
from hub.http.identity import SessionDep, ViewerDep
from hub.registry.content import repos
from hub.registry.library import provenance, similar
from hub.registry.library.similar import Module
from hub.similarity import DUPLICATE
from hub.vocabulary import MAIN

router = APIRouter(prefix="/v1", tags=["library"])

Cosine = Annotated[float, Query(ge=-1, le=1)]


@router.get("/map")
def get_map(
    session: SessionDep,
    viewer: ViewerDep,
    base_model: Annotated[str, Query(description="any name of it")],
    owner: Annotated[list[str] | None, Query(description="these namespaces alone")] = None,
    duplicate: Cosine = DUPLICATE,
    cluster: Cosine = 0.5,
) -> schemas.LibraryMap:
    """The adapters of one base that you may see: near duplicates, clusters, the cosine of every pair, and their measured figures."""
    library_map = similar.library_map(
        session, viewer, base_model, namespaces=owner or (), duplicate=duplicate, cluster=cluster
    )
    commits = [module.commit for module in [*library_map.modules, *library_map.unplaced]]
    return schemas.LibraryMap(
        base_model=base_model,
        modules=[module_ref(module) for module in library_map.modules],
        unplaced=[module_ref(module) for module in library_map.unplaced],
        duplicates=[
            schemas.NearDuplicate(first=i, second=j, cosine=cosine, standard_error=similar.standard_error(cosine))
            for i, j, cosine in library_map.duplicates
        ],
        clusters=library_map.clusters,
        cosines=[[round(float(cosine), 4) for cosine in row] for row in library_map.cosines],
        scores=score_infos(provenance.scores(session, viewer, commit_ids=commits)),
    )


@router.get("/adapters/{namespace}/{name}/similar")
def list_similar(
    session: SessionDep,
    viewer: ViewerDep,
    namespace: str,
    name: str,
    revision: Annotated[str, Query(description="branch, tag, version (v2) or commit")] = MAIN,
    least: Cosine = 0.5,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> list[schemas.SimilarModule]:
    """Adapters of the same base whose update points the same way, most alike first."""
    repo = repos.find(session, viewer, "model", f"{namespace}/{name}")
    return [
        schemas.SimilarModule(
            folder=facts.folder,
            module=module_ref(match.module),
            cosine=match.cosine,
            standard_error=similar.standard_error(match.cosine),
        )
        for facts in repos.facts(session, repos.resolve(session, repo, revision))
        for match in similar.alike(session, viewer, repo, facts, least=least, limit=limit)
    ]


def module_ref(module: Module) -> schemas.ModuleRef:
    return schemas.ModuleRef(repo=module.repo, folder=module.folder, commit=module.commit)
