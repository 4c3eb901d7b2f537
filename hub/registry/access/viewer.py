"""The signed-in user as far as access is concerned."""

import uuid
from dataclasses import dataclass

from hub.registry.models.access import User
from hub.vocabulary import SCOPES


@dataclass(frozen=True)
class Viewer:
    """A signed-in user as far as access is concerned: plain values, so that no session needs to stay open.

    `scopes` and `repos` are those of the token: what it allows, and the repos ("namespace/name" or "namespace/*")
    beyond the public ones that it is limited to, or None. An administrator is one only with a token of scope admin.
    """

    id: uuid.UUID
    name: str
    is_admin: bool
    scopes: frozenset[str] = frozenset(SCOPES)
    repos: tuple[str, ...] | None = None
    service_of: str | None = None

    @property
    def namespace(self) -> str:
        """Where what nobody named goes: a person's own namespace, and a service account's organization."""
        return self.service_of or self.name

    def limited_from(self, namespace: str, name: str | None) -> bool:
        """Whether the token's limits leave this repo out, or, without a name, anything in the namespace."""
        allowed = (f"{namespace}/*", f"{namespace}/{name}") if name else (f"{namespace}/*",)
        return self.repos is not None and not any(pattern in self.repos for pattern in allowed)


def viewer_of(user: User) -> Viewer:
    """The user with all of their rights, as without a token."""
    return Viewer(user.id, user.name, user.is_admin, service_of=user.service_of)
