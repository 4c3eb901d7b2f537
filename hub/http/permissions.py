"""What a route or a page needs of whoever sends the request, declared in its signature.

Every route that changes something has a parameter of one of the types below, or says by `public` why it needs none;
tests/access_matrix/test_declarations.py fails otherwise. The rules are in hub.registry.access.permissions.
"""

from typing import Annotated, Any

from fastapi import Depends

from hub.http.identity import SessionDep, SignedIn
from hub.registry.access import organizations
from hub.registry.access.organizations import AdministerOrganization, RemoveMember
from hub.registry.access.permissions import (
    Administer,
    AdministerHub,
    ManageAccount,
    UseJobs,
    WriteSomewhere,
    authorize,
    authorize_in,
)
from hub.registry.content import repos
from hub.registry.content.repos import WriteRepo

# Those that need no database are async, as FastAPI gives a thread to each dependency that is not.


async def manage_account(viewer: SignedIn) -> ManageAccount:
    return authorize(viewer, ManageAccount)


async def administer_hub(viewer: SignedIn) -> AdministerHub:
    return authorize(viewer, AdministerHub)


async def use_jobs(viewer: SignedIn) -> UseJobs:
    return authorize(viewer, UseJobs)


async def write_somewhere(viewer: SignedIn) -> WriteSomewhere:
    return authorize(viewer, WriteSomewhere)


def administer_namespace(session: SessionDep, viewer: SignedIn, namespace: str) -> Administer:
    return authorize_in(session, viewer, Administer, namespace)


def administer_organization(session: SessionDep, viewer: SignedIn, organization: str) -> AdministerOrganization:
    return organizations.administer(session, viewer, organization)


def write_adapter(session: SessionDep, viewer: SignedIn, namespace: str, name: str) -> WriteRepo:
    return repos.writable(session, viewer, "model", f"{namespace}/{name}")


def write_dataset(session: SessionDep, viewer: SignedIn, namespace: str, name: str) -> WriteRepo:
    return repos.writable(session, viewer, "dataset", f"{namespace}/{name}")


def remove_member(session: SessionDep, viewer: SignedIn, organization: str, user: str) -> RemoveMember:
    return organizations.authorize_removal(session, viewer, organization, user)


CanManageAccount = Annotated[ManageAccount, Depends(manage_account)]
CanAdministerHub = Annotated[AdministerHub, Depends(administer_hub)]
CanUseJobs = Annotated[UseJobs, Depends(use_jobs)]
CanWriteSomewhere = Annotated[WriteSomewhere, Depends(write_somewhere)]
CanAdminister = Annotated[Administer, Depends(administer_namespace)]
CanAdministerOrganization = Annotated[AdministerOrganization, Depends(administer_organization)]
CanWriteAdapter = Annotated[WriteRepo, Depends(write_adapter)]
CanWriteDataset = Annotated[WriteRepo, Depends(write_dataset)]
CanRemoveMember = Annotated[RemoveMember, Depends(remove_member)]


class Public:
    """The declaration that a route needs no permit, and why."""

    def __init__(self, why: str) -> None:
        self.why = why

    async def __call__(self) -> None:
        """Let everybody pass."""


def public(why: str) -> Any:
    """For `dependencies=[...]` of a route: it needs no permit, because of `why`."""
    return Depends(Public(why))
