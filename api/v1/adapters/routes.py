"""/v1/adapters and /v1/facets: upload, list and search, one adapter."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool

from api.v1.adapters import schemas
from api.v1.repos.routes import Revision
from api.v1.upload import body_description
from hub.http.identity import ServicesDep, SessionDep, ViewerDep
from hub.http.permissions import CanWriteSomewhere
from hub.http.uploads import Upload, read_upload
from hub.registry.access.viewer import Viewer
from hub.registry.content import repos
from hub.registry.content.repo_visibility import parse_visibility
from hub.registry.inspection.findings import Finding
from hub.registry.library import facets, provenance, repair, search
from hub.registry.library.publishing import publish_adapter
from hub.registry.library.search import Filters, Sort
from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Ref, TreeEntry
from hub.registry.platform.services import Services
from hub.vocabulary import MAIN, Visibility

router = APIRouter(prefix="/v1", tags=["adapters"])


@router.post(
    "/adapters", status_code=201, openapi_extra=body_description("the PEFT folder's files, or one .zip or .tar of it")
)
async def upload_adapter(request: Request, services: ServicesDep, writer: CanWriteSomewhere) -> schemas.Published:
    """Publish one whole, sound PEFT adapter. Refused with every finding if something is wrong with it."""
    async with read_upload(request, services.settings.max_upload_bytes) as upload:
        return await run_in_threadpool(_publish, services, writer.viewer, upload)


def _publish(services: Services, viewer: Viewer, upload: Upload) -> schemas.Published:
    published = publish_adapter(
        services,
        viewer,
        upload.fields.get("name", ""),
        upload.files,
        visibility=visibility_field(upload),
        message=upload.fields.get("message", "Upload"),
    )
    return schemas.Published(
        repo=published.repo.full_name,
        commit=published.commit.id,
        version=published.version,
        adapters=[
            schemas.Folder(
                folder=facts.folder,
                base_model=facts.base_model,
                base_id=published.base_ids.get(facts.folder),
                method=facts.method,
                rank=facts.rank,
                tags=list(facts.tags),
                facts=facts.to_dict(),
                findings=[],
            )
            for facts in published.inspection.adapters
        ],
        findings=findings([*published.inspection.findings, *published.duplicates]),
    )


def visibility_field(upload: Upload) -> Visibility | None:
    value = upload.fields.get("visibility")
    return None if value is None else parse_visibility(value)


def findings(items: Iterable[Finding]) -> list[schemas.Finding]:
    return [schemas.Finding.model_validate(finding.to_dict()) for finding in items]


def asked(
    base_model: Annotated[str | None, Query(description="any name of it")] = None,
    method: str | None = None,
    task: Annotated[str | None, Query(description="as PEFT names it: CAUSAL_LM")] = None,
    rank: Annotated[int | None, Query(ge=1)] = None,
    tag: Annotated[list[str] | None, Query(description="all of them")] = None,
    q: Annotated[str | None, Query(description="words that must all occur", max_length=200)] = None,
    owner: str | None = None,
    visibility: Visibility | None = None,
) -> Filters:
    return Filters(
        base_model=base_model,
        method=method,
        task=task,
        rank=rank,
        tag=tag or (),
        text=q,
        owner=owner,
        visibility=visibility,
    )


Asked = Annotated[Filters, Depends(asked)]


@router.get("/adapters")
def list_adapters(
    session: SessionDep,
    viewer: ViewerDep,
    filters: Asked,
    sort: Sort = "newest",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> schemas.AdapterPage:
    """Adapters that you may see: newest first, by name, largest first, or best on their own data first."""
    page = search.search(session, viewer, filters, sort=sort, limit=limit, cursor=cursor)
    return schemas.AdapterPage(items=[_summary(hit) for hit in page.hits], cursor=page.cursor)


def _summary(hit: search.Hit) -> schemas.AdapterSummary:
    fields = {name: getattr(hit, name) for name in schemas.AdapterSummary.model_fields if name != "findings"}
    return schemas.AdapterSummary.model_validate({**fields, "findings": hit.warnings}, from_attributes=True)


@router.get("/facets")
def get_facets(session: SessionDep, viewer: ViewerDep, filters: Asked) -> schemas.Facets:
    """The facets of the adapters that you may see, under the same filters as the list: exact counts up to 1,000."""
    counts = facets.facets(session, viewer, filters)
    return schemas.Facets.model_validate({"total": counts.total, **counts.values}, from_attributes=True)


@router.get("/adapters/{namespace}/{name}")
def get_adapter(
    session: SessionDep, viewer: ViewerDep, namespace: str, name: str, revision: Revision = MAIN
) -> schemas.Adapter:
    """One adapter at a revision: facts, findings, files, versions, lineage and measured figures."""
    repo = repos.find(session, viewer, "model", f"{namespace}/{name}")
    commit = repos.resolve(session, repo, revision)
    return schemas.Adapter(
        repo=repo.full_name,
        visibility=repo.visibility,
        commit=commit.id,
        message=commit.message,
        created_at=commit.created_at,
        adapters=[folder_info(facts) for facts in repos.facts(session, commit)],
        files=file_infos(repos.files(session, commit)),
        refs=_refs(repos.refs(session, repo)),
        parents=_ancestors(provenance.parents(session, viewer, commit)),
        lost_inputs=provenance.missing_inputs(session, commit),
        children=_ancestors(provenance.children(session, viewer, commit)),
        scores=score_infos(provenance.scores(session, viewer, commit_ids=[commit.id])),
    )


@router.post("/adapters/{namespace}/{name}/repair")
def repair_adapter(
    services: ServicesDep, writer: CanWriteSomewhere, namespace: str, name: str, body: schemas.Repair
) -> schemas.Repaired:
    """A new commit with the base's registered id, a licence, and a card where there is none; the weights stay as they are."""
    repaired = repair.repair(
        services, writer.viewer, f"{namespace}/{name}", folder=body.folder, base=body.base, licence=body.licence
    )
    return schemas.Repaired.model_validate(repaired, from_attributes=True)


def folder_info(facts: AdapterFacts) -> schemas.Folder:
    return schemas.Folder(
        folder=facts.folder,
        base_model=facts.base_model,
        base_id=facts.base_id,
        method=facts.method,
        rank=facts.rank,
        tags=facts.tags,
        facts=facts.facts,
        findings=[schemas.Finding.model_validate(finding) for finding in facts.findings],
    )


def file_infos(entries: Iterable[TreeEntry]) -> list[schemas.FileInfo]:
    return [schemas.FileInfo(path=entry.path, size=entry.size, sha256=entry.sha256) for entry in entries]


def _refs(refs: Iterable[Ref]) -> list[schemas.RefInfo]:
    return [schemas.RefInfo(name=ref.name, kind=ref.kind, commit=ref.commit_id, moved_at=ref.moved_at) for ref in refs]


def _ancestors(relatives: Iterable[provenance.Relative]) -> list[schemas.Ancestor]:
    return [schemas.Ancestor.model_validate(relative, from_attributes=True) for relative in relatives]


def score_infos(scores: Iterable[provenance.Measured]) -> list[schemas.ScoreInfo]:
    return [schemas.ScoreInfo.model_validate(score, from_attributes=True) for score in scores]
